package upstream

// State is what a server is fit for at a moment. The words are those of nginx
// where it has one.
type State string

// The states. Those after StateRemoved are of servers with a check only.
const (
	StateUp      State = "up"
	StateDown    State = "down"    // configured so
	StateUnavail State = "unavail" // out for its failures
	StateFull    State = "full"    // has max_conns sessions
	StateRemoved State = "removed" // not configured any more; its sessions go on

	StateChecking  State = "checking"  // new beside others, and not probed yet
	StateSuspect   State = "suspect"   // avoided until a probe has told
	StateBusy      State = "busy"      // out: it answers probes, but takes no mail now
	StateUnhealthy State = "unhealthy" // out by its probes
)

// Status is a server at a moment, for logs.
type Status struct {
	Peer      *Peer
	Name      string // as configured
	Addr      Addr
	Backup    bool
	State     State
	Since     int64  // of the state, in seconds of the group's clock; -1: ever since
	Why       string // the state came about; "": it never changed
	Weight    int
	Effective int
	Conns     int
	Fails     int
}

// Change is a server's passage from one state to another.
type Change struct {
	Peer     *Peer
	From, To State
	Why      string
}

// Snapshot returns the status of every server: the primaries, the backups,
// then the removed ones that sessions still hold, each in order of
// configuration.
func (g *Group) Snapshot(now int64) []Status {
	g.mu.Lock()
	defer g.mu.Unlock()

	all := make([]Status, 0, len(g.primary.slots)+len(g.backup.slots)+len(g.retired))
	for i := range g.primary.slots {
		s := &g.primary.slots[i]
		all = append(all, s.status(g.state(s, now), false))
	}
	for i := range g.backup.slots {
		s := &g.backup.slots[i]
		all = append(all, s.status(g.state(s, now), true))
	}
	for _, p := range g.retired {
		all = append(all, p.slot.status(StateRemoved, false))
	}
	return all
}

// state is a server's state at a moment. What is configured comes before what
// was found out; without a check a server is unavailable by the clock.
func (g *Group) state(s *Slot, now int64) State {
	switch {
	case s.down:
		return StateDown
	case g.probed && s.health != StateUp:
		return s.health
	case !g.probed && s.unavailable(now) && !g.single:
		return StateUnavail
	case s.full():
		return StateFull
	}
	return StateUp
}

func (s *Slot) status(state State, backup bool) Status {
	return Status{
		Peer:      s.peer,
		Name:      s.peer.server,
		Addr:      s.peer.key.addr,
		Backup:    backup,
		State:     state,
		Since:     s.peer.since,
		Why:       s.peer.why,
		Weight:    s.Weight,
		Effective: s.Effective,
		Conns:     s.Conns,
		Fails:     s.fails,
	}
}
