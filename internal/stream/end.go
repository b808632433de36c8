package stream

import (
	"smtplb/internal/reactor"
	"smtplb/internal/script"
	"smtplb/upstream"
)

// cause is who or what ended a session: the first thing that happened.
type cause uint8

const (
	causeNone cause = iota
	causeClientClosed
	causeServerClosed
	causeClientReset
	causeServerReset
	causeIdle
	causeNoServer
	causeQueueFull
	causeQueueTimeout
	causeConnectFailed
	causeNoGreeting
	causePregreet
	causeLimit
	causeTooMany
	causeBadHeader
	causeLateHeader
	causeDenied
	causeNoGroup
	causeNoPort
	causeBadPass
	causeReturned
	causeShutdown
	causeInternal
)

// causes says of each cause how our log has it, $status as nginx sets it (for
// what only we end sessions for, what comes nearest), and the first and the last
// part of $session_end. What they depend on beyond the cause is in end.
var causes = [...]struct {
	text     string
	status   int
	who, why string
}{
	causeNone:          {"none", 200, whoServer, "reset"},
	causeClientClosed:  {"client closed", 200, whoClient, "closed"},
	causeServerClosed:  {"server closed", 200, whoServer, "closed"},
	causeClientReset:   {"client reset", 200, whoClient, "reset"},
	causeServerReset:   {"server reset", 200, whoServer, "reset"},
	causeIdle:          {"idle time-out", 200, whoServer, "timeout"},
	causeNoServer:      {"no live upstreams", 502, whoUs, "no-server"},
	causeQueueFull:     {"queue full", 502, whoUs, "queue-full"},
	causeQueueTimeout:  {"queue time-out", 502, whoUs, "queue-timeout"},
	causeConnectFailed: {"connect failed", 502, whoServer, ""},
	causeNoGreeting:    {"no good greeting", 502, whoServer, ""},
	causePregreet:      {"client spoke before the greeting", 400, whoClient, "pregreet"},
	causeLimit:         {"session limit", 503, whoUs, "session-limit"},
	causeTooMany:       {"connection limit", 503, whoUs, "limit-conn"},
	causeBadHeader:     {"no PROXY header", 400, whoClient, "malformed"},
	causeLateHeader:    {"no PROXY header", 200, whoClient, "timeout"},
	causeDenied:        {"denied", 403, whoUs, "denied"},
	causeNoGroup:       {"unknown upstream", 500, whoUs, "no-upstream"},
	causeNoPort:        {"port not found", 200, whoUs, "no-port"},
	causeBadPass:       {"pass failed", 500, whoUs, "bad-pass"},
	causeReturned:      {"returned", 200, whoUs, "closed"},
	causeShutdown:      {"shutdown", 200, whoUs, "shutdown"},
	causeInternal:      {"internal error", 500, whoUs, "error"},
}

const (
	whoClient = "client"
	whoServer = "server"
	whoUs     = "us"
)

func (c cause) String() string { return causes[c].text }

// status is $status of a session that has just ended.
func (s *session) status() int {
	if s.state == stateHeader && s.cause == causeClientClosed {
		return 400 // to nginx, the end of a stream is a broken header
	}
	return causes[s.cause].status
}

// end is $session_end of a session that has just ended. Of a time-out it names
// whose turn it was.
func (s *session) end() script.End {
	c := &causes[s.cause]
	e := script.End{Who: c.who, Phase: s.phase(), Why: c.why}
	switch {
	case s.cause == causeIdle && (s.downLast || s.down.holds()), s.cause == causeNone && s.client.reset:
		e.Who = whoClient
	case c.why == "":
		if e.Why = why(s.outcome); s.outcome == upstream.OutcomeLocalError {
			e.Who = whoUs
		}
	}
	return e
}

// phase is what the session was doing.
func (s *session) phase() string {
	switch s.state {
	case stateHeader:
		return "header"
	case statePassing:
		return "pass"
	case stateQueue:
		return "queue"
	case stateStandby, stateConnecting:
		return "connect"
	case stateGreeting:
		return "greeting"
	case stateRelaying:
		if s.to == nil {
			return "return"
		}
		return "relay"
	}
	if s.to != nil {
		return "connect" // or would, were there a server to try
	}
	return "accept"
}

// why is what was wrong about the last server, in a word.
func why(o upstream.Outcome) string {
	switch o {
	case upstream.OutcomeRefused:
		return "refused"
	case upstream.OutcomeUnreachable:
		return "unreachable"
	case upstream.OutcomeReset:
		return "reset"
	case upstream.OutcomeEmpty:
		return "closed"
	case upstream.OutcomeGarbage:
		return "garbage"
	case upstream.OutcomeBusy, upstream.OutcomeRejected:
		return "rejected"
	case upstream.OutcomeLocalError:
		return "error"
	}
	return "timeout"
}

// finish ends the relaying of a session: what is not delivered yet is dropped,
// the server is released, the session logged, and both ends are closed in the
// way that hurts least.
func (w *worker) finish(s *session, c cause) {
	if s.cause == causeNone {
		s.cause = c
	}
	undelivered := s.up.holds() || s.down.holds()
	s.up.drop(w)
	s.down.drop(w)
	w.account(s)
	switch s.state {
	case stateConnecting:
		w.hangUp(&s.server) // there is no conversation to end
	case stateGreeting:
		if s.server.fd >= 0 {
			w.abandon(s, false)
		}
	}
	w.part(&s.client, &s.server, undelivered)
	w.part(&s.server, &s.client, undelivered)
	if s.client.fd < 0 && s.server.fd < 0 {
		w.free(s)
		return
	}
	w.enter(s, stateLingering)
	w.linger(s)
}

// part closes an end if nothing can be lost by it, and otherwise sends our end
// of stream and leaves it to linger.
func (w *worker) part(e, other *end, undelivered bool) {
	if e.fd < 0 {
		return
	}
	if e.eof || e.reset {
		w.hangUp(e)
		return
	}
	// The other side was reset. Mirror that, but only if everything it sent
	// before has arrived: an abort throws away what is still queued.
	if other.reset && !undelivered && reactor.Unsent(int(e.fd)) == 0 {
		reactor.AbortOnClose(int(e.fd))
		w.hangUp(e)
		return
	}
	if !e.shut {
		e.shut = true
		_ = reactor.ShutdownWrite(int(e.fd))
	}
	e.readable = true
}

// linger reads and discards what the peers still send until they close.
func (w *worker) linger(s *session) {
	for _, e := range [...]*end{&s.client, &s.server} {
		for e.fd >= 0 && e.readable {
			n, errno := reactor.Recv(int(e.fd), w.buf)
			s.lingers += int32(n)
			switch {
			case errno == eagain:
				e.readable = false
			case errno != 0 || n == 0 || s.lingers > lingerBytes:
				w.hangUp(e)
			}
		}
	}
	if s.client.fd < 0 && s.server.fd < 0 {
		w.free(s)
	}
}

// account releases the server and what the session is counted by, and logs the
// session, once.
func (w *worker) account(s *session) {
	if s.accounted {
		return
	}
	s.accounted = true
	if s.record != nil {
		s.record.unclaim(0)
	}
	if s.state == stateQueue {
		w.leaveQueue(s)
	}
	if s.peer != nil {
		o := s.outcome
		if s.state != stateRelaying {
			o = upstream.OutcomeClientGone
		}
		w.release(s, o)
	}
	if s.next != nil { // a panic came between
		s.next.Release(w.turn(s), upstream.OutcomeClientGone, w.seconds())
		s.next = nil
	}
	w.stats.Ended++
	s.route.journal().ended(w, s)
	if s.record != nil {
		w.logAccess(s)
		w.returnRecord(s)
	}
}

func (w *worker) hangUp(e *end) {
	if e.fd >= 0 {
		w.loop.CloseLater(int(e.fd))
		e.fd = -1
	}
}

func (w *worker) free(s *session) {
	w.loop.Timers.Disarm(s.index)
	s.route.Epoch.leave(w)
	w.sessions.Put(s.index)
	w.leave()
}
