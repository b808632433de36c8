package upstream

// State is what a server is fit for at a moment. The words are those of nginx
// where it has one.
type State string

// The states.
const (
	StateUp      State = "up"
	StateDown    State = "down"    // configured so
	StateUnavail State = "unavail" // out for its failures
	StateFull    State = "full"    // has max_conns sessions
	StateRemoved State = "removed" // not configured any more; its sessions go on
)

// Status is a server at a moment, for logs.
type Status struct {
	Name      string // as configured
	Addr      Addr
	Backup    bool
	State     State
	Weight    int
	Effective int
	Conns     int
	Fails     int
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
		all = append(all, s.status(s.state(now, g.single), false))
	}
	for i := range g.backup.slots {
		s := &g.backup.slots[i]
		all = append(all, s.status(s.state(now, false), true))
	}
	for _, p := range g.retired {
		all = append(all, p.slot.status(StateRemoved, false))
	}
	return all
}

func (s *Slot) state(now int64, single bool) State {
	switch {
	case s.down:
		return StateDown
	case s.unavailable(now) && !single:
		return StateUnavail
	case s.full():
		return StateFull
	}
	return StateUp
}

func (s *Slot) status(state State, backup bool) Status {
	return Status{
		Name:      s.peer.server,
		Addr:      s.peer.key.addr,
		Backup:    backup,
		State:     state,
		Weight:    s.Weight,
		Effective: s.Effective,
		Conns:     s.Conns,
		Fails:     s.fails,
	}
}
