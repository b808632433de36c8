package upstream

import "net/netip"

// Outcome is how a session's attempt at a server ended.
type Outcome uint8

const (
	// OutcomeOK says: the connection was made, and the session has ended by
	// whatever cause, be it that the server hung up without a word.
	OutcomeOK Outcome = iota
	// OutcomeRefused says: nobody listens, or the queue of the server is full.
	OutcomeRefused
	// OutcomeUnreachable says: no route, or the network or host is down.
	OutcomeUnreachable
	// OutcomeConnectTimeout says: no answer within proxy_connect_timeout.
	OutcomeConnectTimeout
	// OutcomeReset says: the server broke off while the connection was being made.
	OutcomeReset
	// OutcomeLocalError says: our side could not try or use the connection, such as
	// EADDRNOTAVAIL, EMFILE, or a socket option refused.
	OutcomeLocalError
	// OutcomeClientGone says: the client left before the connection was made, or
	// before the server had greeted.
	OutcomeClientGone

	// What follows is seen only by a session that waits for the greeting of a
	// mail server before its client sees anything.

	// OutcomeEmpty says: the server closed or reset the connection without a word.
	OutcomeEmpty
	// OutcomeGreetingTimeout says: no greeting within smtp_greeting_timeout.
	OutcomeGreetingTimeout
	// OutcomeBusy says: a 4xx greeting that is about the server.
	OutcomeBusy
	// OutcomeGarbage says: what the server said first was no SMTP reply.
	OutcomeGarbage
	// OutcomeRejected says: a 5xx or a 421 4.7.x, from a server that takes us for
	// the client: it is about us, or the server is not what it should be.
	OutcomeRejected
	// OutcomeClientRejected says: the same, from a server that knows the client.
	OutcomeClientRejected
	// OutcomeUnjudged says: nobody waited for the greeting to the end, since the
	// client spoke first or the session had no more time.
	OutcomeUnjudged
)

// verdict is what an outcome says of the server.
type verdict uint8

const (
	ignore verdict = iota // nothing
	pass                  // it works
	fail                  // it has failed: counts into max_fails
	// failIfTwo is fail, unless the server knows its clients and only one of
	// them has met with it: then it may be about that client, and one bad
	// client must not take a server out.
	failIfTwo
	suspect // it may not work: a probe shall tell
)

// outcomes is the one place where outcomes are judged: plain where there is no
// check, as nginx does, to which a connection made is a success whatever
// becomes of it. It differs where the evidence is not about the server: nginx
// counts a local error of connect() as the server's failure, and its own other
// errors as the server's success.
//
// Where there is a check, failures only lead to a probe, so that no client can
// do more than cause one; what a server says against us can then be looked into.
var outcomes = [...]struct {
	name           string
	plain, checked verdict
}{
	OutcomeOK:             {"ok", pass, pass},
	OutcomeRefused:        {"refused", fail, fail},
	OutcomeUnreachable:    {"unreachable", fail, fail},
	OutcomeConnectTimeout: {"connect timeout", fail, fail},
	OutcomeReset:          {"reset", fail, fail},
	OutcomeLocalError:     {"local error", ignore, ignore},
	OutcomeClientGone:     {"client gone", ignore, ignore},

	OutcomeEmpty:           {"closed before the greeting", failIfTwo, fail},
	OutcomeGreetingTimeout: {"no greeting", fail, fail},
	OutcomeBusy:            {"busy", fail, fail},
	OutcomeGarbage:         {"garbage", fail, fail},
	OutcomeRejected:        {"rejected", ignore, suspect},
	OutcomeClientRejected:  {"client rejected", ignore, ignore},
	OutcomeUnjudged:        {"unjudged", ignore, ignore},
}

// hostOf is the part of a client's address that tells one client from another:
// one host has a whole /64 of IPv6 (RFC 6177).
func hostOf(client netip.Addr) netip.Addr {
	if !client.Is6() {
		return client
	}
	p, _ := client.WithZone("").Prefix(64)
	return p.Addr()
}

// String names the outcome for logs.
func (o Outcome) String() string { return outcomes[o].name }
