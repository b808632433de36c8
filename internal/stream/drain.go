package stream

// Cut is what became of the sessions that a stop found open.
type Cut struct {
	Idle  int // ended: the last byte was the server's, so nobody owed an answer
	InGap int // half-closed: the client had spoken last, its answer may be under way
}

// Drained returns a channel that is closed when there is no session. Until
// then everybody who asks gets the same.
func (e *Engine) Drained() <-chan struct{} {
	for {
		if c := e.drained.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		if !e.drained.CompareAndSwap(nil, &c) {
			continue
		}
		// The last session may have left before it could see the channel.
		if e.sessions.Load() == 0 && e.drained.CompareAndSwap(&c, nil) {
			close(c)
		}
		return c
	}
}

// CutIdle ends the sessions in which the client is to speak next, and those
// that have no server yet, and half-closes all others as HalfClose does.
func (e *Engine) CutIdle() Cut { return e.cut(true) }

// HalfClose reads nothing more from any client and tells each server so, once
// it has everything that was read. A server that owes an answer still gives it
// and closes; one in the middle of a message discards it; so no message is
// lost, and none is sent twice that need not be.
func (e *Engine) HalfClose() Cut { return e.cut(false) }

func (e *Engine) cut(idle bool) Cut {
	var sum Cut
	e.ask(func(w *worker) {
		w.sessions.Each(func(_ uint32, s *session) {
			switch {
			case s.state == stateLingering:
			case s.state != stateRelaying,
				idle && s.downLast && !s.up.holds() && !s.down.holds() && !s.waits():
				sum.Idle++
				w.end(s)
			default:
				sum.InGap++
				w.halfClose(s)
			}
		})
	})
	return sum
}

// End ends all sessions. They linger for a few seconds, so that what was sent
// last arrives; see Drained.
func (e *Engine) End() (n int) {
	e.ask(func(w *worker) {
		w.sessions.Each(func(_ uint32, s *session) {
			if s.state != stateLingering {
				n++
				w.end(s)
			}
		})
	})
	return n
}

// end ends a session; a client that has no server yet is told why.
func (w *worker) end(s *session) {
	defer w.guard(s)
	w.turnAway(s, ReplyShutdown, causeShutdown)
}

func (w *worker) halfClose(s *session) {
	defer w.guard(s)
	s.draining = true
	if s.cause == causeNone {
		s.cause = causeShutdown
	}
	s.up.eof = true
	w.relay(s)
}
