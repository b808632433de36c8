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
	Stale bool   // begun before the latest request for one
	State State  // by rise and fall: StateUp, StateBusy or StateUnhealthy
	Why   string // what was found, printable
}

// DoubtAfter is how long, in seconds, a session waits for a greeting until it
// says so by Waited.
const DoubtAfter = 5

// standstill is how long, in seconds, a suspect has to be avoided until it starts
// slowly like one that was out.
const standstill = 2

// change moves a server to another state, and tells the owner of the group,
// unless its agent keeps it in one of its own.
func (g *Group) change(s *Slot, to State, why string, now int64) {
	p, from := s.peer, s.health
	if from == to {
		return
	}
	// A server that has never been up begins like any other.
	stood := wasOut(from) || from == StateSuspect && now-p.since >= standstill
	if to == StateUp && stood && p.since >= 0 {
		s.startSlowly(now)
	}
	s.health, p.since, p.why = to, now, why
	if g.onChange != nil && s.agent == StateUp {
		g.onChange(Change{Peer: p, From: from, To: to, Why: why})
	}
}

// startSlowly begins a slow start, if the server has one.
func (s *Slot) startSlowly(now int64) {
	if s.slowStart > 0 {
		s.returned, s.credit = now, 0
	}
}

// reset gives a server the state that a configuration says.
func (p *Peer) reset(to State) {
	p.slot.health, p.since, p.why = to, -1, ""
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
	if g.probed && s.health == StateUp {
		g.change(s, StateSuspect, why, now)
		g.probe(s)
		g.probeAll(now) // those that are out may soon be needed
	}
}

// judge books what a session has found out.
func (g *Group) judge(s *Slot, t *Turn, o Outcome, now int64) {
	switch g.verdict(o) {
	case pass:
		g.pass(s, now)
	case failIfTwo:
		accuser := hostOf(t.Client)
		if known := s.peer.accuser; accuser.IsValid() && (!known.IsValid() || known == accuser) {
			s.peer.accuser = accuser
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
	if g.probed {
		return outcomes[o].checked
	}
	return outcomes[o].plain
}

func (g *Group) pass(s *Slot, now int64) {
	s.pass()
	if !g.probed && s.fails == 0 && s.health == StateUnavail {
		g.change(s, StateUp, "a session was connected", now)
	}
}

func (g *Group) fail(s *Slot, o Outcome, now int64) {
	s.fail(now)
	s.peer.answers = false
	if !s.failed() || s.health == StateUnavail || g.probed && s.health != StateUp {
		return
	}
	if g.probed {
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

	if now-p.greeted >= DoubtAfter {
		p.group.doubt(p.slot, "sessions wait for its greeting", now)
	}
}

// Probed books the result of a probe. wanted is within how many seconds the next
// one should follow, since sessions may wait for it; 0 is no hurry. A server in
// doubt, or in quarantine, is soon settled by a success or by its fall.
func (p *Peer) Probed(r Probe, now int64) (wanted int64) {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = max(g.now, now)
	defer g.serve()

	s := p.slot
	p.answers = r.Good
	switch {
	case !g.probed:
		return 0
	case r.State != StateUp:
		if s.health == r.State && p.since < 0 && !r.Good {
			p.since, p.why = now, r.Why // what began by default is found to be so
		}
		g.change(s, r.State, r.Why, now)
		return 0
	case r.Good && r.Stale && s.health == StateSuspect:
		return 1 // it may have been good before what has made it a suspect
	case r.Good:
		// The quarantine is counted from its begin: sessions that fail
		// meanwhile could prolong it for ever.
		if left := p.since + s.failTimeout - now; s.health == StateUnavail && left >= 0 {
			return left + 1
		}
		if s.health != StateUp {
			s.fails = 0
		}
		g.change(s, StateUp, r.Why, now)
		return 0
	case s.health == StateSuspect && s.failed():
		g.change(s, StateUnavail, r.Why, now)
	}
	if s.health == StateUp {
		return 0
	}
	return 1
}
