package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"smtplb/conf"
	"smtplb/healthcheck"
	"smtplb/upstream"
)

// run starts a server on a configuration; its probes find nobody.
func run(t *testing.T, config string) (*Server, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := New(Options{Workers: 1, Pipes: 4, MaxSessions: 10, Logger: zap.New(core)})
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop(0, nil) })
	apply(t, s, config)
	return s, logs
}

// apply makes a configuration the running one.
func apply(t *testing.T, s *Server, config string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "smtplb.toml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	c, err := conf.Load(path)
	require.NoError(t, err)
	next, err := s.Prepare(t.Context(), c)
	require.NoError(t, err)
	next.Commit()
}

// socket is where the server of a test listens.
func socket(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

// pool is a group of three servers with a check, the second down, and who
// passes to it.
func pool(socket, check string) string {
	return "[[upstream]]\nname = 'mail'\ncheck = " + check + `
servers = ["192.0.2.1:25", { address = "192.0.2.2:25", down = true }, "192.0.2.3:25"]
[[server]]
listen = "unix:` + socket + `"
proxy_pass = "mail"
`
}

// The summary names who is not up, since when and why, and leaves out what is
// configured so; where all are up there is none.
//
// Fails if a server that is down by its configuration is named, or one that is
// out is not.
func TestSummary(t *testing.T) {
	s, logs := run(t, pool(socket(t), "{ interval = '1h' }"))
	s.summarise()
	require.Zero(t, logs.FilterMessage("servers not up").Len())

	p := s.groups["mail"].Snapshot(0)[2].Peer
	p.Probed(upstream.Probe{State: upstream.StateUnhealthy, Why: "connect: refused"}, s.engine.Seconds())
	s.summarise()
	lines := logs.FilterMessage("servers not up").All()
	require.Len(t, lines, 1)
	require.Equal(t, int64(1), lines[0].ContextMap()["count"])
	require.Equal(t, "192.0.2.3:25 in mail: unhealthy for 0s (connect: refused)", lines[0].ContextMap()["servers"])

	changes := logs.FilterMessage("server state").All()
	require.Len(t, changes, 1)
	require.Equal(t, map[string]any{
		"upstream": "mail", "peer": "192.0.2.3:25", "from": "up", "to": "unhealthy", "why": "connect: refused",
	}, changes[0].ContextMap())
}

// The probes begin where the group stands: a reload that adds default_down makes
// nobody out who is up, nor does one bring back who is out.
//
// Fails if the checker begins with a state of its own, or probes who is down.
func TestProbesBeginWhereTheGroupStands(t *testing.T) {
	s, _ := run(t, pool(socket(t), "{ interval = '1h' }"))
	for i, state := range []upstream.State{upstream.StateUnhealthy, upstream.StateDown, upstream.StateBusy} {
		s.groups["mail"].Snapshot(0)[i].Peer.Probed(upstream.Probe{State: state}, s.engine.Seconds())
	}
	apply(t, s, pool(socket(t), "{ interval = '1h', default_down = true }"))
	states := map[string]healthcheck.State{}
	for _, target := range s.targets(map[string]checkPlan{"mail": {port: 2525}}, nil) {
		states[target.Settings.Address] = target.State
	}
	require.Equal(t, map[string]healthcheck.State{
		"192.0.2.1:2525": healthcheck.Down,
		"192.0.2.3:2525": healthcheck.Busy,
	}, states)
}
