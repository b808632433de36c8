package upstream

import "net/netip"

// Turn is one session's way through a group: whom it has tried, how many tries
// it has left, and whether it has gone over to the backup servers. It lives in
// its session by value and may be used again after another Begin. It names
// peers, not positions, and so survives a Group.Update. It allocates only for
// the third server tried and beyond.
type Turn struct {
	// Client is the session's client, if the servers learn who that is; else
	// the zero Addr. Set after Begin.
	Client netip.Addr

	// Session is for the method; see its Key.
	Session Session

	// Now is the present in ms, on a clock that all turns share. Set before the
	// turn is given to Next, Reached and Release, if the method is a TimedMethod.
	Now int64

	tries   int
	backup  bool
	held    int      // servers picked and not released
	wait    bool     // see MustWait
	full    bool     // see Full
	waiting *waiter  // of the queue; nil: it does not wait
	resorts int      // servers tried that are out
	pending *Peer    // counts the connect to it among its pending ones
	first   [2]*Peer // tried, in order; nil: none yet
	rest    []*Peer  // tried after those

	measure Measure // what is measured of the latest attempt
	flying  bool    // counted in its peer's times as in flight
	timed   *Peer   // whose time is taken; nil: nobody's, or it has been
	began   int64   // the attempt, by Now
	took    int64   // ms from there to the moment; -1: not yet
}

// Left returns how many tries are left, the running one included. When it is 0
// after a Release, the session has failed.
func (t *Turn) Left() int { return t.tries }

// Limit lowers the tries left to n, the first one included
// (proxy_next_upstream_tries); 0 is no limit.
func (t *Turn) Limit(n int) {
	if n > 0 {
		t.tries = min(t.tries, n)
	}
}

// MustWait reports, after Next has found no server, that there is one which is
// fit, but has enough connects under way: the session should ask again soon.
func (t *Turn) MustWait() bool { return t.wait }

// Full reports, after Next has found no server, that there is one which is fit,
// but has max_conns sessions: the session may Wait for it. It is for groups with
// a queue.
func (t *Turn) Full() bool { return t.full }

// fresh reports that the session has tried no server yet.
func (t *Turn) fresh() bool { return t.first[0] == nil }

func (t *Turn) remember(p *Peer) {
	for i := range t.first {
		if t.first[i] == nil {
			t.first[i] = p
			return
		}
	}
	t.rest = append(t.rest, p)
}

// exclude makes those tried before ineligible, wherever an Update may have put
// them since. The caller holds their group's lock.
func (t *Turn) exclude() {
	for _, p := range t.first {
		if p != nil {
			p.slot.Eligible = false
		}
	}
	for _, p := range t.rest {
		p.slot.Eligible = false
	}
}
