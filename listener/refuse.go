package listener

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Refuse lets no further connection begin, and harms none that has begun. It
// is the first step of removing a listener, since close(2) resets whatever is
// still queued:
//
//   - TCP: a new client is refused at once (RST), as by a port where nobody
//     listens. What is queued can be accepted, and a handshake under way still
//     ends in the queue.
//   - unix: the path is removed, so that a new client finds nothing. One that
//     looked it up just before may still get into the queue.
//
// So go on accepting for a round trip or two, then until EAGAIN, then Close.
// There is no way back: to listen on the address again, Close first, then Open.
// After an error the socket is as it was; accepting until EAGAIN and closing
// then loses only what arrives between these two.
func (s *Socket) Refuse() error {
	refuse := s.refuseTCP
	if s.addr.Path != "" {
		refuse = s.removePath
	}
	if err := refuse(); err != nil {
		return fmt.Errorf("refuse connections to %s: %w", s.addr, err)
	}
	return nil
}

// refuseTCP binds the listener to a network interface that does not exist, so
// that the kernel does not find it for a new client's SYN (compute_score in
// its inet_hashtables.c). A connection keeps the binding that the listener had
// when its own SYN came (ireq->ir_iif), that is, none; exempt from this are
// only the connections of SYN cookies, which leave no trace before their
// handshake ends.
//
// Unlike a packet filter (SO_ATTACH_FILTER, which takes CAP_NET_ADMIN on some
// kernels) it needs no privilege: since Linux 5.7 anybody may bind a socket
// that is not bound to an interface yet. A link-local address has bound its
// socket to one already; changing that takes CAP_NET_RAW.
func (s *Socket) refuseTCP() error {
	const nowhere = math.MaxInt32 // an interface index; the kernel counts them up from 1
	return s.setInt("SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, nowhere)
}
