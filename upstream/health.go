package upstream

import "fmt"

// What is known of a server's health: by sessions alone, or by sessions and
// the probes of a check. Without a check a server is up or unavailable, by
// nginx's rules. With one, sessions only raise suspicion; a server goes out
// when a probe has confirmed that, or by its probes alone, and comes back by
// them, so that no client has to find out whether it works again.
//
//	            sessions fail, or wait
//	checking ─────►  up  ──────────────────► suspect
//	    │ good       ▲ ◄────────good─────────┘ │ bad, and max_fails used up
//	    │            │                         ▼
//	    │            ├── good, after fail_timeout ── unavail
//	    │ fall       │ rise                    │ fall
//	    └─────► busy, unhealthy ◄──────────────┘ (from any state)

// Probe is the result of a probe.
type Probe struct {
	Good  bool
	State State  // by rise and fall: StateUp, StateBusy or StateUnhealthy
	Why   string // what was found, printable
}

// doubtAfter is how long, in seconds, sessions wait for a greeting that nobody
// gets until that is suspicious.
const doubtAfter = 5

// change moves a server to another state, and tells the owner of the group.
func (g *Group) change(s *Slot, to State, why string, now int64) {
	from, first := s.health, s.since < 0
	if from == to {
		return
	}
	s.health, s.since, s.why = to, now, why
	if to == StateUp && wasOut(from) && !first && s.slowStart > 0 {
		s.returned, s.credit = now, 0
	}
	if g.onChange != nil {
		g.onChange(Change{Peer: s.peer, From: from, To: to, Why: why})
	}
}

// probe asks for a probe of a server at once.
func (g *Group) probe(s *Slot) {
	if g.askProbe != nil {
		g.askProbe(s.peer)
	}
}

func wasOut(s State) bool { return s == StateUnavail || s == StateBusy || s == StateUnhealthy }

// doubt makes a server that is up a suspect, where a probe can tell.
func (g *Group) doubt(s *Slot, why string, now int64) {
	if g.checked && s.health == StateUp {
		g.change(s, StateSuspect, why, now)
		g.probe(s)
	}
}

// judge books what a session has found out.
func (g *Group) judge(s *Slot, t *Turn, o Outcome, now int64) {
	switch g.verdict(o) {
	case pass:
		g.pass(s, now)
	case failIfTwo:
		accuser := accuserOf(t.Client)
		if accuser.IsValid() && (!s.accuser.IsValid() || s.accuser == accuser) {
			s.accuser = accuser
			return
		}
		g.fail(s, o, now)
	case fail:
		g.fail(s, o, now)
	case suspect:
		g.doubt(s, o.String(), now)
	}
}

// verdict is what an outcome says of a server of the group.
func (g *Group) verdict(o Outcome) verdict {
	if g.checked {
		return outcomes[o].checked
	}
	return outcomes[o].plain
}

func (g *Group) pass(s *Slot, now int64) {
	s.pass(now)
	if !g.checked && s.fails == 0 && s.health == StateUnavail {
		g.change(s, StateUp, "a session was connected", now)
	}
}

func (g *Group) fail(s *Slot, o Outcome, now int64) {
	s.fail(now)
	if !s.failed() || s.health == StateUnavail {
		return
	}
	if g.checked {
		g.doubt(s, failures(s, o), now)
	} else {
		g.change(s, StateUnavail, failures(s, o), now)
	}
}

func failures(s *Slot, o Outcome) string {
	if s.fails == 1 {
		return o.String()
	}
	return fmt.Sprintf("%d failures, the last: %s", s.fails, o)
}

// Waited notes that a session has waited some seconds for the server's
// greeting. If nobody was greeted meanwhile, the server becomes a suspect.
func (p *Peer) Waited(now int64) {
	p.group.mu.Lock()
	defer p.group.mu.Unlock()

	if s := p.slot; now-s.greeted >= doubtAfter {
		p.group.doubt(s, "sessions wait for its greeting", now)
	}
}

// Probed books the result of a probe. It reports whether sessions wait for
// another one: the server is in doubt or quarantined, which is soon settled, by
// success or by its fall.
func (p *Peer) Probed(r Probe, now int64) (waiting bool) {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()

	s := p.slot
	switch {
	case !g.checked:
		return false
	case r.State != StateUp:
		g.change(s, r.State, r.Why, now)
		return false
	case r.Good:
		if s.health == StateUnavail && now-s.checked <= s.failTimeout {
			return true
		}
		if s.health != StateUp {
			s.fails = 0
		}
		g.change(s, StateUp, r.Why, now)
		return false
	case s.health == StateSuspect && s.failed():
		s.checked = now
		g.change(s, StateUnavail, r.Why, now)
	}
	return s.health != StateUp
}
