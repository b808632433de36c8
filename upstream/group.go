package upstream

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Server is one address of a group, with nginx's parameters.
type Server struct {
	Name        string // as configured
	Addr        Addr
	Weight      int   // 0 is 1, as a Method gets to see it
	MaxConns    int   // 0: no limit
	MaxFails    int   // 0: failures never take it out
	FailTimeout int64 // seconds
	SlowStart   int64 // seconds from a recovery to the full share; 0: at once
	MaxPending  int   // connects under way while it recovers or is in doubt; 0: no limit
	Backup      bool
	Down        bool
}

// Config is what a group is made of.
type Config struct {
	Name    string
	Method  func([]Server) Method // called with the primaries, and with the backups
	Servers []Server              // a host name with several addresses is several servers
	Checked bool                  // servers are probed: somebody calls Peer.Probed
	Agents  bool                  // servers have agents: somebody calls Peer.AgentSaid
	Queue   int                   // sessions that may wait while all servers are full; see Wait

	// DefaultDown has a new server begin as StateUnhealthy, if Checked.
	DefaultDown bool

	// OnChange is told of every change of a server's state, in their order. It
	// is called with the group locked: it must neither block nor use the group.
	OnChange func(Change)

	// Probe asks for a probe of a server at once, if Checked: sessions have met
	// with trouble there, or find all servers out. The same holds for it.
	Probe func(*Peer)
}

// Group is a named group of servers, the upstream{} of nginx.
type Group struct {
	name  string
	tries atomic.Int64 // servers that are not down, primary and backup

	mu       sync.Mutex // protects below, and the slot of every peer
	primary  tier
	backup   tier
	single   bool    // exactly one primary, down or not, and no backup
	retired  []*Peer // removed from the configuration, but still held by sessions
	probed   bool
	agents   bool
	measure  Measure // by the method
	least    fitness // of the servers that a session may be given
	onChange func(Change)
	askProbe func(*Peer)
	asked    int64 // when all servers were last to be probed; see resort
	queue    queue
	now, ms  int64 // the latest present that was told, see observe
}

// tier is the primary or the backup servers of a group. Its slots do not move
// between two Updates: peers point into them.
type tier struct {
	method Method
	slots  []Slot
}

// NewGroup makes a group whose servers have no past.
func NewGroup(c Config) *Group {
	g := &Group{name: c.Name}
	g.Update(c)
	return g
}

// Lone makes the group of a session whose server is known by nothing but its
// address. Nobody else has it, and as its only server is never out, it has no past
// to be remembered (ngx_stream_upstream_create_round_robin_peer).
func Lone(a Addr) *Group {
	never := func([]Server) Method { return nil } // is a method asked about one server
	return NewGroup(Config{Name: a.String(), Method: never, Servers: []Server{{Name: a.String(), Addr: a}}})
}

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// Update gives the group a new configuration at one stroke. A server's live
// state stays with its address, and with its place among equal addresses; the
// effective weight keeps its share of a changed weight, and an agent's word
// stands while there are agents. A server that is gone keeps its state while
// sessions hold it, and so finds it again if it returns before they have ended,
// but for its health, which a check finds out anew. The name of a group does not
// change.
func (g *Group) Update(c Config) {
	primary, backup := c.tiers() // may take its time
	g.mu.Lock()
	defer g.mu.Unlock()

	before := g.everyone()
	known := make(map[key]*Peer, len(before))
	for _, p := range before {
		known[p.key] = p
	}

	g.agents = c.Agents
	measure := Measure{}
	if m, ok := primary.method.(TimedMethod); ok {
		measure = m.Measure()
	}
	least := fit
	if c.Checked {
		least = doubtful
	}
	nth := make(map[Addr]int, len(c.Servers))
	tries := 0
	for _, sc := range c.Servers {
		k := key{sc.Addr, nth[sc.Addr]}
		nth[sc.Addr]++
		p := known[k]
		if p == nil {
			p = newPeer(g, k)
			p.slot.down = len(before) > 0 // as if it had been: the others have a past that speaks for them
			if c.Checked && c.DefaultDown {
				p.reset(StateUnhealthy)
			}
		}
		delete(known, k)
		p.server = sc.Name
		switch {
		case !c.Checked && p.slot.health != StateUnavail && p.slot.health != StateUp:
			p.reset(StateUp) // nobody would find out
		case !c.Checked || !p.slot.down || sc.Down:
		case c.DefaultDown:
			p.reset(StateUnhealthy)
		default:
			p.reset(StateChecking) // nothing was found out while it was down, or gone
		}
		s := *p.slot
		s.configure(sc)
		g.obey(&s)
		if measure.Of != g.measure.Of {
			s.average = 0
		}
		if s.slowStart > 0 {
			least = max(least, warming)
		}
		if sc.Backup {
			backup.slots = append(backup.slots, s)
		} else {
			primary.slots = append(primary.slots, s)
		}
		if !sc.Down {
			tries++
		}
	}

	g.retired = nil
	for _, p := range before {
		if known[p.key] == nil {
			continue
		}
		s := *p.slot  // a turn may still name the peer: leave it a slot, not the old array
		s.down = true // so that a check looks at it first, should it return
		p.slot = &s
		if s.Conns > 0 {
			g.retired = append(g.retired, p)
		}
	}

	primary.replace(&g.primary)
	backup.replace(&g.backup)
	g.primary, g.backup = primary, backup
	if g.agents {
		g.primary.reweigh()
		g.backup.reweigh()
	}
	g.single = len(primary.slots) == 1 && len(backup.slots) == 0
	g.probed, g.least, g.onChange = c.Checked, least, c.OnChange
	g.askProbe, g.measure = c.Probe, measure
	g.tries.Store(int64(tries))
	g.queue.limit = c.Queue
	g.serve()
}

// tiers returns both tiers with their methods and without their slots.
func (c *Config) tiers() (primary, backup tier) {
	var primaries, backups []Server
	for _, s := range c.Servers {
		s.Weight = max(s.Weight, 1)
		if s.Backup {
			backups = append(backups, s)
		} else {
			primaries = append(primaries, s)
		}
	}
	return tier{method: c.Method(primaries)}, tier{method: c.Method(backups)}
}

// everyone returns the peers of the primaries, of the backups, and the
// retired ones.
func (g *Group) everyone() []*Peer {
	var all []*Peer
	for _, tr := range []*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			all = append(all, tr.slots[i].peer)
		}
	}
	return append(all, g.retired...)
}

// replace puts tr in the place of old: its peers point into it from now on. A
// rotation that has kept its servers and weights goes on where it was. Any
// other begins anew, as all do when nginx reloads: credit earned beside other
// servers, or by another weight, could favour one server for a whole period.
func (tr *tier) replace(old *tier) {
	same := slices.EqualFunc(tr.slots, old.slots, func(a, b Slot) bool {
		return a.peer == b.peer && a.Weight == b.Weight
	})
	for i := range tr.slots {
		s := &tr.slots[i]
		s.peer.slot = s
		if !same {
			s.Current = 0
		}
	}
}

// Begin starts a session's turn. It has as many tries as there are servers
// that are not down, backups included.
func (g *Group) Begin(t *Turn) {
	*t = Turn{tries: int(g.tries.Load())}
}

// Next picks a server for the session and counts the session as one of its
// connections. A session tries no server twice. When no primary may be had,
// because it was tried, has failed, is full or down, the session goes over to
// the backups and stays with them. Nil means no live upstreams, or if
// Turn.MustWait or Turn.Full, none for the moment; nothing is reset by that.
// Sessions in the queue have had their choice before.
//
// See ngx_stream_upstream_get_round_robin_peer. Where servers are checked or
// start slowly, those in doubt or warming are left for last, backups included.
func (g *Group) Next(t *Turn, now int64) *Peer {
	g.mu.Lock()
	defer g.mu.Unlock()

	g.observe(t, now)
	g.serve()
	s, wait := g.search(t, now)
	full := s == nil && g.queue.limit > 0 && g.full(t)
	t.wait, t.full = wait, full
	if s == nil && !wait && !full && t.held == 0 { // a server that may yet take the session is better than one that is out
		s = g.resort(t, now)
	}
	if s == nil {
		return nil
	}
	return g.seat(s, t)
}

// seat notes in the turn that it has a server.
func (g *Group) seat(s *Slot, t *Turn) *Peer {
	t.wait, t.full = false, false
	t.held++
	g.depart(s, t)
	t.remember(s.peer)
	return s.peer
}

// search picks among the fittest. If it finds none, wait tells that one was
// left out for being crowded.
func (g *Group) search(t *Turn, now int64) (s *Slot, wait bool) {
	for least := fit; least <= g.least; least++ {
		if !t.backup || least > fit {
			s, crowded := g.pickPrimary(t, least, now)
			if s != nil {
				return s, false
			}
			wait = wait || crowded
		}
		if len(g.backup.slots) > 0 {
			t.backup = true
			s, crowded := g.pick(&g.backup, t, least, now)
			if s != nil {
				return s, false
			}
			wait = wait || crowded
		}
	}
	return nil, wait
}

// pickPrimary lets the only server of a group without checks pass whatever its
// failures; its weights and windows stay untouched.
func (g *Group) pickPrimary(t *Turn, least fitness, now int64) (s *Slot, crowded bool) {
	if !g.single || g.probed {
		return g.pick(&g.primary, t, least, now)
	}
	s = &g.primary.slots[0]
	s.Eligible = g.fitness(s, now) == fit
	t.exclude()
	if !s.Eligible {
		return nil, false
	}
	s.Conns++
	return s, false
}

// alone reports that p is the only server of the group. One that a reload has
// removed is not, even if it left a single one behind.
func (g *Group) alone(p *Peer) bool {
	return g.single && g.primary.slots[0].peer == p
}

// forget drops a removed peer that no session holds any more.
func (g *Group) forget(p *Peer) {
	g.retired = slices.DeleteFunc(g.retired, func(r *Peer) bool { return r == p })
}
