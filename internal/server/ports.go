package server

import (
	"context"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/internal/stream"
	"smtplb/listener"
	"smtplb/upstream"
)

// portPlan is an address to listen on.
type portPlan struct {
	listen  conf.Listen
	options listener.Options
	route   stream.Route // Group is filled in by Commit
	group   string
	pass    *conf.Pass // nil: it passes to no port

	shared  bool        // a wildcard's socket has its connections, and it needs none
	covered []*portPlan // of a wildcard: whose connections its socket has
}

// covers tells whether a socket of p takes connections to q's address.
func (p *portPlan) covers(q *portPlan) bool {
	a, b := p.options.Addr, q.options.Addr
	return b.Path == "" && a.TCP.Port() == b.TCP.Port() && p.listen.Covers(b.TCP.Addr())
}

// share finds the addresses that need no socket, and says of each wildcard whose
// clients it has. A port has at most two wildcards.
func (p *plan) share() {
	wild := map[uint16][]*portPlan{}
	for i := range p.ports {
		q := &p.ports[i]
		if a := q.options.Addr; a.Path == "" && a.TCP.Addr().IsUnspecified() {
			wild[a.TCP.Port()] = append(wild[a.TCP.Port()], q)
		}
	}
	for i := range p.ports {
		q := &p.ports[i]
		for _, w := range wild[q.options.Addr.TCP.Port()] {
			if w.covers(q) {
				w.covered = append(w.covered, q)
				q.shared = true
			}
		}
	}
}

func optionsOf(a listener.Addr, l conf.Listen, c conf.Server) listener.Options {
	return listener.Options{
		Addr:      a,
		Backlog:   l.Backlog,
		RcvBuf:    l.RcvBuf,
		SndBuf:    l.SndBuf,
		FastOpen:  l.FastOpen,
		ReusePort: l.ReusePort,
		IPv6Only:  l.IPv6Only,
		NoDelay:   c.NoDelay,
		Keepalive: listener.Keepalive(l.Keepalive),
	}
}

// livePort is a port that accepts, and what it was made of.
type livePort struct {
	port   *stream.Port
	plan   *portPlan
	routes *stream.Routes
}

// route is the route of an address's clients, anew for each port that has some.
func (p *plan) route(l *portPlan, groups map[string]*upstream.Group, epoch *stream.Epoch) *stream.Route {
	route := l.route
	route.Group, route.Epoch = groups[l.group], epoch
	if route.ProxyPass != nil {
		route.Groups = p.destinations(groups, route.Header)
	}
	return &route
}

// makePorts makes the routes of all ports, and the ports that are new. A route may
// pass to any address, so all targets are there before a session can have one of
// these routes.
func (n *Next) makePorts(groups map[string]*upstream.Group, epoch *stream.Epoch) map[listener.Addr]livePort {
	ports := make(map[listener.Addr]livePort, len(n.plan.ports))
	for i := range n.plan.ports {
		p := &n.plan.ports[i]
		addr := p.options.Addr
		socket, opened := n.opened[addr]
		live, running := n.server.ports[addr]
		if !opened && !running {
			continue // shared
		}
		rest := n.plan.route(p, groups, epoch)
		own := make([]stream.AddrRoute, len(p.covered))
		for i, q := range p.covered {
			own[i] = stream.AddrRoute{Addr: q.options.Addr.TCP.Addr(), Route: n.plan.route(q, groups, epoch)}
		}
		routes := stream.NewRoutes(addr, rest, own...)
		if opened {
			live.port = stream.NewPort(socket, routes)
		}
		live.plan, live.routes = p, routes
		ports[addr] = live
		for _, q := range p.covered {
			n.plan.targets[q.options.Addr] = stream.Target{Port: live.port, Routes: routes}
		}
		n.plan.targets[addr] = stream.Target{Port: live.port, Routes: routes}
	}
	return ports
}

// takePorts makes these the ports that accept: those that run already go on by
// their new routes, and those that are none of them serve what they have and close.
func (s *Server) takePorts(ports map[listener.Addr]livePort) {
	for addr, live := range ports {
		if _, running := s.ports[addr]; !running {
			s.engine.Open(live.port)
			if s.ports != nil {
				s.log.Info("listener added", zap.Stringer("listen", addr))
			}
			continue
		}
		if err := live.port.Socket().Apply(live.plan.options); err != nil {
			s.log.Error("listener keeps its old options", zap.Error(err))
		}
		live.port.SetRoutes(live.routes)
	}
	for addr, live := range s.ports {
		if _, stays := ports[addr]; !stays {
			s.closing[s.engine.Close(live.port)] = addr
			s.log.Info("listener removed, serving what it has accepted", zap.Stringer("listen", addr))
		}
	}
	s.ports = ports
}

// preparePort opens a port's socket if the running configuration has none, and
// otherwise makes sure that the one there can take the new options. A wildcard
// that comes, or goes, leaves the addresses that it covers alone, or open: clients
// find one socket or the other at any moment. What is in the way has until the end of
// ctx to go.
func (s *Server) preparePort(ctx context.Context, n *Next, p portPlan) error {
	addr := p.options.Addr
	if live, ok := s.ports[addr]; ok {
		return live.port.Socket().Check(p.options)
	}
	if p.shared {
		return nil
	}
	s.awaitClosed(ctx, addr)
	var beside []*listener.Socket
	for other, live := range s.ports {
		if inTheWay(addr, other) {
			beside = append(beside, live.port.Socket())
		}
	}
	socket, err := listener.Open(p.options, beside...)
	if err != nil {
		return err
	}
	n.opened[addr] = socket
	return nil
}

// inTheWay tells whether sockets at the two addresses may be in each other's way:
// one path, or one port, be it of addresses that have nothing in common.
func inTheWay(a, b listener.Addr) bool { return a.Path == b.Path && a.TCP.Port() == b.TCP.Port() }

// awaitClosed waits, no longer than ctx, for sockets in the way that an earlier
// reload has given up: they are open until their backlog is served.
func (s *Server) awaitClosed(ctx context.Context, a listener.Addr) {
	for closed, addr := range s.closing {
		if inTheWay(a, addr) {
			select {
			case <-closed:
			case <-ctx.Done():
			}
		}
		select {
		case <-closed:
			delete(s.closing, closed)
		default:
		}
	}
}

// GiveTo makes a user, as whom the process is going to run, the owner of the
// sockets that Prepare opened.
func (n *Next) GiveTo(uid int) error {
	for _, socket := range n.opened {
		if err := socket.GiveTo(uid); err != nil {
			return err
		}
	}
	return nil
}

// covering returns the running port that has an address's connections while that
// has no socket.
func (s *Server) covering(p *portPlan) *stream.Port {
	for _, live := range s.ports {
		if live.plan.covers(p) {
			return live.port
		}
	}
	return nil
}
