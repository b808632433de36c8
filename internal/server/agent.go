package server

import (
	"time"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/healthcheck"
	"smtplb/upstream"
)

// hearer takes what the agent of a peer says to its group. It is comparable as a
// watcher is, and another Reporter than that of the same peer.
type hearer struct {
	server *Server
	peer   *upstream.Peer
}

// Probed implements healthcheck.Reporter. An agent that says nothing, or nothing
// that is understood, changes nothing: whether the server can be reached is for
// the probes of a check to find out.
func (h hearer) Probed(r healthcheck.Result) (wanted time.Duration) {
	if !r.Good {
		return 0
	}
	if r.Agent.Unknown != "" {
		h.server.logOf(h.peer.Group()).Debug("agent says an unknown word", zap.String("upstream", h.peer.Group()),
			zap.String("peer", h.peer.Name()), zap.String("word", r.Agent.Unknown))
	}
	h.peer.AgentSaid(wordOf(r.Agent), h.server.engine.Seconds())
	return 0
}

// wordOf says an agent's report in the terms of package upstream.
func wordOf(r healthcheck.AgentReport) upstream.AgentWord {
	w := upstream.AgentWord{
		Admin:    agentAdmin[r.Admin],
		Health:   agentHealth[r.Health],
		Percent:  upstream.Unsaid,
		MaxConns: upstream.Unsaid,
		Why:      r.Words,
	}
	if r.Percent != healthcheck.Unsaid {
		w.Percent = r.Percent
	}
	if r.MaxConns != healthcheck.Unsaid {
		w.MaxConns = r.MaxConns
	}
	return w
}

var (
	agentAdmin = map[healthcheck.AgentAdmin]upstream.State{
		healthcheck.AdminReady: upstream.StateUp,
		healthcheck.AdminDrain: upstream.StateDrain,
		healthcheck.AdminMaint: upstream.StateMaint,
	}
	agentHealth = map[healthcheck.AgentHealth]upstream.State{
		healthcheck.HealthUp:   upstream.StateUp,
		healthcheck.HealthDown: upstream.StateUnhealthy,
	}
)

// agentOf is how the agents of an upstream are asked.
func agentOf(u conf.Upstream) checkPlan {
	return checkPlan{port: u.Agent.Port, target: healthcheck.Target{
		Settings: healthcheck.Settings{Agent: true, Send: u.Agent.Send, Timeout: u.Agent.Timeout},
		Upstream: u.Name,
		Interval: u.Agent.Interval,
	}}
}
