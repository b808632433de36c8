package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"smtplb/conf/nginx"
)

// An nginx.conf is read in three steps. Package nginx makes a tree of it. This
// reader walks the tree along the table of ngx_directives.go and notes what each
// block says; and at the end of a stream block, since the order of directives
// does not matter in nginx, it makes servers of what was noted.
//
// Whatever is wrong is noted and reading goes on. The first problem is the one
// that nginx reports, in its words and at its line; the others it would report
// at the next tries.

// ngxContext is a kind of block, or several of them.
type ngxContext uint8

const (
	inMain ngxContext = 1 << iota
	inEvents
	inStream // tcp, the block of the old TCP module, is another name for it
	inServer
	inUpstream
)

// ngxBlock is what one block of a file has said so far.
type ngxBlock struct {
	context ngxContext
	at      nginx.Directive // that opened it
	outer   *ngxBlock
	seen    map[string]bool // what may stand here once, and does

	// Of stream and server blocks. A server takes what its stream block says
	// unless it says so itself; lists are taken as a whole.
	settings []func(*ngxServer)
	errors   []ErrorLog // also of main
	access   []AccessRule
	realIP   []netip.Prefix
	limits   []Limit
	logs     []AccessLog
	logsOff  bool // whatever logs there are

	servers  []*ngxBlock // of a stream block
	listen   []Listen    // of a server block
	upstream *Upstream   // of an upstream block
	lines    int         // servers in it, bad ones too
}

// has tells whether the block or the one around it says name.
func (b *ngxBlock) has(name string) bool {
	return b.seen[name] || b.outer != nil && b.outer.seen[name]
}

// set notes a setting of the servers that the block is about.
func (b *ngxBlock) set(f func(*ngxServer)) { b.settings = append(b.settings, f) }

// ngxServer is a server in the making, with what a Config keeps elsewhere.
type ngxServer struct {
	Server
	proxyProtocol string
	passes        *ngxURL // proxy_pass
	passErr       error   // why that may be nowhere
}

type ngxReader struct {
	table     ngxTable
	cfg       Config
	problems  Problems
	upstreams map[string]*Upstream   // by name in lower case
	order     []*Upstream            // the same as in the file
	told      map[*Upstream]Position // of the server that says which header they get
	named     *ngxNamed              // of the stream block, if a proxy_pass with variables wants them
	listening map[listenKey]bool
	buffers   logBuffers
	zones     map[string]*ngxZone
	zoneOrder []*ngxZone      // the same as in the file
	noticed   map[string]bool // of which directives it was said that they have no effect
	loaded    bool            // modules can no longer be loaded
	ports     int             // listening addresses so far
}

// loadNginx reads the nginx.conf at path, and before it the directives of the
// command line.
func loadNginx(path, global string) (*Config, error) {
	r := newNgxReader()
	main := &ngxBlock{context: inMain, seen: make(map[string]bool)}
	tree, err := nginx.ParseParameter(global, filepath.Dir(path))
	if !r.read(main, tree, err) {
		return nil, r.problems
	}
	tree, err = nginx.Parse(path, nginx.Options{Opaque: notServed})
	r.read(main, tree, err)
	return r.finish()
}

// notServed are the blocks of other protocols.
var notServed = []string{"http", "mail"}

func newNgxReader() *ngxReader {
	return &ngxReader{
		table:     newNgxTable(),
		cfg:       ngxDefaults(),
		upstreams: make(map[string]*Upstream),
		told:      make(map[*Upstream]Position),
		listening: make(map[listenKey]bool),
		noticed:   make(map[string]bool),
		buffers:   make(logBuffers),
		zones:     make(map[string]*ngxZone),
	}
}

// read obeys a tree in the main context; err is why it is not whole. It reports
// whether nothing was wrong so far.
func (r *ngxReader) read(main *ngxBlock, tree *nginx.Tree, err *nginx.Error) bool {
	for _, f := range tree.Files {
		r.cfg.Files = append(r.cfg.Files, f.Path)
	}
	r.walk(main, tree.Directives)
	if main.errors != nil {
		r.cfg.ErrorLogs = main.errors
	}
	if err != nil {
		r.problem(Position{File: err.File, Line: err.Line}, "%s", err.Message)
	}
	return len(r.problems) == 0
}

// finish completes what no single directive says, checks the whole, and returns
// it or Problems.
func (r *ngxReader) finish() (*Config, error) {
	for _, implicit := range []bool{false, true} {
		for _, u := range r.order {
			if u.Implicit == implicit {
				r.group(u)
			}
		}
	}
	r.checkZones()
	if len(r.problems) == 0 && len(r.cfg.Servers) == 0 {
		r.problem(Position{}, `no server in a "stream" block of %s: nothing would listen`, r.cfg.Files[0])
	}
	if len(r.problems) == 0 {
		r.problems = validate(&r.cfg)
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return &r.cfg, nil
}

// place is where d is, as nginx counts.
func place(d nginx.Directive) Position { return Position{File: d.File, Line: d.Line} }

// problem notes what is wrong at a place.
func (r *ngxReader) problem(at Position, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, ParseError{at, printable(fmt.Sprintf(format, args...))})
	}
}

// warn notes something accepted but doubtful.
func (r *ngxReader) warn(at Position, format string, args ...any) {
	r.cfg.Warnings = append(r.cfg.Warnings, ParseError{at, printable(fmt.Sprintf(format, args...))}.Error())
}

// printable replaces what must not reach a terminal or a log line.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return '?'
		}
		return c
	}, s)
}

// walk obeys the directives of block b.
func (r *ngxReader) walk(b *ngxBlock, directives []nginx.Directive) {
	for _, d := range directives {
		if len(r.problems) == maxProblems {
			return
		}
		if err := r.obey(b, d); err != nil {
			r.problem(place(d), "%v", err)
		}
	}
}

// obey obeys one directive. Its checks and their order are those of
// ngx_conf_handler.
func (r *ngxReader) obey(b *ngxBlock, d nginx.Directive) error {
	row, known := r.table.find(d.Name, b.context)
	switch {
	case row == nil && known:
		return fmt.Errorf(`"%s" directive is not allowed here`, d.Name)
	case row == nil:
		return fmt.Errorf(`unknown directive "%s"`, d.Name)
	case d.HasBlock && row.args&block == 0:
		return fmt.Errorf(`directive "%s" is not terminated by ";"`, d.Name)
	case !d.HasBlock && row.args&block != 0:
		return fmt.Errorf(`directive "%s" has no opening "{"`, d.Name)
	case !row.args.allow(len(d.Args)):
		return fmt.Errorf(`invalid number of arguments in "%s" directive`, d.Name)
	}
	if row.args&many == 0 {
		name := d.Name
		if same := sameDirective[name]; same != "" {
			name = same
		}
		if b.seen[name] {
			return fmt.Errorf(`"%s" directive is duplicate`, d.Name)
		}
		b.seen[name] = true
	}
	return row.read(r, b, d)
}

// sameDirective are directives that set the same as another.
var sameDirective = map[string]string{
	"proxy_downstream_buffer": "proxy_buffer_size",
	"proxy_upstream_buffer":   "proxy_buffer_size",
	"proxy_buffer":            "proxy_buffer_size",
}

// open obeys the block that d opens in outer.
func (r *ngxReader) open(context ngxContext, outer *ngxBlock, d nginx.Directive) *ngxBlock {
	b := &ngxBlock{context: context, at: d, outer: outer, seen: make(map[string]bool)}
	r.loaded = true
	r.walk(b, d.Block)
	return b
}

func (r *ngxReader) events(b *ngxBlock, d nginx.Directive) error {
	r.open(inEvents, b, d)
	return nil
}

func (r *ngxReader) otherProtocol(_ *ngxBlock, d nginx.Directive) error {
	r.loaded = true
	r.warn(place(d), "NOT SERVED: smtplb serves stream blocks only; nothing of this %s block listens or answers", d.Name)
	return nil
}

func (r *ngxReader) loadModule(*ngxBlock, nginx.Directive) error {
	if r.loaded {
		return errors.New(`"load_module" directive is specified too late`)
	}
	return nil
}

// stream obeys a whole stream block, and then makes servers of what it said.
func (r *ngxReader) stream(outer *ngxBlock, d nginx.Directive) error {
	s := r.open(inStream, outer, d)
	if d.End == 0 {
		return nil // the file ends within
	}
	r.named = nil
	for _, b := range s.servers {
		r.server(s, b)
	}
	return nil
}

// server makes a Server of block b in stream block s.
func (r *ngxReader) server(s, b *ngxBlock) {
	srv := ngxServer{Server: ngxServerDefaults(), proxyProtocol: "off"}
	for _, f := range slices.Concat(s.settings, b.settings) {
		f(&srv)
	}
	srv.Position, srv.Listen = place(b.at), b.listen
	srv.ErrorLogs, srv.Access, srv.RealIPFrom, srv.Limits = s.errors, s.access, s.realIP, s.limits
	if b.errors != nil {
		srv.ErrorLogs = b.errors
	}
	if b.access != nil {
		srv.Access = b.access
	}
	if b.realIP != nil {
		srv.RealIPFrom = b.realIP
	}
	if b.limits != nil {
		srv.Limits = b.limits
	}
	if b.logs != nil || b.logsOff {
		s = b
	}
	if !s.logsOff {
		srv.AccessLogs = s.logs
	}
	smtp, ok := r.handler(b, &srv)
	if !ok {
		return
	}
	if !b.has("smtp") {
		srv.SMTP.On = smtp
	}
	if srv.SMTP.On && !b.has("proxy_next_upstream_tries") {
		srv.NextUpstreamTries = smtpTries
	}
	if srv.SMTP.On && !b.has("proxy_next_upstream_timeout") {
		srv.NextUpstreamTimeout = smtpBudget
	}
	if srv.SMTP.On && srv.Timeout < patientTimeout {
		r.warn(srv.Position, impatient)
	}
	r.cfg.Servers = append(r.cfg.Servers, srv.Server)
}

// handler finds what srv does, which block b is about, and tells the upstreams
// that it may pass to. It reports whether there is anything, and whether that
// speaks SMTP: an nginx stream may carry any protocol, so that only the check of
// its servers shows it.
func (r *ngxReader) handler(b *ngxBlock, srv *ngxServer) (smtp, ok bool) {
	switch {
	case srv.Return != nil:
		return false, true
	case srv.ProxyPassText != "":
		srv.ProxyProtocol = srv.proxyProtocol
		return !srv.passesToAddress() && r.passToAny(srv), true
	case srv.passes == nil:
		if !b.seen["proxy_pass"] && !b.seen["return"] {
			r.problem(srv.Position, "no handler for server")
		}
		return false, false
	}
	u, err := r.passTo(srv)
	if err != nil {
		r.problem(srv.ProxyPassPosition, "%v", err)
		return false, false
	}
	srv.ProxyPass = u.Name
	r.tellClients(u, srv)
	return u.Check.On && u.Check.Type == "smtp", true
}
