package stream

import (
	"sync/atomic"

	"smtplb/listener"
)

// Port is a listening socket and the route of the clients it accepts. Its
// owner makes it with Engine.Open and ends it with Engine.Close.
type Port struct {
	socket *listener.Socket
	name   string // as it is logged
	route  atomic.Pointer[Route]
	closed chan struct{}
}

// Socket returns the listening socket, so that options can be applied to it.
// It is the port's: nobody else closes it.
func (p *Port) Socket() *listener.Socket { return p.socket }

// SetRoute gives every client accepted from now on another route.
func (p *Port) SetRoute(r *Route) {
	r.kept = r.keeps()
	p.route.Store(r)
}
