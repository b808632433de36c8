package conf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"smtplb/conf/nginx"
)

func (r *ngxReader) upstream(outer *ngxBlock, d nginx.Directive) error {
	name, err := ngxWord(d)
	if err != nil {
		return err
	}
	if r.upstreams[strings.ToLower(name)] != nil {
		return fmt.Errorf(`duplicate upstream "%s"`, name)
	}
	u := &Upstream{Position: place(d), Name: name, Method: Method{Type: "round_robin"}, ProxyProtocol: "off"}
	u.Check = Check{Position: u.Position}
	r.upstreams[strings.ToLower(name)] = u
	r.order = append(r.order, u)

	b := &ngxBlock{context: inUpstream, at: d, outer: outer, seen: make(map[string]bool), upstream: u}
	r.walk(b, d.Block)
	for _, name := range []string{"check_smtp_send", "check_smtp_expect_alive"} {
		if b.seen[name] && !u.Check.On {
			r.warn(u.Position, `"%s" has no effect: upstream "%s" has no "check"`, name, u.Name)
		}
	}
	if b.lines == 0 && d.End > 0 {
		r.problem(Position{File: d.File, Line: d.End}, "no servers are inside upstream")
	}
	return nil
}

// upstreamServer reads a line of an upstream, as ngx_stream_upstream_server does.
func (r *ngxReader) upstreamServer(b *ngxBlock, d nginx.Directive) error {
	if b.lines++; len(b.upstream.Servers) == maxServers {
		return fmt.Errorf("too many servers; a configuration has at most %d", maxServers)
	}
	s := UpstreamServer{Position: place(d), Weight: 1, MaxFails: 1, FailTimeout: 10 * time.Second}
	for _, word := range d.Args[1:] {
		if err := upstreamServerParameter(&s, word); err != nil {
			return err
		}
		if s.Backup && b.upstream.Method.refusesBackups() {
			return errNoBackups
		}
	}
	u, err := parseURL(d.Args[0], false)
	switch {
	case err != nil:
		return fmt.Errorf(`%w in upstream "%s"`, err, d.Args[0])
	case u.noPort:
		return fmt.Errorf(`no port in upstream "%s"`, d.Args[0])
	}
	s.Address = u.Address
	b.upstream.Servers = append(b.upstream.Servers, s)
	return nil
}

func upstreamServerParameter(s *UpstreamServer, word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	if hasValue {
		name += "="
	}
	number := func(to *int, least, most uint64) bool {
		n, ok := atoi(value, most)
		*to = int(n)
		return ok && n >= least
	}
	duration := func(to *time.Duration) bool {
		var err error
		*to, err = parseTime(value, seconds)
		return err == nil
	}
	ok := true
	switch name {
	case "weight=":
		ok = number(&s.Weight, 1, 1_000_000)
	case "max_conns=":
		ok = number(&s.MaxConns, 0, 1<<30)
	case "max_fails=":
		ok = number(&s.MaxFails, 0, 1<<30)
	case "max_pending=": // ours
		ok = number(&s.MaxPending, 0, 1<<30)
	case "fail_timeout=":
		ok = duration(&s.FailTimeout)
	case "slow_start=": // of the commercial nginx
		ok = duration(&s.SlowStart)
	case "backup":
		s.Backup = true
	case "down":
		s.Down = true
	case "resolve", "service=":
		return fmt.Errorf(`"%s" in "server" is not supported by this version; names are looked up at start and at reload`, word)
	default:
		ok = false
	}
	if !ok {
		return invalidParameter(word)
	}
	return nil
}

// queueTimeout is that of a queue which says none, as in the commercial nginx.
const queueTimeout = 60 * time.Second

// queue reads a directive that the commercial nginx has for HTTP.
func (r *ngxReader) queue(b *ngxBlock, d nginx.Directive) error {
	q := Queue{Position: place(d), Timeout: queueTimeout}
	size, ok := atoi(d.Args[0], maxQueue)
	if !ok || size == 0 {
		return fmt.Errorf(`invalid queue size "%s"`, d.Args[0])
	}
	q.Size = int(size)
	for _, word := range d.Args[1:] {
		value, named := strings.CutPrefix(word, "timeout=")
		timeout, err := parseTime(value, millis)
		if !named || err != nil || timeout == 0 {
			return invalidParameter(word)
		}
		q.Timeout = timeout
	}
	b.upstream.Queue = q
	return nil
}

func (r *ngxReader) proxyPass(b *ngxBlock, d nginx.Directive) error {
	if strings.Contains(d.Args[0], "$") {
		return r.passToText(b, d)
	}
	u, err := parseURL(d.Args[0], false)
	if err != nil && err != errHostNotFound {
		return fmt.Errorf(`%w in upstream "%s"`, err, d.Args[0])
	}
	b.set(func(s *ngxServer) {
		r.handles(s, d)
		s.passes, s.ProxyPassPosition, s.passErr = &u, place(d), err
	})
	if defined := r.upstreams[u.Host]; defined != nil {
		return mayHavePort(defined, &u)
	}
	return nil
}

// mayHavePort refuses a port behind the name of a defined upstream, whose
// servers have theirs.
func mayHavePort(defined *Upstream, u *ngxURL) error {
	if u.noPort || defined.Implicit {
		return nil
	}
	return fmt.Errorf(`upstream "%s" may not have port %d`, u.Host, u.Port)
}

// passTo finds the upstream that srv passes to, if there is nothing wrong with
// it. A defined one goes before an address; servers that name one address share
// its implicit group.
func (r *ngxReader) passTo(srv *ngxServer) (*Upstream, error) {
	to := srv.passes
	if u := r.upstreams[to.Host]; u != nil {
		return u, mayHavePort(u, to)
	}
	switch {
	case to.noPort:
		return nil, fmt.Errorf(`no port in upstream "%s"`, to.Text)
	case srv.passErr != nil:
		return nil, fmt.Errorf(`%w in upstream "%s"`, srv.passErr, to.Host)
	}
	name := to.Text
	if to.Path == "" {
		name = strings.ToLower(name)
	}
	if r.upstreams[name] == nil {
		u := implicitUpstream(to.Address, srv.ProxyPassPosition)
		r.upstreams[name] = &u
		r.order = append(r.order, &u)
	}
	return r.upstreams[name], nil
}

// group finishes u: no server of any block will change it any more.
func (r *ngxReader) group(u *Upstream) {
	if len(u.Servers) > 0 && !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return !s.Backup }) {
		r.problem(u.Position, `no servers in upstream "%s"`, u.Name)
	}
	r.cfg.Upstreams = append(r.cfg.Upstreams, *u)
}

// ngxNamed are the upstreams that a proxy_pass with variables may pass to.
type ngxNamed struct {
	upstreams []*Upstream
	smtp      bool   // all are checked as mail servers
	header    string // that all have been told; "": none yet
}

// passToAny tells all upstreams that have names about srv, once for all servers
// that want the same, and reports whether all of them speak SMTP.
func (r *ngxReader) passToAny(srv *ngxServer) (smtp bool) {
	if r.named == nil {
		r.named = &ngxNamed{}
		for _, u := range r.order {
			if !u.Implicit {
				r.named.upstreams = append(r.named.upstreams, u)
			}
		}
		r.named.smtp = len(r.named.upstreams) > 0 && !slices.ContainsFunc(r.named.upstreams, func(u *Upstream) bool {
			return !u.Check.On || u.Check.Type != "smtp"
		})
	}
	if r.named.header == srv.proxyProtocol {
		return r.named.smtp
	}
	r.named.header = srv.proxyProtocol
	for _, u := range r.named.upstreams {
		if !r.tellClients(u, srv) {
			break
		}
	}
	return r.named.smtp
}

// tellClients notes which header the servers of u get from srv, and reports
// whether they can. In nginx it is a matter of the server block, but what a mail
// server expects at its port cannot differ between two of them.
func (r *ngxReader) tellClients(u *Upstream, srv *ngxServer) bool {
	if at, again := r.told[u]; again && u.ProxyProtocol != srv.proxyProtocol {
		r.problem(srv.Position, `"proxy_protocol" is %s here and %s for the server in %s, but both may pass to upstream "%s", `+
			`whose servers expect one of them`, srv.proxyProtocol, u.ProxyProtocol, at, u.Name)
		return false
	}
	r.told[u] = srv.Position
	u.ProxyProtocol = srv.proxyProtocol
	return true
}

// What the check modules have for a check directive that says nothing
// (ngx_tcp_upstream_check of nginx_tcp_proxy_module).
const (
	checkInterval = 30 * time.Second
	checkTimeout  = time.Second
	checkRise     = 2
	checkFall     = 5

	checkCertWarning = 14 * day // ours, as in TOML
)

// check reads the directive of nginx_tcp_proxy_module and its descendants, and
// more parameters of our own. Numbers are milliseconds without a unit, as there.
// Unlike there, a server is in until its first probe has failed, unless
// default_down is written: else a reload would take all of them out.
func (r *ngxReader) check(b *ngxBlock, d nginx.Directive) error {
	c := &b.upstream.Check
	verb, helo := c.Verb, c.Helo // of check_smtp_send
	*c = Check{
		Position: place(d), On: true, Type: "tcp",
		Interval: checkInterval, Timeout: checkTimeout, Rise: checkRise, Fall: checkFall,
		Verb: "ehlo", CertWarning: checkCertWarning,
	}
	if verb != "" {
		c.Verb, c.Helo = verb, helo
	}
	for _, word := range d.Args {
		if err := checkParameter(c, word); err != nil {
			return err
		}
	}
	if c.DownInterval == 0 {
		c.DownInterval = c.Interval
	}
	if c.MailFrom != "" && c.RcptTo == "" {
		return errors.New(`"mail_from" in "check" needs "rcpt_to": without a recipient no sender is named`)
	}
	return nil
}

func checkParameter(c *Check, word string) error {
	name, value, _ := strings.Cut(word, "=")
	number := func(to *int) bool {
		n, ok := atoi(value, 1<<30)
		*to = int(n)
		return ok && n > 0
	}
	duration := func(to *time.Duration) bool {
		var ms int
		ok := number(&ms)
		*to = time.Duration(ms) * time.Millisecond
		return ok
	}
	text := func(to *string, kind func(*node) (string, error)) bool {
		var err error
		*to, err = kind(literal(name, value))
		return err == nil
	}
	ok := false
	switch name {
	case "interval":
		ok = duration(&c.Interval) && c.Interval >= 100*time.Millisecond
	case "timeout":
		ok = duration(&c.Timeout) && c.Timeout >= 10*time.Millisecond
	case "rise":
		ok = number(&c.Rise)
	case "fall":
		ok = number(&c.Fall)
	case "default_down":
		c.DefaultDown = value == "true"
		ok = c.DefaultDown || value == "false"
	case "port":
		port, err := parsePort(value)
		c.Port, ok = port, err == nil
	case "type":
		if slices.Contains(otherChecks, value) {
			return fmt.Errorf(`check type "%s" is not supported by this version; smtp and tcp are`, value)
		}
		ok = text(&c.Type, oneOf("smtp", "tcp"))

	// Ours.
	case "down_interval":
		ok = duration(&c.DownInterval) && c.DownInterval >= 100*time.Millisecond
	case "proxy_protocol":
		ok = text(&c.ProxyProtocol, oneOf("off", "v1", "v2"))
	case "tls":
		ok = text(&c.TLS, oneOf("off", "on", "starttls"))
	case "cert_warning":
		var err error
		c.CertWarning, err = parseTime(value, seconds)
		ok = err == nil
	case "verb":
		ok = text(&c.Verb, oneOf("ehlo", "helo", "lhlo"))
	case "helo":
		ok = text(&c.Helo, replyWord)
	case "mail_from":
		ok = text(&c.MailFrom, sender)
	case "rcpt_to":
		ok = text(&c.RcptTo, recipient)
	}
	if !ok {
		return invalidParameter(word)
	}
	return nil
}

// otherChecks are what the check modules can speak besides.
var otherChecks = []string{"http", "ssl_hello", "mysql", "ajp", "fastcgi", "pop3", "imap", "udp", "send"}

// checkSMTPSend takes verb and name from the command that the module sends.
func (r *ngxReader) checkSMTPSend(b *ngxBlock, d nginx.Directive) error {
	verb, name, _ := strings.Cut(strings.TrimRight(d.Args[0], "\r\n"), " ")
	verb = strings.ToLower(verb)
	if !slices.Contains([]string{"ehlo", "helo", "lhlo"}, verb) {
		return fmt.Errorf(`"check_smtp_send" directive wants one EHLO, HELO or LHLO command; got "%s"`, d.Args[0])
	}
	name, err := replyWord(literal(d.Name, name))
	if err != nil {
		return fmt.Errorf(`"check_smtp_send" directive: name in %s: %w`, strings.ToUpper(verb), err)
	}
	b.upstream.Check.Verb, b.upstream.Check.Helo = verb, name
	return nil
}

func (r *ngxReader) checkSMTPExpect(_ *ngxBlock, d nginx.Directive) error {
	if len(d.Args) != 1 || d.Args[0] != "smtp_2xx" {
		return fmt.Errorf(`"check_smtp_expect_alive" knows smtp_2xx only: a server that answers otherwise does not take mail; got "%s"`,
			strings.Join(d.Args, " "))
	}
	return nil
}
