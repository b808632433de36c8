package stream

import (
	"go.uber.org/zap"

	"smtplb/internal/reactor"
)

// A session for which every server is full waits in the queue of its group, and
// its client, who has not seen a byte yet, waits for the greeting: five minutes,
// if it does as RFC 5321 asks (section 4.5.3.2.1).

// pollPeriod is how often, in ms, a session in the queue has the group look at
// the clock.
const pollPeriod = 1000

// enqueue has a session wait for one of the servers, all of which are full.
func (w *worker) enqueue(s *session) {
	token := s.clientToken()
	claim := func() {
		if s := w.sessions.Lookup(token); s != nil {
			defer w.guard(s)
			w.claim(s)
		}
	}
	// The servers may be given away on any loop.
	if !s.to.Group.Wait(&s.turn, s.from.Addr(), func() { w.loop.Post(claim) }) {
		w.queueFull(s)
		return
	}
	w.enter(s, stateQueue)
	w.queued(s)
}

// queueFull is called for a session that has no room in the queue, or no more.
func (w *worker) queueFull(s *session) {
	w.complain(s, "queue is full", s.aboutQueue()...)
	w.turnAway(s, ReplyLimit, causeQueueFull)
}

// claim goes on with the server that the session was given, or without one if it
// had to give way. It reports whether the session has left the queue.
func (w *worker) claim(s *session) bool {
	if s.state != stateQueue {
		return false
	}
	p, waits := s.to.Group.Claim(&s.turn)
	switch {
	case waits:
		return false
	case p == nil:
		w.queueFull(s)
	default:
		w.unqueue(s)
		w.try(s, p)
	}
	return true
}

// unqueue notes for how long the session was in the queue. That is not counted
// into the time it has for finding a server.
func (w *worker) unqueue(s *session) { s.waited += w.loop.Now() - s.active }

// queued handles what the client does meanwhile.
func (w *worker) queued(s *session) {
	if g := s.route.Gate; g != nil && g.Pregreet == PregreetReject && s.client.readable {
		n, errno := reactor.Peek(int(s.client.fd), w.buf[:1])
		if errno == 0 && n > 0 && w.buf[0] != tlsHandshake {
			w.turnAway(s, ReplyPregreet, causePregreet)
			return
		}
	}
	w.waiting(s)
}

// queueLimit is when the session has been in the queue for too long, the time
// that it has been there before included.
func (s *session) queueLimit() int64 {
	return s.active + s.to.QueueTimeout.Milliseconds() - s.waited
}

// queueExpired is called when the session's time in the queue is up.
func (w *worker) queueExpired(s *session) {
	if w.claim(s) {
		return // at the last moment
	}
	w.complain(s, "no server is free in time", s.aboutQueue()...)
	w.turnAway(s, ReplyLimit, causeQueueTimeout)
}

func (s *session) aboutQueue() []zap.Field {
	g := s.to.Group
	return []zap.Field{zap.String("upstream", g.Name()), zap.Int("waiting", g.Waiting())}
}

// leaveQueue takes a session out that ends, and gives back what it may have
// been given.
func (w *worker) leaveQueue(s *session) {
	w.unqueue(s)
	s.to.Group.Withdraw(&s.turn, w.seconds())
}
