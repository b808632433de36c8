package upstream

// fitness is how much of a choice a server is. A session gets one of the
// fittest: those that are less fit are looked at when no other is left, be it
// among the backups.
type fitness uint8

const (
	fit      fitness = iota // up
	warming                 // up again, and had its share for the moment
	doubtful                // suspect, or not probed yet
	out                     // failed, busy or unhealthy: a last resort, see resort
	never                   // down, full or crowded; without a check: unavailable
)

// fitness of a server whose share in its slow start is not looked at.
func (g *Group) fitness(s *Slot, now int64) fitness {
	switch {
	case s.down || s.full():
		return never
	case !g.checked:
		if s.unavailable(now) && !g.single {
			return never
		}
		return fit
	case s.health == StateUp:
		return fit
	case s.health == StateSuspect || s.health == StateChecking:
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

// crowded reports that a server which is recovering or in doubt has as many
// connects under way as it may. A server that has stood still has an empty
// queue for new connections, and everybody would rush at it.
func (s *Slot) crowded(f fitness, now int64) bool {
	return s.maxPending > 0 && s.pending >= s.maxPending && s.cautious(f, now)
}

// cautious reports that connects to the server are counted.
func (s *Slot) cautious(f fitness, now int64) bool {
	return f == doubtful || s.recovering(now)
}

// pick chooses among the servers of a tier that are fit enough. It notes in the
// turn if one was left out for being crowded.
func (g *Group) pick(tr *tier, t *Turn, least fitness, now int64) *Slot {
	for i := range tr.slots {
		s := &tr.slots[i]
		f := g.fitness(s, now)
		s.Eligible = f <= least
		if s.Eligible && least == fit && s.recovering(now) {
			s.Eligible = s.admit(now)
		}
		if s.Eligible && s.crowded(f, now) {
			s.Eligible = false
			t.wait = true
		}
	}
	t.exclude()
	if g.measure.Of != Never {
		for i := range tr.slots {
			if s := &tr.slots[i]; s.Eligible {
				s.expect(now, t.Now)
			}
		}
	}
	i := tr.method.Pick(tr.slots, &t.Session)
	if i < 0 {
		return nil
	}
	s := &tr.slots[i]
	s.take(now)
	if s.maxPending > 0 && s.cautious(g.fitness(s, now), now) {
		s.pending++
		t.pending = s.peer
	}
	return s
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
	if !g.checked || t.wait {
		return nil
	}
	ask := now != g.asked
	g.asked = now
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			s := &tr.slots[i]
			f := g.fitness(s, now)
			s.Eligible = f == out && now-s.resorted >= resortPeriod
			if f == out && ask {
				g.probe(s)
			}
		}
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
	best.resorted = now
	best.Conns++
	return best
}

func (s *Slot) lessHopeless(other *Slot) bool {
	if busy := s.health == StateBusy; busy != (other.health == StateBusy) {
		return busy
	}
	return s.accessed < other.accessed
}
