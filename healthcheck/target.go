package healthcheck

import (
	"time"

	"go.uber.org/zap"
)

// Target is one server as one user of it, an upstream, sees it.
type Target struct {
	Settings Settings

	Upstream, Name string      // of the user and the server, for the log
	Logger         *zap.Logger // takes what is said of the target; nil: the Checker's

	// Interval is the time from the end of a probe to the next; DownInterval
	// while the State is not Up, 0 is Interval. Targets that share a probe get the
	// shortest.
	Interval, DownInterval time.Duration

	// CertWarning is how long before the server's certificate ends a warning is
	// written, once a day; 0 is never. Of targets that share a probe the longest
	// counts.
	CertWarning time.Duration

	Rise int // good results in a row that bring a server back; 0 is 1
	Fall int // bad results in a row that take it out; 0 is 1

	State State // to begin with, when its Reporter is new

	// Reporter is also the identity of the target: it keeps its State and what
	// was counted over an Update, whatever else of it changes.
	Reporter Reporter
}

// Reporter is told the results of a target's probes. It is comparable, such as
// a pointer.
type Reporter interface {
	// Probed is called on the scheduler's goroutine, one result after the
	// other, and must not wait for anything, nor call Update or Stop; ProbeNow
	// it may. wanted, if not 0, says that somebody needs a further verdict
	// within that time: the next probe follows then, not sooner than after a
	// second, nor later than it would anyway.
	Probed(Result) (wanted time.Duration)
}

// State is what a target's results amount to.
type State uint8

const (
	// Up is taking mail.
	Up State = iota
	// Busy is out, the last bad result being soft.
	Busy
	// Down is out, the last bad result being hard.
	Down
)

func (s State) String() string { return [...]string{"up", "busy", "down"}[s] }

// Result is what a probe has found out.
type Result struct {
	Good bool
	// Soft, if not Good: a living server refuses for the moment, with 4yz. Not
	// Soft is 5yz, silence, nonsense, or no connection.
	Soft bool
	// Stale says that this Reporter has asked for a probe when this one was under
	// way: what it has found out may be older than the reason to ask. Another one
	// follows in a second.
	Stale bool
	State State       // with this result
	Why   string      // a printable line, such as "EHLO: 421 4.3.2 shutting down", or "250 mx.example.com" if Good
	Agent AgentReport // of Settings.Agent, if Good
}

// target is a Target and what was counted. It is owned by the scheduler.
type target struct {
	Target

	check *check // shared by the targets of these Settings
	again bool   // its Reporter has asked for a probe since the latest began
	state State
	good  int // results in a row; one of the two is 0
	bad   int
}

// count takes a result into account: Fall bad ones in a row leave Up, Rise good
// ones lead back to it, and in between the last bad one tells Busy from Down.
func (t *target) count(o outcome) Result {
	if o.good {
		t.good, t.bad = t.good+1, 0
		if t.state != Up && t.good >= t.Rise {
			t.state = Up
		}
	} else {
		t.good, t.bad = 0, t.bad+1
		switch {
		case t.state == Up && t.bad < t.Fall:
		case o.soft:
			t.state = Busy
		default:
			t.state = Down
		}
	}
	return Result{Good: o.good, Soft: o.soft, Stale: t.again, State: t.state, Why: o.why, Agent: o.agent}
}

// rising reports whether further good results would bring the server back.
func (t *target) rising() bool { return t.state != Up && t.good > 0 }

// interval is the time to the next probe if nobody is in a hurry.
func (t *target) interval() time.Duration {
	if t.state == Up {
		return t.Interval
	}
	return t.DownInterval
}
