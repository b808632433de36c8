package stream

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/listener"
)

// Port is a listening socket and the routes of the clients it accepts. Its
// owner makes it with NewPort, has it accept by Engine.Open, and ends it with
// Engine.Close.
type Port struct {
	socket *listener.Socket
	name   string // as it is logged
	routes atomic.Pointer[Routes]
	closed chan struct{}
}

// AddrRoute is the route of the clients that connect to one address of a port
// that listens at several. 0.0.0.0 stands for all of IPv4, at a socket for IPv6
// that takes that, too.
type AddrRoute struct {
	Addr  netip.Addr // not one of IPv4 in IPv6 notation, and without a zone
	Route *Route
}

// Routes are where the clients of a port go. They are immutable.
type Routes struct {
	rest  *Route
	own   []AddrRoute // sorted by address
	gated bool        // every route has a Gate
}

// NewRoutes are the routes of a port that listens at an address: one for those who
// connect to another address than that of one of own. They own these from here on.
func NewRoutes(listen listener.Addr, rest *Route, own ...AddrRoute) *Routes {
	r := &Routes{rest: rest, own: own, gated: rest.Gate != nil}
	rest.settle(listen.String())
	slices.SortFunc(own, func(a, b AddrRoute) int { return a.Addr.Compare(b.Addr) })
	for _, a := range own {
		a.Route.settle(netip.AddrPortFrom(a.Addr, listen.TCP.Port()).String())
		r.gated = r.gated && a.Route.Gate != nil
	}
	return r
}

// NewPort makes the port of a listening socket, which it owns from here on.
func NewPort(s *listener.Socket, r *Routes) *Port {
	p := &Port{socket: s, name: s.Addr().String(), closed: make(chan struct{})}
	p.SetRoutes(r)
	return p
}

// Socket returns the listening socket, so that options can be applied to it.
// It is the port's: nobody else closes it.
func (p *Port) Socket() *listener.Socket { return p.socket }

// SetRoutes gives every client accepted from now on other routes.
func (p *Port) SetRoutes(r *Routes) { p.routes.Store(r) }

// settle fills in what a route learns from the address it is for.
func (r *Route) settle(listen string) {
	r.kept, r.listen = r.keeps(), listen
}

// to returns the route of those who connected to an address: the most specific
// one.
func (r *Routes) to(addr netip.Addr) *Route {
	if own := r.at(addr.WithZone("")); own != nil {
		return own
	}
	if addr.Is4() {
		if own := r.at(netip.IPv4Unspecified()); own != nil {
			return own
		}
	}
	return r.rest
}

func (r *Routes) at(addr netip.Addr) *Route {
	i, found := slices.BinarySearchFunc(r.own, addr, func(a AddrRoute, addr netip.Addr) int { return a.Addr.Compare(addr) })
	if !found {
		return nil
	}
	return r.own[i].Route
}

// choose gives a session its route on a port: that of the address at which the
// client is to be, or if that is every one of a family, or not known yet, at which
// it is. Only where that matters, the kernel is asked, as by
// ngx_stream_init_connection.
func (w *worker) choose(s *session, r *Routes, at netip.Addr) {
	s.route = r.rest
	if len(r.own) == 0 {
		return
	}
	if !at.IsValid() || at.IsUnspecified() {
		local, _ := w.connectedTo(s)
		if !at.IsValid() || at.Is4() == local.Addr().Is4() {
			at = local.Addr()
		}
	}
	s.route = r.to(at)
}

// connectedTo returns the address of the client's connection on our side, which is
// not valid for a unix socket. The kernel is asked once, unless a header has told of
// another address since.
func (w *worker) connectedTo(s *session) (local netip.AddrPort, ok bool) {
	fronted := s.front.IsValid() // local is what the header says
	if !fronted && s.local.IsValid() {
		return s.local, true
	}
	if w.local.Local(int(s.client.fd)) != 0 {
		return netip.AddrPort{}, false
	}
	local = w.local.TCP()
	if !fronted {
		s.local = local
	}
	return local, true
}

// setNoDelay gives the client's socket the TCP_NODELAY of the route, if it has
// another so far. A unix socket has none, and refuses.
func (s *session) setNoDelay(has bool) {
	if s.route.NoDelay == has {
		return
	}
	value := 0
	if s.route.NoDelay {
		value = 1
	}
	_ = reactor.SetInt(int(s.client.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, value)
}
