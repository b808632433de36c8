package stream

import (
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
		if s.group == nil {
			return "return"
		}
		return "relay"
	}
	if s.group != nil {
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
