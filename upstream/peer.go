package upstream

import "net/netip"

// Peer is one address of a group. The pointer stays the same over reloads for
// as long as the address is configured or a session holds it.
type Peer struct {
	group *Group
	key   key
	name  string

	// Protected by group.mu.
	server   string // as configured
	weight   int    // as configured, at least 1
	maxConns int    // as configured
	slot     *Slot  // in the array of its tier, or on its own once removed

	// What picks do not look at, lest it be in their way.
	accuser  netip.Addr // the first client, by hostOf, that failIfTwo has heard since a success
	since    int64      // when slot.health came about; -1: it was always so
	why      string     // and by what
	greeted  int64      // when a session last found that it works
	resorted int64      // when it was last tried although out
	answers  bool       // the last probe was good, and no session has failed since
	agent    agent
}

// longAgo is before any window, on a clock that begins at 0: as to nginx, whose
// clock is that of the day, the zero of its own times is.
const longAgo = -1 << 40

// newPeer is a server without a past, on a clock that begins at 0.
func newPeer(g *Group, k key) *Peer {
	p := &Peer{group: g, key: k, name: k.addr.String(), since: -1, greeted: longAgo, resorted: longAgo, agent: speechless}
	p.slot = &Slot{peer: p, health: StateUp, agent: StateUp, accessed: longAgo, checked: longAgo}
	return p
}

// key tells peers of a group apart. nginx allows the same address several
// times in a group; nth counts them in the order of the configuration.
type key struct {
	addr Addr
	nth  int
}

// Addr returns where to connect to.
func (p *Peer) Addr() Addr { return p.key.addr }

// Name returns the address as logs and $upstream_addr spell it.
func (p *Peer) Name() string { return p.name }

// Group returns the name of the peer's group.
func (p *Peer) Group() string { return p.group.name }

// Established notes that the connection to the peer, which Next has picked, is
// made, whatever may come of it.
func (p *Peer) Established(t *Turn) {
	if t.pending == nil {
		return // as most are: nothing to lock for
	}
	p.group.mu.Lock()
	defer p.group.mu.Unlock()

	p.settle(t)
	p.group.serve()
}

// settle takes the turn's connect out of the pending ones.
func (p *Peer) settle(t *Turn) {
	if t.pending == p {
		t.pending = nil
		p.slot.pending--
	}
}

// Connected notes that the server works (nginx's NOTIFY_CONNECT): one that was
// out is back from here on, not only when the session ends.
func (p *Peer) Connected(now int64) {
	p.group.mu.Lock()
	defer p.group.mu.Unlock()

	p.greeted = now
	p.group.pass(p.slot, now)
	p.group.serve()
}

// Release gives back a peer that Next returned, and one try of the turn.
//
// Without a check, the only server of a group is never out: its failures are
// forgotten, and the turn has no try left. An ignored outcome leaves all but
// the session count as it was: if that session was the one to try a failed
// server again, the next one does so after another fail_timeout. The place is
// for those who wait for one, if there are any.
//
// See ngx_stream_upstream_free_round_robin_peer.
func (p *Peer) Release(t *Turn, o Outcome, now int64) {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()

	g.observe(t, now)
	p.release(t, o, now)
	g.serve()
}

func (p *Peer) release(t *Turn, o Outcome, now int64) {
	g, s := p.group, p.slot
	if s.Conns == 0 {
		panic("upstream: BUG: peer " + p.name + " released but not held")
	}
	p.settle(t)
	t.held--
	g.arrive(s, t, g.verdict(o) == pass)
	s.Conns--
	if s.Conns == 0 && len(g.retired) > 0 {
		g.forget(p)
	}
	switch alone := g.alone(p); {
	case alone && !g.probed:
		t.tries, s.fails = 0, 0
		return
	case alone:
		t.tries = 0
	case t.tries > 0:
		t.tries--
	}
	g.judge(s, t, o, now)
}
