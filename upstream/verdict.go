package upstream

// Outcome is how a session's attempt at a server ended.
type Outcome uint8

const (
	// OutcomeOK: the connection was made, and the session has ended by
	// whatever cause, be it that the server hung up without a word.
	OutcomeOK Outcome = iota
	// OutcomeRefused: nobody listens, or the queue of the server is full.
	OutcomeRefused
	// OutcomeUnreachable: no route, or the network or host is down.
	OutcomeUnreachable
	// OutcomeConnectTimeout: no answer within proxy_connect_timeout.
	OutcomeConnectTimeout
	// OutcomeReset: the server broke off while the connection was being made.
	OutcomeReset
	// OutcomeLocalError: our side could not try or use the connection, such as
	// EADDRNOTAVAIL, EMFILE, or a socket option refused.
	OutcomeLocalError
	// OutcomeClientGone: the client left before the connection was made.
	OutcomeClientGone
)

// verdict is what an outcome says of the server.
type verdict uint8

const (
	ignore verdict = iota // nothing
	pass                  // it works
	fail                  // it has failed: counts into max_fails
)

// outcomes is the one place where outcomes are judged: as nginx does, to which
// a connection made is a success whatever becomes of it. It differs where the
// evidence is not about the server: nginx counts a local error of connect() as
// the server's failure, and its own other errors as the server's success.
var outcomes = [...]struct {
	name    string
	verdict verdict
}{
	OutcomeOK:             {"ok", pass},
	OutcomeRefused:        {"refused", fail},
	OutcomeUnreachable:    {"unreachable", fail},
	OutcomeConnectTimeout: {"connect timeout", fail},
	OutcomeReset:          {"reset", fail},
	OutcomeLocalError:     {"local error", ignore},
	OutcomeClientGone:     {"client gone", ignore},
}

// String names the outcome for logs.
func (o Outcome) String() string { return outcomes[o].name }
