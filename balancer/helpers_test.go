package balancer_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

// server returns the i-th server of a test, called by a letter, with nginx's
// defaults and the given weight.
func server(i, weight int) upstream.Server {
	addr := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
	return upstream.Server{
		Name:        string(rune('a' + i)),
		Addr:        upstream.Addr{TCP: netip.AddrPortFrom(addr, 25)},
		Weight:      weight,
		MaxFails:    1,
		FailTimeout: 10,
	}
}

func servers(weights ...int) []upstream.Server {
	all := make([]upstream.Server, 0, len(weights))
	for i, w := range weights {
		all = append(all, server(i, w))
	}
	return all
}

// config is that of a group by round robin.
func config(servers ...upstream.Server) upstream.Config {
	return by(balancer.Options{Name: "round_robin"}, servers...)
}

// by is that of a group by any method.
func by(o balancer.Options, servers ...upstream.Server) upstream.Config {
	method, err := balancer.New(o)
	if err != nil {
		panic(err)
	}
	return upstream.Config{Name: "mail", Method: method, Servers: servers}
}

// begin starts a session with a key.
func begin(g *upstream.Group, t *upstream.Turn, key string) {
	g.Begin(t)
	t.Session.Key = []byte(key)
}

// index undoes server; -1 for nil.
func index(p *upstream.Peer) int {
	if p == nil {
		return -1
	}
	addr := p.Addr().TCP.Addr().As4()
	return int(addr[2])<<8 | int(addr[3])
}

// session runs one session at now: a server with a letter in dead refuses, the
// next one is tried, and the session ends at once. It returns the letters of
// the servers tried, and "-" if there was none to be had.
func session(g *upstream.Group, now int64, dead string) string {
	var turn upstream.Turn
	var tried strings.Builder
	for g.Begin(&turn); ; {
		p := g.Next(&turn, now)
		if p == nil {
			return tried.String() + "-"
		}
		name := string(rune('a' + index(p)))
		tried.WriteString(name)
		if !strings.Contains(dead, name) {
			p.Connected(now)
			p.Release(&turn, upstream.OutcomeOK, now)
			return tried.String()
		}
		p.Release(&turn, upstream.OutcomeRefused, now)
		if turn.Left() == 0 {
			return tried.String()
		}
	}
}

// sessions runs n sessions at now and returns whom they tried.
func sessions(g *upstream.Group, n int, now int64) string {
	var tried strings.Builder
	for range n {
		tried.WriteString(session(g, now, ""))
	}
	return tried.String()
}

func status(t *testing.T, g *upstream.Group, i int, now int64) upstream.Status {
	t.Helper()
	all := g.Snapshot(now)
	require.Less(t, i, len(all))
	return all[i]
}
