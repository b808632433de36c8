package server

import (
	"errors"
	"net/netip"
	"os"
	"strings"

	"go.uber.org/zap/zapcore"

	"smtplb/conf"
	"smtplb/internal/accesslog"
	"smtplb/internal/errorlog"
	"smtplb/internal/script"
	"smtplb/internal/stream"
	"smtplb/upstream"
)

// What of a configuration is evaluated for each session: variables, and all
// that contains them. It is compiled here, once, and what is wrong with it is
// reported at its place in the file.

// nginxVersion is what $nginx_version says: that of the nginx whose language
// this is.
const nginxVersion = "1.22.1"

// zone is a stream.Zone and what it was made of.
type zone struct {
	key  string
	size int
	*stream.Zone
}

// language is a configuration's scope and what was compiled by it.
type language struct {
	scope   *script.Scope // nil: nothing is evaluated
	formats map[string]*script.Format
	keys    map[string]*script.Value // of zones by their names, and of upstreams that hash
	zones   map[string]zone
	report  func(at conf.Position, format string, args ...any)
}

// evaluates reports whether a configuration has anything that is evaluated.
func evaluates(c *conf.Config) bool {
	for i := range c.Servers {
		s := &c.Servers[i]
		if s.ProxyPassText != "" || s.Return != nil || s.UploadRate.Text != nil || s.DownloadRate.Text != nil ||
			s.Bind != nil && s.Bind.Text != "" || s.Pass != nil && s.Pass.Text != "" ||
			len(s.Sets)+len(s.AccessLogs)+len(s.Limits) > 0 {
			return true
		}
	}
	for i := range c.Upstreams {
		if hashes(&c.Upstreams[i]) {
			return true
		}
	}
	return len(c.Maps)+len(c.Geos)+len(c.Splits)+len(c.LogFormats)+len(c.LimitZones) > 0
}

// clientAddress is the key of a hash that needs no evaluation.
const clientAddress = "$remote_addr"

// hashes reports whether the group goes by a key that is evaluated.
func hashes(u *conf.Upstream) bool {
	return u.Method.Key != clientAddress && strings.Contains(u.Method.Key, "$")
}

// compile builds the language of a configuration. Zones that are there already
// stay.
func (s *Server) compile(c *conf.Config, report func(conf.Position, string, ...any)) *language {
	l := &language{report: report, zones: map[string]zone{}, keys: map[string]*script.Value{}, formats: map[string]*script.Format{}}
	if !evaluates(c) {
		return l
	}
	host, _ := os.Hostname()
	l.scope = script.NewScope(script.Process{Version: nginxVersion, Hostname: host, PID: os.Getpid()})
	l.define(c)
	for _, f := range c.LogFormats {
		escape, err := script.ParseEscape(f.Escape)
		if err == nil {
			l.formats[f.Name], err = l.scope.Format(escape, f.Texts...)
		}
		l.check(f.Position, err)
	}
	for _, z := range c.LimitZones {
		l.keys["zone "+z.Name] = l.value(z.Position, z.Key)
		old, ok := s.zones[z.Name]
		if !ok || old.key != z.Key || old.size != z.Size {
			old = zone{z.Key, z.Size, stream.NewZone(z.Name, int64(z.Size))}
		}
		l.zones[z.Name] = old
	}
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; hashes(u) {
			l.keys["hash "+u.Name] = l.value(u.Method.Position, u.Method.Key)
		}
	}
	return l
}

// define makes the variables of the configuration known.
func (l *language) define(c *conf.Config) {
	at := map[string]conf.Position{} // by variables in lower case, without the dollar
	place := func(variable string, p conf.Position) {
		at[strings.ToLower(strings.TrimPrefix(variable, "$"))] = p
	}
	for _, m := range c.Maps {
		place(m.Variable, m.Position)
		l.checkBlock(m.Position, m.Entries, l.scope.Map(script.Map{
			Variable: m.Variable, Source: m.Source, Hostnames: m.Hostnames, Volatile: m.Volatile, Entries: entriesOf(m.Entries),
		}))
	}
	for _, g := range c.Geos {
		place(g.Variable, g.Position)
		warnings, err := l.scope.Geo(script.Geo{
			Variable: g.Variable, Source: g.Source, Ranges: g.Ranges, Volatile: g.Volatile, Entries: entriesOf(g.Entries),
		})
		l.checkBlock(g.Position, g.Entries, err)
		for _, w := range warnings {
			c.Warnings = append(c.Warnings, conf.ParseError{Position: g.Entries[w.Entry].Position, Message: w.Error()}.Error())
		}
	}
	for _, p := range c.Splits {
		place(p.Variable, p.Position)
		l.checkBlock(p.Position, p.Parts, l.scope.Split(script.Split{Variable: p.Variable, Source: p.Source, Parts: entriesOf(p.Parts)}))
	}
	for _, s := range c.Servers {
		for _, set := range s.Sets {
			place(set.Variable, set.Position)
			l.check(set.Position, l.scope.Set(set.Variable))
		}
	}
	l.checkAll(l.scope.Build(), at)
}

func entriesOf(entries []conf.Entry) []script.Entry {
	all := make([]script.Entry, len(entries))
	for i, e := range entries {
		all[i] = script.Entry{Key: e.Key, Value: e.Value}
	}
	return all
}

func (l *language) check(at conf.Position, err error) {
	if err != nil {
		l.report(at, "%v", err)
	}
}

// checkBlock reports the error of a block, or of one of its entries.
func (l *language) checkBlock(at conf.Position, entries []conf.Entry, err error) {
	if of, ok := errors.AsType[*script.EntryError](err); ok {
		at = entries[of.Entry].Position
	}
	l.check(at, err)
}

// checkAll reports the errors of a Build, each where its variable is defined.
func (l *language) checkAll(err error, at map[string]conf.Position) {
	if err == nil {
		return
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		if of, ok := errors.AsType[*script.Error](err); ok {
			l.report(at[strings.ToLower(of.Variable)], "%v", of.Err)
		} else {
			l.report(conf.Position{}, "%v", err)
		}
	}
}

// value compiles a text; nil if it is empty or wrong, which is reported.
func (l *language) value(at conf.Position, text string) *script.Value {
	if text == "" {
		return nil
	}
	v, err := l.scope.Compile(text)
	l.check(at, err)
	return v
}

// complete gives a route what its server evaluates. Access logs are opened by
// Prepare.
func (l *language) complete(r *stream.Route, c *conf.Server) {
	r.UploadRate, r.DownloadRate = l.rate(c.UploadRate), l.rate(c.DownloadRate)
	r.Bind = l.bind(c.Bind)
	if r.Scope = l.scope; r.Scope == nil {
		return
	}
	for _, s := range c.Sets {
		a, err := l.scope.Assign(s.Variable, s.Value)
		l.check(s.Position, err)
		r.Sets = append(r.Sets, a)
	}
	for _, limit := range c.Limits {
		r.Limits = append(r.Limits, stream.Limit{Zone: l.zones[limit.Zone].Zone, Key: l.keys["zone "+limit.Zone], N: limit.Connections})
	}
	r.LimitDryRun = c.LimitDryRun
	r.LimitLogLevel = zapcore.ErrorLevel
	if level, err := errorlog.ParseLevel(c.LimitLogLevel); err == nil {
		r.LimitLogLevel = level
	}
	if c.Return != nil {
		r.Return = l.returned(c.Return)
	}
	r.ProxyPass = l.value(c.ProxyPassPosition, c.ProxyPassText)
	if r.Pass != nil {
		r.Pass.Text = l.value(c.Pass.Position, c.Pass.Text)
	}
}

func (l *language) rate(c conf.Rate) stream.Rate {
	if c.Text == nil {
		return stream.Rate{Bytes: int64(c.Bytes)}
	}
	return stream.Rate{Value: l.value(c.Text.Position, c.Text.Text)}
}

func (l *language) bind(c *conf.Bind) stream.Bind {
	switch {
	case c == nil:
		return stream.Bind{}
	case c.Text != "":
		return stream.Bind{Value: l.value(c.Position, c.Text), Transparent: c.Transparent}
	case c.Host == "":
		return stream.Bind{Client: true, ClientPort: c.ClientPort, Transparent: c.Transparent}
	}
	return stream.Bind{Addr: netip.AddrPortFrom(netip.MustParseAddr(c.Host), c.Port), Transparent: c.Transparent}
}

// returned compiles the text of return, which may be empty.
func (l *language) returned(t *conf.Text) *script.Value {
	v, err := l.scope.Compile(t.Text)
	l.check(t.Position, err)
	return v
}

// accessLogs compiles the access logs of a server; their files are opened only
// if open is set.
func (s *Server) accessLogs(l *language, c *conf.Server, open bool) (logs []stream.AccessLog) {
	for _, a := range c.AccessLogs {
		log := stream.AccessLog{Format: l.formats[a.Format], If: l.value(a.Position, a.If)}
		target := accesslog.Target{Path: a.Path, Buffer: a.Buffer, Flush: a.Flush, Gzip: a.Gzip}
		if path := l.value(a.Position, a.Path); path != nil {
			if _, constant := path.Constant(); !constant && !strings.HasPrefix(a.Path, "syslog:") {
				log.Path, target.Variable = path, true
			}
		}
		var err error
		if open {
			log.Log, err = s.logs.Open(target)
		} else {
			err = target.Check()
		}
		l.check(a.Position, err)
		logs = append(logs, log)
	}
	return logs
}

// ReopenLogs opens the files of the access logs anew. Those that cannot be
// opened go on in the old ones; the error names them.
func (s *Server) ReopenLogs() error { return s.logs.Reopen() }

// GiveLogs makes a user the owner of the access logs' files, so that it can
// reopen them.
func (s *Server) GiveLogs(uid int) error { return s.logs.GiveTo(uid) }

// destinations are the groups by their names, for servers that choose one for each
// session. A group without a name of its own has that of its address, such as
// mx.example.org:25, and gets the header given. Servers share them.
func (p *plan) destinations(groups map[string]*upstream.Group, header stream.HeaderVersion) map[string]*stream.Destination {
	if all := p.byHeader[header]; all != nil {
		return all
	}
	all := make(map[string]*stream.Destination, len(groups))
	for name, group := range groups {
		to, named := p.users[name]
		if to.Group = group; !named {
			to.Header = header
		}
		all[stream.GroupKey(name)] = &to
	}
	p.byHeader[header] = all
	return all
}
