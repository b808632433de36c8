package upstream

// What a server's agent says stands beside what sessions and probes have found:
// the agent's word says whether the server wants sessions and how many, health
// whether it can take them, and it gets some if both are good. Each side goes on
// while the other keeps the server out.

// AgentWord is what a server's agent says. What it leaves out stays as it was.
type AgentWord struct {
	Admin    State  // StateUp ends StateDrain and StateMaint; "": left out
	Health   State  // StateUp or StateUnhealthy; "": left out
	Percent  int    // of the configured weight; 0 drains; Unsaid: left out
	MaxConns int    // lowers max_conns; 0 does not; Unsaid: left out
	Why      string // the agent's own words, printable
}

// Unsaid is a number that an agent has left out.
const Unsaid = -1

// MaxPercent is the most that an agent can make of a weight.
const MaxPercent = 1000

// agent is the standing word of a server's agent, protected by the group's lock.
type agent struct {
	admin    State // StateUp, StateDrain or StateMaint
	health   State // StateUp or StateUnhealthy
	percent  int
	maxConns int

	since int64  // of its verdict; -1: it was always so
	why   string // and by what
}

// speechless is the word of an agent that has not spoken yet, or is none.
var speechless = agent{admin: StateUp, health: StateUp, percent: 100, since: -1}

// take takes over what the agent says.
func (a *agent) take(w AgentWord) {
	if w.Admin != "" {
		a.admin = w.Admin
	}
	if w.Health != "" {
		a.health = w.Health
	}
	if w.Percent != Unsaid {
		a.percent = min(w.Percent, MaxPercent)
	}
	if w.MaxConns != Unsaid {
		a.maxConns = w.MaxConns
	}
}

// verdict is what the word makes of a healthy server.
func (a *agent) verdict() State {
	switch {
	case a.admin != StateUp:
		return a.admin
	case a.percent == 0:
		return StateDrain
	}
	return a.health
}

// AgentSaid books what the server's agent says. Its word stands until it says
// otherwise, or the configuration knows no agents any more.
func (p *Peer) AgentSaid(w AgentWord, now int64) {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()

	if !g.agents {
		return
	}
	g.now = max(g.now, now)
	defer g.serve()
	s, before, from := p.slot, p.agent, p.slot.standing()
	p.agent.take(w)
	g.obey(s)
	if was := before.verdict(); was != s.agent {
		p.agent.since, p.agent.why = now, "agent: "+w.Why
		if s.agent == StateUp && s.health == StateUp {
			s.startSlowly(now)
		}
	}
	if p.agent.percent != before.percent {
		g.primary.reweigh()
		g.backup.reweigh()
	}
	to, why := s.standing(), "agent: "+w.Why
	if s.agent == StateUp && to != StateUp {
		why = p.why // what is left is not the agent's
	}
	if g.onChange != nil && (from != to || p.agent.percent != before.percent || p.agent.maxConns != before.maxConns) {
		g.onChange(Change{Peer: p, From: from, To: to, Why: why})
	}
}

// obey makes the agent's word that of the slot. Where there are agents weights
// count in hundredths, so that a percentage of a weight of 1 is a weight, too. A
// drained server keeps the one that it had. The credits of a rotation stay as
// they are: they add up to nothing, and go on doing so.
func (g *Group) obey(s *Slot) {
	p := s.peer
	weight := p.weight
	switch {
	case !g.agents:
		p.agent = speechless
	case p.agent.percent > 0:
		weight *= p.agent.percent
	default:
		weight = s.Weight
	}
	s.weigh(weight)
	s.agent = p.agent.verdict()
	s.maxConns = p.maxConns
	if most := p.agent.maxConns; most > 0 && (s.maxConns == 0 || most < s.maxConns) {
		s.maxConns = most
	}
}

// reweigh tells a method that has made something of the weights beforehand.
func (tr *tier) reweigh() {
	if m, ok := tr.method.(WeightedMethod); ok {
		m.Reweigh(tr.slots)
	}
}
