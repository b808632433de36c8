package upstream

// State is what a server is fit for at a moment. The words are those of nginx
// where it has one.
type State string

// The states. Those after StateRemoved are of servers with a check or an agent.
const (
	StateUp      State = "up"
	StateDown    State = "down"    // configured so
	StateUnavail State = "unavail" // out for its failures
	StateFull    State = "full"    // has max_conns sessions
	StateRemoved State = "removed" // not configured any more; its sessions go on

	StateChecking  State = "checking"  // new beside others, and not probed yet
	StateSuspect   State = "suspect"   // avoided until a probe has told
	StateBusy      State = "busy"      // out: it answers probes, but takes no mail now
	StateUnhealthy State = "unhealthy" // out by its probes, or by its agent's word
)

// The states that only an agent gives.
const (
	StateDrain State = "drain" // no new sessions
	StateMaint State = "maint" // the same: in maintenance
)

// Status is a server at a moment, for logs.
type Status struct {
	Peer      *Peer
	Name      string // as configured
	Addr      Addr
	Backup    bool
	State     State
	Health    State  // what sessions and probes alone make of it
	Since     int64  // of the state, in seconds of the group's clock; -1: ever since
	Why       string // the state came about; "": it never changed
	Weight    int    // as configured
	Percent   int    // of it, by the agent's word
	Effective int    // what failures have left of it
	Conns     int
	Fails     int
}

// Change is a server's passage from one state to another.
type Change struct {
	Peer     *Peer
	From, To State // equal if only the agent's percentage or maxconn is another
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
	case s.agent != StateUp:
		return s.agent
	case g.probed && s.health != StateUp:
		return s.health
	case !g.probed && s.unavailable(now) && !g.single:
		return StateUnavail
	case s.full():
		return StateFull
	}
	return StateUp
}

// standing is what the agent's word and health have come to.
func (s *Slot) standing() State {
	if s.agent != StateUp {
		return s.agent
	}
	return s.health
}

func (s *Slot) status(state State, backup bool) Status {
	since, why := s.peer.since, s.peer.why
	if s.agent != StateUp {
		since, why = s.peer.agent.since, s.peer.agent.why
	}
	return Status{
		Peer:      s.peer,
		Name:      s.peer.server,
		Addr:      s.peer.key.addr,
		Backup:    backup,
		State:     state,
		Health:    s.health,
		Since:     since,
		Why:       why,
		Weight:    s.peer.weight,
		Percent:   s.peer.agent.percent,
		Effective: s.Effective * s.peer.weight / s.Weight,
		Conns:     s.Conns,
		Fails:     s.fails,
	}
}
