package upstream

// fitness is how much of a choice a server is. A session gets one of the
// fittest: those that are less fit are looked at when no other is left, be it
// among the backups.
type fitness uint8

const (
	fit      fitness = iota // up
	warming                 // up again, and had its share for the moment
	doubtful                // suspect, not probed yet, or out but answering probes again
	out                     // failed, busy or unhealthy: a last resort, see resort
	never                   // down, drained, full or crowded; without a check: unavailable
)

// fitness of a server whose share in its slow start is not looked at.
func (g *Group) fitness(s *Slot, now int64) fitness {
	if s.full() {
		return never
	}
	return g.condition(s, now)
}

// condition is how fit a server is, however many sessions it has.
func (g *Group) condition(s *Slot, now int64) fitness {
	switch {
	case s.down || s.agent == StateDrain || s.agent == StateMaint:
		return never
	case s.agent != StateUp:
		return out
	case !g.probed:
		if s.unavailable(now) && !g.single {
			return never
		}
		return fit
	case s.health == StateUp:
		return fit
	case s.health == StateSuspect || s.health == StateChecking || s.peer.answers:
		return doubtful
	}
	return out
}

// recovering reports that the server is in its slow start.
func (s *Slot) recovering(now int64) bool {
	if s.returned > 0 && now-s.returned >= s.slowStart {
		s.returned = 0
	}
	return s.returned > 0
}

// admit reports whether a server in its slow start takes part in this choice:
// in a growing share of them, from nearly none to all, spread evenly. So it
// has a growing share of the sessions whatever the method, whose arithmetic
// knows nothing of this.
func (s *Slot) admit(now int64) bool {
	s.credit += now - s.returned + 1
	if s.credit < s.slowStart {
		return false
	}
	s.credit -= s.slowStart
	return true
}

// cautious reports that connects to the server are counted, and bounded by
// max_pending: it is recovering or in doubt. A server that has stood still has
// an empty queue for new connections, and everybody would rush at it.
func (g *Group) cautious(s *Slot, now int64) bool {
	return s.maxPending > 0 && (g.fitness(s, now) == doubtful || s.recovering(now))
}

// pick chooses among the servers of a tier that are fit enough, or tells that
// one was left out for being crowded.
func (g *Group) pick(tr *tier, t *Turn, least fitness, now int64) (s *Slot, crowded bool) {
	for i := range tr.slots {
		tr.slots[i].Eligible = g.fitness(&tr.slots[i], now) <= least
	}
	t.exclude()
	if g.least > fit {
		crowded = g.restrain(tr, least, now)
	}
	if g.measure.Of != Never {
		for i := range tr.slots {
			if s := &tr.slots[i]; s.Eligible {
				s.expect(now, t.Now)
			}
		}
	}
	i := tr.method.Pick(tr.slots, &t.Session)
	if i < 0 {
		return nil, crowded
	}
	s = &tr.slots[i]
	if g.least > fit && g.cautious(s, now) {
		s.pending++
		t.pending = s.peer
	}
	s.take(now)
	return s, false
}

// restrain leaves out those who have had their share of a slow start, and those
// with enough connects under way; of the latter it tells.
func (g *Group) restrain(tr *tier, least fitness, now int64) (crowded bool) {
	for i := range tr.slots {
		s := &tr.slots[i]
		if s.Eligible && least == fit && s.recovering(now) {
			s.Eligible = s.admit(now)
		}
		if s.Eligible && s.pending >= s.maxPending && g.cautious(s, now) {
			s.Eligible = false
			crowded = true
		}
	}
	return crowded
}

// Limits of resort.
const (
	resortTries  = 2 // servers for a session
	resortPeriod = 1 // seconds between two sessions for a server
)

// resort chooses a server when all that are checked are out: checks may be
// wrong, and a session that is refused has nothing to lose. Only few sessions
// are let through, since whoever waits for a dead server cannot be told to come
// back later meanwhile. Busy servers go before those that do not answer, then
// those that have failed the longest time ago. And all are probed, lest the
// group stays out longer than its servers.
func (g *Group) resort(t *Turn, now int64) *Slot {
	if !g.probed {
		return nil
	}
	all := true
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			s := &tr.slots[i]
			f := g.fitness(s, now)
			all = all && f >= out
			s.Eligible = f == out && now-s.peer.resorted >= resortPeriod
		}
	}
	if all && g.asked != now {
		g.asked = now
		g.probeAll(now)
	}
	if t.resorts >= resortTries {
		return nil
	}
	t.exclude()
	var best *Slot
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			if s := &tr.slots[i]; s.Eligible && (best == nil || s.lessHopeless(best)) {
				best = s
			}
		}
	}
	if best == nil {
		return nil
	}
	t.resorts++
	best.peer.resorted = now
	best.Conns++
	return best
}

// probeAll asks for a probe of every server that is out.
func (g *Group) probeAll(now int64) {
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			if s := &tr.slots[i]; g.fitness(s, now) == out {
				g.probe(s)
			}
		}
	}
}

func (s *Slot) lessHopeless(other *Slot) bool {
	if busy := s.health == StateBusy; busy != (other.health == StateBusy) {
		return busy
	}
	return s.accessed < other.accessed
}
