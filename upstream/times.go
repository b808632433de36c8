package upstream

// Measure is which time a method goes by.
type Measure struct {
	Of Moment
	// Inflight has sessions count that have not come to the moment yet, so that
	// a server which has become slow is noticed before they have.
	Inflight bool
}

// Moment is a moment in a session, by how long it takes from the pick of the
// server.
type Moment uint8

// The moments.
const (
	Never     Moment = iota // nothing is measured
	Connect                 // the connection is made
	FirstByte               // the server has sent something; with SMTP, has greeted
	LastByte                // the session is over
)

// times is how long sessions take at a server, in ms, as nginx reckons it
// (ngx_stream_upstream_least_time_module.c).
type times struct {
	average int64 // running, of sessions that went well; 0: none has
	// Of the sessions that are counted because they are in flight:
	waiting int64 // how many there are
	waited  int64 // how long they had waited, together, at the time of changed
	changed int64 // when one came or went
	wait    int64 // running average of how long they have waited, taken at each pick
}

// moving is an exponential moving average that begins with the first value.
// nginx computes it with doubles, too; the conversions forbid to fuse them.
func moving(average, value int64) int64 {
	if average == 0 {
		return value
	}
	return int64(0.5 + float64(0.05*float64(value)) + float64(0.95*float64(average)))
}

// expect sets the latency to be expected of the server. Once in fail_timeout it
// is halved while nobody comes, so that a slow server gets another chance. At
// ms on the clock of the turns, now in seconds.
//
// See ngx_stream_upstream_least_time_eta, which shifts by 64 and more bits in
// the end, and so by any number; here nothing is left then.
func (s *Slot) expect(now, ms int64) {
	s.Latency = s.average
	if idle := now - s.checked; idle > s.failTimeout {
		s.Latency >>= idle / (s.failTimeout + 1)
	}
	if s.waiting > 0 {
		s.wait = moving(s.wait, s.waited/s.waiting+ms-s.changed)
		s.Latency = max(s.Latency, s.wait)
	}
}

// depart counts a session among those in flight.
func (s *Slot) depart(ms int64) {
	s.waited += (ms - s.changed) * s.waiting
	s.changed = ms
	s.waiting++
}

// land takes one out that has waited so long.
func (s *Slot) land(ms, waited int64) {
	s.waited = max(0, s.waited+(ms-s.changed)*s.waiting-waited) // loops read the clock apart
	s.changed = ms
	s.waiting--
}

// depart begins to measure the session's attempt at a server. The turn may
// still be on its way to another one, which it is about to leave.
func (g *Group) depart(s *Slot, t *Turn) {
	t.measure = g.measure
	if t.measure.Of == Never {
		return
	}
	if t.timed != nil && t.flying {
		t.timed.slot.land(t.Now, t.Now-t.began)
	}
	t.timed, t.began, t.took = s.peer, t.Now, -1
	t.flying = g.measure.Inflight
	if t.flying {
		s.depart(t.Now)
	}
}

// Reached notes that the session has come to a moment with the peer, which Next
// has picked. LastByte is for Release to note.
func (p *Peer) Reached(t *Turn, m Moment) {
	if t.measure.Of != m || t.timed != p || t.took >= 0 {
		return // as in most groups: nothing to lock for
	}
	t.took = t.Now - t.began
	if !t.flying {
		return
	}
	p.group.mu.Lock()
	defer p.group.mu.Unlock()

	t.timed, t.flying = nil, false
	p.slot.land(t.Now, t.took)
	p.group.learn(p.slot, t)
}

// arrive ends the measuring of the attempt at a server. Only sessions that went
// well count: otherwise servers that fail fast would be preferred.
func (g *Group) arrive(s *Slot, t *Turn, well bool) {
	if t.timed != s.peer {
		return
	}
	t.timed = nil
	all := t.Now - t.began
	if t.flying {
		t.flying = false
		s.land(t.Now, all)
	}
	if t.measure.Of == LastByte {
		t.took = all
	}
	if well && t.took >= 0 {
		g.learn(s, t)
	}
}

// learn books a time, unless the group has come to go by another one.
func (g *Group) learn(s *Slot, t *Turn) {
	if g.measure.Of == t.measure.Of {
		s.average = moving(s.average, t.took)
	}
}
