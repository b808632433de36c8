package stream

import (
	"golang.org/x/sys/unix"

	"smtplb/upstream"
)

// Time limits of a session that are nobody's directive, in ms.
const (
	// After the server's end of stream nothing more can come for the client,
	// which only has to take what is queued and close.
	serverDoneTimeout = 60_000
	// lingerTimeout and lingerBytes bound how long and how much is read and
	// discarded after our last byte, so that the kernel does not answer with a
	// reset, which would destroy what the peer has not read yet (RFC 2525
	// section 2.17).
	lingerTimeout = 5_000
	lingerBytes   = 256 << 10
	// standbyPeriod is how long a session on standby waits to ask for a server
	// once more.
	standbyPeriod = 200
	// doubtAfter is for how long a greeting is awaited until the group is told.
	doubtAfter = upstream.DoubtAfter * 1000
)

// expired handles the timer of a session. The wheel may fire early: what counts
// is the deadline of the state.
func (w *worker) expired(s *session) {
	defer w.guard(s)
	if s.state == stateRelaying {
		w.keepAlive(s)
	}
	if s.state == stateGreeting && !s.doubted && w.loop.Now()-s.active >= w.doubtAfter {
		s.doubted = true
		s.peer.Waited(w.seconds())
	}
	if s.state == stateQueue {
		s.to.Group.Poll(w.seconds())
	}
	at := w.deadline(s)
	if at > w.loop.Now() {
		w.loop.Timers.Arm(s.index, at)
		return
	}
	switch s.state {
	case stateHeader:
		w.badHeader(s, lateHeader, causeLateHeader)
	case stateStandby:
		w.connect(s)
	case stateQueue:
		w.queueExpired(s)
	case stateConnecting:
		o := upstream.OutcomeConnectTimeout
		if w.loop.Now()-s.active < s.route.ConnectTimeout.Milliseconds() {
			o = upstream.OutcomeUnjudged // the session's time is up, not the attempt's
		}
		w.attemptFailed(s, o, calledConnect, unix.ETIMEDOUT)
	case stateGreeting:
		w.noGreeting(s)
	case stateRelaying:
		if !s.waits() {
			w.finish(s, causeIdle)
			return
		}
		if !s.again {
			w.relay(s)
		}
		if s.state == stateRelaying {
			w.loop.Timers.Arm(s.index, w.deadline(s))
		}
	case stateLingering:
		w.hangUp(&s.client)
		w.hangUp(&s.server)
		w.free(s)
	}
}

// deadline is when the session's present state has lasted too long.
func (w *worker) deadline(s *session) int64 {
	switch s.state {
	case stateHeader:
		return s.started + s.route.headerTimeout()
	case stateStandby:
		return w.within(s, s.active+standbyPeriod)
	case stateQueue:
		return min(w.loop.Now()+pollPeriod, s.queueLimit())
	case stateConnecting:
		return w.within(s, s.active+s.route.ConnectTimeout.Milliseconds())
	case stateGreeting:
		limit := s.route.Gate.Timeout.Milliseconds()
		if s.patient {
			limit = s.route.Timeout.Milliseconds()
		}
		if !s.doubted {
			limit = min(limit, w.doubtAfter)
		}
		return w.within(s, s.active+limit)
	case stateRelaying:
		limit := s.route.Timeout.Milliseconds()
		if s.down.eof {
			limit = min(limit, serverDoneTimeout)
		}
		silent := max(s.active, s.up.pace.until(), s.down.pace.until())
		return s.wakes(silent + limit)
	default:
		return s.active + lingerTimeout
	}
}

// enter moves the session to a state and starts its timer.
func (w *worker) enter(s *session, st state) {
	s.state = st
	s.active = w.loop.Now()
	w.loop.Timers.Arm(s.index, w.deadline(s))
}
