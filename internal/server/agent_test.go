package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/healthcheck"
	"smtplb/upstream"
)

// answer is a good question's result.
func answer(t *testing.T, line string) healthcheck.Result {
	t.Helper()
	r, err := healthcheck.ParseAgent([]byte(line))
	require.NoError(t, err)
	return healthcheck.Result{Good: true, Agent: r}
}

// An agent's report goes word by word to the peer, and an answer that is none does
// not.
//
// Fails if a word is taken for another, or what was left out for a 0.
func TestAgentReports(t *testing.T) {
	s, logs := run(t, pool(socket(t), "false\nagent = { port = 9000, interval = '1h' }"))
	h := hearer{s, s.groups["mail"].Snapshot(0)[0].Peer}
	for _, step := range []struct {
		result  healthcheck.Result
		state   upstream.State
		percent int
	}{
		{answer(t, "50% up ready maxconn:7"), upstream.StateUp, 50},
		{healthcheck.Result{}, upstream.StateUp, 50},
		{answer(t, "drain"), upstream.StateDrain, 50},
		{answer(t, "maint"), upstream.StateMaint, 50},
		{answer(t, "ready fail"), upstream.StateUnhealthy, 50},
		{answer(t, "up 0%"), upstream.StateDrain, 0},
		{answer(t, "maxconn:0 2000% what"), upstream.StateUp, 1000},
	} {
		require.Zero(t, h.Probed(step.result))
		st := s.groups["mail"].Snapshot(0)[0]
		require.Equal(t, step.state, st.State)
		require.Equal(t, step.percent, st.Percent)
	}
	require.Equal(t, 5, logs.FilterMessage("server state").Len())
}

// Each server that is not configured to be down has its agent asked, beside what
// probes it; these begin with what probes have found, whatever agents say.
//
// Fails if an agent's word becomes the state that probes begin in.
func TestAgentTargets(t *testing.T) {
	s, _ := run(t, pool(socket(t), "{ interval = '1h' }\nagent = { port = 9000, interval = '1h', send = 'x' }"))
	first, third := s.groups["mail"].Snapshot(0)[0].Peer, s.groups["mail"].Snapshot(0)[2].Peer
	first.Probed(upstream.Probe{State: upstream.StateBusy}, s.engine.Seconds())
	hearer{s, first}.Probed(answer(t, "maint"))
	hearer{s, third}.Probed(answer(t, "down"))
	type target struct {
		agent bool
		state healthcheck.State
	}
	targets := map[string]target{}
	for _, x := range s.targets(map[string]checkPlan{"mail": {}}, map[string]checkPlan{
		"mail": {port: 9000, target: healthcheck.Target{Settings: healthcheck.Settings{Agent: true}}},
	}) {
		targets[x.Settings.Address] = target{x.Settings.Agent, x.State}
	}
	require.Equal(t, map[string]target{
		"192.0.2.1:25":   {false, healthcheck.Busy},
		"192.0.2.1:9000": {true, healthcheck.Up},
		"192.0.2.3:25":   {false, healthcheck.Up},
		"192.0.2.3:9000": {true, healthcheck.Up},
	}, targets)
}
