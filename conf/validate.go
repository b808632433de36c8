package conf

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// validate finds what no single line can show wrong: names given twice, empty
// groups, addresses in each other's way. It is for every syntax alike. It also
// ties each proxy_pass to its upstream, makes one for a plain address, and
// decides which groups are checked (check.go).
//
// Values that a reader has refused already are zero, and pass.
func validate(c *Config) Problems {
	v := validator{cfg: c}
	v.upstreams()
	v.handlers()
	v.proxyPasses()
	v.variables()
	v.errorLogs()
	v.logs()
	v.limits()
	v.methods()
	v.checks()
	v.agents()
	v.listens()
	v.clients()
	return v.problems
}

type validator struct {
	cfg      *Config
	problems Problems
}

func (v *validator) problem(at Position, format string, args ...any) {
	v.problems = append(v.problems, ParseError{at, fmt.Sprintf(format, args...)})
}

func (v *validator) warn(at Position, format string, args ...any) {
	v.cfg.Warnings = append(v.cfg.Warnings, ParseError{at, fmt.Sprintf(format, args...)}.Error())
}

// hint says which of the names was meant. Whoever has a hundred problems does not
// need it, and it costs as much as all names together.
func (v *validator) hint(name string, names []string) string {
	if len(v.problems) > 100 || len(name) > 64 {
		return ""
	}
	if near := closest(name, names); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// upstreams checks the groups. Their names are equal without regard to case,
// as in nginx.
func (v *validator) upstreams() {
	total, over := 0, false
	first := make(map[string]Position)
	for _, u := range v.cfg.Upstreams {
		name := strings.ToLower(u.Name)
		if at, again := first[name]; again && name != "" {
			v.problem(u.Position, "upstream %q is defined already at %s", u.Name, at)
		} else {
			first[name] = u.Position
		}
		switch {
		case len(u.Servers) == 0:
			v.problem(u.Position, "upstream %q has no servers", u.Name)
		case !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return !s.Backup }):
			v.problem(u.Position, "upstream %q has only backup servers; it needs one that is not", u.Name)
		}
		if u.Queue.Size > 0 && !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return s.MaxConns > 0 }) {
			v.warn(u.Queue.Position, "queue: nobody will ever wait, since no server of upstream %q has max_conns", u.Name)
		}
		if total += len(u.Servers); total > maxServers && !over {
			over = true
			v.problem(u.Servers[len(u.Servers)-(total-maxServers)].Position,
				"too many servers; a configuration has at most %d", maxServers)
		}
	}
	if len(v.cfg.Servers) == 0 {
		v.problem(Position{File: v.cfg.Files[0]}, "no [[server]]: nothing would listen; add one")
	}
}

// handlers checks that every server does one thing.
func (v *validator) handlers() {
	for _, s := range v.cfg.Servers {
		type handler struct {
			name string
			at   Position
		}
		var has []handler
		if s.ProxyPass != "" || s.ProxyPassPosition != (Position{}) {
			has = append(has, handler{"proxy_pass", s.ProxyPassPosition})
		}
		if s.Return != nil {
			has = append(has, handler{"return", s.Return.Position})
		}
		if s.Pass != nil {
			has = append(has, handler{"pass", s.Pass.Position})
		}
		switch {
		case len(has) > 1:
			for _, h := range has[1:] {
				v.problem(h.at, "%s: the server has %s already, at %s; keep one of them", h.name, has[0].name, has[0].at)
			}
		case len(has) == 0:
			v.problem(s.Position, `[[server]] needs "proxy_pass", "return" or "pass"`)
		case s.ProxyPassText == "" && s.ProxyProtocol != "off" && s.ProxyProtocol != "":
			v.problem(s.Position, "proxy_protocol belongs to [[upstream]], or to listen; here it is for addresses that variables in proxy_pass become")
		}
	}
}

// passesToAddress reports whether the variables of proxy_pass cannot become the
// name of an upstream, which has no port.
func (s *Server) passesToAddress() bool { return strings.Contains(s.ProxyPassText, ":") }

// proxyPasses finds the upstream that each server means. A name of a group goes
// before an address; servers that name one address share its implicit group.
func (v *validator) proxyPasses() {
	named := make(map[string]string) // lower case → Name
	var names []string
	for _, u := range v.cfg.Upstreams {
		named[strings.ToLower(u.Name)] = u.Name
		names = append(names, u.Name)
	}
	implicit := make(map[Address]string) // without Text → Name
	for i := range v.cfg.Servers {
		s := &v.cfg.Servers[i]
		if s.ProxyPass == "" {
			continue
		}
		if name, ok := named[strings.ToLower(s.ProxyPass)]; ok {
			s.ProxyPass = name
			continue
		}
		a, err := parseAddress(s.ProxyPass)
		if err != nil {
			v.problem(s.ProxyPassPosition, "proxy_pass: no upstream is named %q%s, and it is no address: %v",
				s.ProxyPass, v.hint(s.ProxyPass, names), err)
			continue
		}
		if name, ok := named[a.Host]; ok && a.Host != "" {
			v.problem(s.ProxyPassPosition, "proxy_pass: upstream %q has the ports of its servers; leave out %d", name, a.Port)
			continue
		}
		key := a
		key.Text = ""
		if name, ok := implicit[key]; ok {
			s.ProxyPass = name
			continue
		}
		implicit[key] = s.ProxyPass
		v.cfg.Upstreams = append(v.cfg.Upstreams, implicitUpstream(a, s.ProxyPassPosition))
	}
}

// implicitUpstream is the group of a proxy_pass that names an address. Its
// parameters are nginx's own defaults (ngx_stream_upstream_init_round_robin),
// without slow start, max_pending and check, which it does not have.
func implicitUpstream(a Address, at Position) Upstream {
	return Upstream{
		Position: at,
		Name:     a.Text,
		Implicit: true,
		Method:   Method{Position: at, Type: "round_robin"},

		ProxyProtocol: "off",
		Servers: []UpstreamServer{{
			Position:    at,
			Address:     a,
			Weight:      1,
			MaxFails:    1,
			FailTimeout: 10 * time.Second,
		}},
	}
}

// smtpsPort is for SMTP inside TLS from the first byte on (RFC 8314, section 3.3).
const smtpsPort = 465

// clients checks that it is known whose word is taken for who a client is, and
// that servers are told.
func (v *validator) clients() {
	header := make(map[string]string, len(v.cfg.Upstreams))
	named, blind := false, "" // there is a named upstream; one of those that is not told
	for _, u := range v.cfg.Upstreams {
		header[u.Name] = u.ProxyProtocol
		named = named || !u.Implicit
		if !u.Implicit && (u.ProxyProtocol == "" || u.ProxyProtocol == "off") {
			blind = u.Name
		}
	}
	for _, s := range v.cfg.Servers {
		public := false
		for _, l := range s.Listen {
			if l.ProxyProtocol && l.Address.Path != "" {
				v.problem(l.Position, "listen %s: proxy_protocol is for TCP: whoever connects to a unix socket has no address to be trusted by", l.Address.Text)
				continue
			}
			if l.Address.Port == smtpsPort && s.SMTP.On {
				v.warn(l.Position, "listen %s: on port 465 the client speaks first, in TLS, and a server's greeting is never seen; turn smtp off", l.Address.Text)
			}
			if l.ProxyProtocol && len(s.RealIPFrom) == 0 {
				v.problem(l.Position, "listen %s: proxy_protocol needs set_real_ip_from, the proxies whose word is taken; an empty list would trust nobody or everybody", l.Address.Text)
			}
			ip, isIP := bindIP(l)
			local := l.Address.Path != "" || l.Address.Host == "localhost" || isIP && ip.IsLoopback()
			public = public || !local
		}
		to := s.ProxyPass
		if s.ProxyPassText != "" {
			if to = blind; s.passesToAddress() || !named {
				to = s.ProxyPassText
				header[to] = s.ProxyProtocol
			}
		}
		if h := header[to]; to != "" && public && s.SMTP.On && !s.Bind.ofClient() && (h == "" || h == "off") {
			v.warn(s.Position, "OPEN RELAY HAZARD: the servers of %q see every client as coming from this host, and take it for one of their own if this host is in their mynetworks; "+
				"their limits and blocklists see one client, too. Turn proxy_protocol on, here and in those servers, or take this host out of what they trust", to)
		}
	}
}
