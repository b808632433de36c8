package stream

import (
	"net/netip"

	"smtplb/internal/reactor"
)

// Reply names one of our own replies to clients that get no server.
type Reply uint8

// The replies.
const (
	ReplyUnavailable Reply = iota // no server takes mail
	ReplyLimit                    // the session limit is reached, or the queue's, or its time-out
	ReplyShutdown                 // the balancer is stopping
	ReplyPregreet                 // the client spoke before it was greeted
	ReplyDenied                   // the client may not use the route
	ReplyTooMany                  // a limit of the route is reached; see Limit

	replies
)

// Replies are the lines of a route, each complete with CRLF. An empty one is
// not sent.
type Replies [replies][]byte

// turnAway ends a session, and tells its client why if it has not seen a byte
// of any server and speaks SMTP. The line is far smaller than an empty socket's
// room; lingering lets the client read it.
func (w *worker) turnAway(s *session, r Reply, c cause) {
	if g := s.route.Gate; g != nil && s.state != stateRelaying && !w.speaksTLS(s) {
		n, _ := reactor.Send(int(s.client.fd), g.Replies[r])
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
		w.turnAway(s, ReplyLimit, causeLimit)
	}
}
