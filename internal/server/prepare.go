package server

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"go.uber.org/zap"

	"smtplb/balancer"
	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/smtp"
	"smtplb/internal/stream"
	"smtplb/listener"
	"smtplb/upstream"
)

// plan is a configuration in the terms of the packages that run it.
type plan struct {
	groups []upstream.Config
	checks map[string]checkPlan // of the groups that are checked
	agents map[string]checkPlan // of the groups whose servers have agents
	ports  []portPlan
	known  map[string][]netip.Addr
	zones  map[string]zone
	users  map[string]stream.Destination // what those who go to a named group owe to it
	logs   []releaser                    // opened for it
	hear   map[string]*zap.Logger        // who hears of a group; see ofGroups
	// byHeader is filled in by Commit; see destinations.
	byHeader map[stream.HeaderVersion]map[string]*stream.Destination
	// targets is filled in by Commit, for the routes that pass to a port.
	targets map[listener.Addr]stream.Target
}

func (p *plan) order() []string {
	names := make([]string, len(p.groups))
	for i, g := range p.groups {
		names[i] = g.Name
	}
	return names
}

// Prepare builds what a configuration needs beside what is running. Its error
// has a line for each problem, each with the place in the file.
func (s *Server) Prepare(ctx context.Context, c *conf.Config) (*Next, error) {
	plan, err := s.translate(ctx, c, true)
	if err != nil {
		return nil, err
	}
	n := &Next{server: s, plan: plan, opened: map[listener.Addr]*listener.Socket{}}
	problems := checkBinds(c)
	patience, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	for _, p := range plan.ports {
		if err := s.preparePort(patience, n, p); err != nil {
			problems = append(problems, conf.ParseError{Position: p.listen.Position, Message: err.Error()})
		}
	}
	if len(problems) > 0 {
		n.Discard()
		return nil, problems
	}
	return n, nil
}

// checkBinds finds source addresses that this process is not allowed to use.
func checkBinds(c *conf.Config) (problems conf.Problems) {
	for _, server := range c.Servers {
		if server.Bind == nil || !server.Bind.Transparent {
			continue
		}
		if err := stream.CheckTransparent(); err != nil {
			problems = append(problems, conf.ParseError{Position: server.Bind.Position, Message: "proxy_bind: " + err.Error()})
		}
	}
	return problems
}

// Check finds what would make Prepare fail at a start, short of opening
// sockets.
func Check(ctx context.Context, c *conf.Config) error {
	_, err := (&Server{}).translate(ctx, c, false)
	return err
}

// translate says a configuration in the terms of the other packages, with host
// names resolved and, if open is set, logs opened.
func (s *Server) translate(ctx context.Context, c *conf.Config, open bool) (*plan, error) {
	names := s.resolve(ctx, c)
	p := &plan{known: names.known, checks: map[string]checkPlan{}, agents: map[string]checkPlan{}, users: map[string]stream.Destination{},
		byHeader: map[stream.HeaderVersion]map[string]*stream.Destination{}, targets: map[listener.Addr]stream.Target{}}
	var problems conf.Problems
	report := func(at conf.Position, format string, args ...any) {
		problems = append(problems, conf.ParseError{Position: at, Message: fmt.Sprintf(format, args...)})
	}
	for _, u := range c.Upstreams {
		method, err := methodOf(u.Method)
		if err != nil {
			report(u.Method.Position, "method: %v", err)
			continue
		}
		g := upstream.Config{
			Name: u.Name, Method: method,
			Checked: u.Check.On, DefaultDown: u.Check.DefaultDown,
			Agents:   u.Agent.On,
			OnChange: s.changed, Probe: s.probe,
			Queue: u.Queue.Size,
		}
		if u.Agent.On {
			p.agents[u.Name] = agentOf(u)
		}
		if u.Check.On {
			p.checks[u.Name] = checkOf(u)
		}
		for _, server := range u.Servers {
			addrs, err := names.addrs(server.Address)
			if err != nil {
				report(server.Position, "host not found in upstream %q: %v", server.Address.Text, err)
				continue
			}
			for _, a := range addrs {
				g.Servers = append(g.Servers, upstream.Server{
					Name:        server.Address.Text,
					Addr:        upstream.Addr{TCP: a.TCP, Path: a.Path},
					Weight:      server.Weight,
					MaxConns:    server.MaxConns,
					MaxFails:    server.MaxFails,
					FailTimeout: int64(server.FailTimeout.Seconds()),
					SlowStart:   int64(server.SlowStart.Seconds()),
					MaxPending:  server.MaxPending,
					Backup:      server.Backup,
					Down:        server.Down,
				})
			}
		}
		p.groups = append(p.groups, g)
	}
	language := s.compile(c, report)
	p.zones = language.zones
	users := make(map[string]stream.Destination, len(c.Upstreams)) // what they owe to their groups
	for _, u := range c.Upstreams {
		owed := stream.Destination{Header: headerVersions[u.ProxyProtocol], QueueTimeout: u.Queue.Timeout}
		owed.Key, owed.KeyText = keyOf(u.Method.Key)
		owed.KeyValue = language.keys["hash "+u.Name]
		users[u.Name] = owed
		if !u.Implicit {
			p.users[u.Name] = owed
		}
	}
	logs := errorLogs{s.errorLogs, p, report, map[conf.Position]bool{}, map[*errorlog.Log]*stream.Log{}}
	for i, server := range c.Servers {
		base := stream.Route{Destination: users[server.ProxyPass]}
		if server.ProxyPassText != "" {
			base.Header = headerVersions[server.ProxyProtocol]
		}
		if open {
			base.Log = logs.ofSessions(&c.Servers[i])
		}
		base.Pass = p.passOf(server.Pass)
		language.complete(&base, &c.Servers[i])
		base.AccessLogs = s.accessLogs(language, &c.Servers[i], open)
		for _, log := range base.AccessLogs {
			if log.Log != nil {
				p.logs = append(p.logs, log.Log)
			}
		}
		for _, l := range server.Listen {
			route := routeOf(server, l, base)
			route.NginxLog = c.ErrorLogFormat == "nginx"
			addrs, err := names.addrs(l.Address)
			if err != nil {
				report(l.Position, "host not found in listen %q: %v", l.Address.Text, err)
				continue
			}
			for _, a := range addrs {
				p.ports = append(p.ports, portPlan{listen: l, options: optionsOf(a, l, server), route: route, group: server.ProxyPass, pass: server.Pass})
			}
		}
	}
	if open {
		p.hear = logs.ofGroups(c)
	}
	first := map[listener.Addr]conf.Position{}
	for _, a := range p.ports {
		if at, again := first[a.options.Addr]; again {
			report(a.listen.Position, "listen %s: taken already at %s", a.options.Addr, at)
		}
		first[a.options.Addr] = a.listen.Position
	}
	p.share()
	if len(problems) > 0 {
		release(p.logs)
		return nil, problems
	}
	p.checkPasses(c)
	return p, nil
}

// methodOf is the maker of a group's method.
func methodOf(c conf.Method) (func([]upstream.Server) upstream.Method, error) {
	return balancer.New(balancer.Options{
		Name:       c.Type,
		Consistent: c.Consistent,
		Two:        c.Two,
		Measure:    upstream.Measure{Of: moments[c.Of], Inflight: c.Inflight},
	})
}

// routeOf completes what a group and the variables make of a route.
func routeOf(c conf.Server, l conf.Listen, r stream.Route) stream.Route {
	r.ConnectTimeout = c.ConnectTimeout
	r.Timeout = c.Timeout
	r.NextUpstream = c.NextUpstream
	r.Tries = c.NextUpstreamTries
	r.NextTimeout = c.NextUpstreamTimeout
	r.HalfClose = c.HalfClose
	r.Keepalive = listener.Keepalive(c.SocketKeepalive)
	r.NoDelay = c.NoDelay
	r.RcvBuf, r.SndBuf = c.SocketRcvBuf, c.SocketSndBuf
	r.BufferSize = c.BufferSize
	r.HeaderTimeout = c.ProxyHeaderTimeout
	r.Access = accessOf(c.Access)
	if l.ProxyProtocol {
		r.Fronts = c.RealIPFrom
	}
	if c.SMTP.On {
		r.Gate = gateOf(c.SMTP)
	}
	return r
}

func gateOf(c conf.SMTP) *stream.Gate {
	host := c.Hostname
	if host == "" {
		host, _ = os.Hostname()
	}
	reply := func(code int, status smtp.Status, text string) []byte {
		return smtp.AppendReply(nil, code, status, host, text)
	}
	return &stream.Gate{
		Timeout:  c.GreetingTimeout,
		Pregreet: pregreets[c.Pregreet],
		Replies: stream.Replies{
			stream.ReplyUnavailable: reply(421, smtp.Status{4, 3, 2}, c.Replies.Unavailable),
			stream.ReplyLimit:       reply(421, smtp.Status{4, 3, 2}, c.Replies.Limit),
			stream.ReplyTooMany:     reply(421, smtp.Status{4, 7, 0}, c.Replies.TooMany),
			stream.ReplyShutdown:    reply(421, smtp.Status{4, 3, 2}, c.Replies.Shutdown),
			stream.ReplyDenied:      reply(554, smtp.Status{5, 7, 1}, c.Replies.Denied),
			stream.ReplyPregreet:    reply(554, smtp.Status{5, 5, 0}, c.Replies.Pregreet),
		},
	}
}

func accessOf(rules []conf.AccessRule) []stream.AccessRule {
	all := make([]stream.AccessRule, len(rules))
	for i, r := range rules {
		all[i] = stream.AccessRule{Deny: r.Deny, Prefix: r.Prefix, Unix: r.Unix, All: r.All}
	}
	return all
}

var headerVersions = map[string]stream.HeaderVersion{
	"off": stream.NoHeader,
	"v1":  stream.HeaderV1,
	"v2":  stream.HeaderV2,
}

// keyOf is what a group hashes by, unless that is evaluated.
func keyOf(key string) (k stream.Key, text string) {
	switch {
	case key == clientAddress:
		return stream.ClientAddress, ""
	case key != "" && !strings.Contains(key, "$"):
		return stream.FixedKey, key
	}
	return stream.NoKey, ""
}

var moments = map[string]upstream.Moment{
	"":           upstream.Never,
	"connect":    upstream.Connect,
	"first_byte": upstream.FirstByte,
	"last_byte":  upstream.LastByte,
}

var pregreets = map[string]stream.Pregreet{
	"pass":   stream.PregreetPass,
	"hold":   stream.PregreetHold,
	"reject": stream.PregreetReject,
}

// literal reports whether an address needs no resolving, and what it is.
func literal(a conf.Address) (listener.Addr, bool) {
	if a.Path != "" {
		return listener.Addr{Path: a.Path}, true
	}
	if a.Host == "" {
		return listener.Addr{TCP: netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port)}, true
	}
	ip, err := netip.ParseAddr(strings.Trim(a.Host, "[]"))
	if err != nil {
		return listener.Addr{}, false
	}
	return listener.Addr{TCP: netip.AddrPortFrom(ip, a.Port)}, true
}
