package stream

import (
	"net/netip"

	"smtplb/internal/reactor"
)

// Replies are our own words to clients that get no server: one line each,
// complete with CRLF. A nil one is not sent.
type Replies struct {
	Unavailable []byte // no server takes mail
	Limit       []byte // the session limit is reached
	Shutdown    []byte // the balancer is stopping
	Pregreet    []byte // the client spoke before it was greeted
}

// reply names one of a route's Replies.
type reply uint8

const (
	replyUnavailable reply = iota
	replyLimit
	replyShutdown
	replyPregreet
)

func (r *Replies) line(name reply) []byte {
	switch name {
	case replyUnavailable:
		return r.Unavailable
	case replyLimit:
		return r.Limit
	case replyShutdown:
		return r.Shutdown
	default:
		return r.Pregreet
	}
}

// turnAway ends a session, and tells its client why if it has not seen a byte
// of any server and speaks SMTP. The line is far smaller than an empty socket's
// room; lingering lets the client read it.
func (w *worker) turnAway(s *session, name reply, c cause) {
	if g := s.route.Gate; g != nil && s.state != stateRelaying && !w.speaksTLS(s) {
		n, _ := reactor.Send(int(s.client.fd), g.Replies.line(name))
		s.down.out += int64(n)
	}
	w.finish(s, c)
}

// speaksTLS reports whether the client began with a TLS handshake, in which a
// line of SMTP would be noise.
func (w *worker) speaksTLS(s *session) bool {
	n, errno := reactor.Peek(int(s.client.fd), w.buf[:1])
	return errno == 0 && n == 1 && w.buf[0] == tlsHandshake
}

// refuse takes a client above the session limit, to tell it so.
func (w *worker) refuse(p *Port, fd int, from netip.AddrPort) {
	s := w.begin(p, fd, from)
	defer w.guard(s)
	if w.register(s) {
		w.turnAway(s, replyLimit, causeLimit)
	}
}
