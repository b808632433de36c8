package upstream_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// inOrder chooses the first eligible server, so that these tests speak of
// eligibility alone.
type inOrder struct{}

func (inOrder) Pick(slots []upstream.Slot, _ *upstream.Session) int {
	for i := range slots {
		if slots[i].Eligible {
			return i
		}
	}
	return -1
}

func newInOrder([]upstream.Server) upstream.Method { return inOrder{} }

// server returns a server called by a letter, with nginx's defaults.
func server(name string) upstream.Server {
	port := 10000 + uint16(name[0])
	return upstream.Server{
		Name:        name,
		Addr:        upstream.Addr{TCP: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)},
		Weight:      1,
		MaxFails:    1,
		FailTimeout: 10,
	}
}

func with(s upstream.Server, set func(*upstream.Server)) upstream.Server {
	set(&s)
	return s
}

func backup(s *upstream.Server) { s.Backup = true }
func down(s *upstream.Server)   { s.Down = true }

func maxConns(n int) func(*upstream.Server) {
	return func(s *upstream.Server) { s.MaxConns = n }
}

func config(servers ...upstream.Server) upstream.Config {
	return upstream.Config{Name: "mail", Method: newInOrder, Servers: servers}
}

// name returns the letter of a peer, or "-" for nil.
func name(p *upstream.Peer) string {
	if p == nil {
		return "-"
	}
	return string(rune(p.Addr().TCP.Port() - 10000))
}

// walk fails every server that a new session is given until there is none, and
// returns their names and a final "-", or less if the tries end first.
func walk(g *upstream.Group, o upstream.Outcome, now int64) string {
	var t upstream.Turn
	var tried string
	for g.Begin(&t); ; {
		p := g.Next(&t, now)
		tried += name(p)
		if p == nil {
			return tried
		}
		p.Release(&t, o, now)
		if t.Left() == 0 {
			return tried
		}
	}
}

// pick starts a session and returns its server, which stays held.
func pick(g *upstream.Group, now int64) (*upstream.Turn, *upstream.Peer) {
	t := new(upstream.Turn)
	g.Begin(t)
	return t, g.Next(t, now)
}

// status returns the status of the server called name.
func status(t *testing.T, g *upstream.Group, name string, now int64) upstream.Status {
	t.Helper()
	for _, s := range g.Snapshot(now) {
		if s.Name == name {
			return s
		}
	}
	require.Fail(t, "no such server", name)
	return upstream.Status{}
}
