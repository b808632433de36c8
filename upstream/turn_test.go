package upstream_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// refuseAll lets failures never put a server out: only the turn remembers.
func refuseAll(names string) []upstream.Server {
	var servers []upstream.Server
	for n := range strings.SplitSeq(names, "") {
		servers = append(servers, with(server(n), func(s *upstream.Server) { s.MaxFails = 0 }))
	}
	return servers
}

// Fails if a turn forgets the first, the second or a later server tried.
func TestTurnTriesEachServerOnce(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(refuseAll("abcde")...))
	require.Equal(t, "abcde", walk(g, upstream.OutcomeRefused, 100))
	require.Equal(t, "abcde", walk(g, upstream.OutcomeLocalError, 100))
}

// Fails if Limit does not lower the tries, or raises them.
func TestTurnLimit(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(refuseAll("abc")...))
	var turn upstream.Turn
	for _, test := range []struct{ limit, want int }{{0, 3}, {1, 1}, {2, 2}, {9, 3}} {
		g.Begin(&turn)
		turn.Limit(test.limit)
		require.Equal(t, test.want, turn.Left())
	}
}

// Fails if a session returns from the backups to the primaries.
func TestTurnStaysWithTheBackups(t *testing.T) {
	t.Parallel()
	a := with(server("a"), maxConns(1))
	g := upstream.NewGroup(config(a, with(server("b"), backup), with(server("c"), backup)))
	holder, held := pick(g, 100)
	turn, p := pick(g, 100)
	require.Equal(t, "b", name(p))
	held.Release(holder, upstream.OutcomeOK, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	require.Equal(t, "c", name(g.Next(turn, 100)))
}

// A reload in the middle of a turn: a has been tried and becomes a backup, b
// has been tried and is gone, c is new.
//
// Fails if a turn forgets whom it has tried when it goes over to the backups, as
// it does in nginx, where servers do not change places under a session.
func TestTurnSurvivesUpdate(t *testing.T) {
	t.Parallel()
	servers := refuseAll("abcd")
	a, b, c, d := servers[0], servers[1], servers[2], servers[3]
	g := upstream.NewGroup(config(a, b, d))
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	p = g.Next(turn, 100)
	require.Equal(t, "b", name(p))

	g.Update(config(c, with(a, backup), with(d, backup)))
	p.Release(turn, upstream.OutcomeRefused, 100)
	p = g.Next(turn, 100)
	require.Equal(t, "c", name(p))
	p.Release(turn, upstream.OutcomeRefused, 100)
	require.Zero(t, turn.Left(), "as many as at the beginning")
	require.Equal(t, "d", name(g.Next(turn, 100)))
	require.Equal(t, "-", name(g.Next(turn, 100)))
}

// Fails if the turn has room for fewer than two servers, or a pick allocates.
func TestTurnAllocations(t *testing.T) {
	g := upstream.NewGroup(config(refuseAll("abc")...))
	var turn upstream.Turn
	attempts := func(n int) func() {
		return func() {
			g.Begin(&turn)
			for range n {
				p := g.Next(&turn, 100)
				p.Connected(100)
				p.Release(&turn, upstream.OutcomeRefused, 100)
			}
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, attempts(2)))
	require.Equal(t, 1.0, testing.AllocsPerRun(100, attempts(3)))
}
