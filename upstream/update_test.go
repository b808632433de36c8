package upstream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// Connections, failures and the window stay with the address, under another
// name, at another place, and as a backup; a held peer stays the same pointer.
//
// Fails if Update starts servers afresh or leaves their peers in the old
// array.
func TestUpdateKeepsState(t *testing.T) {
	t.Parallel()
	a, b := server("a"), server("b")
	g := upstream.NewGroup(config(a, b))
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	turn, p = pick(g, 100)
	require.Equal(t, "b", name(p))

	renamed := with(a, func(s *upstream.Server) { s.Name, s.Backup = "mx-a", true })
	g.Update(config(server("c"), b, renamed))

	require.Equal(t, upstream.StateUnavail, status(t, g, "mx-a", 110).State)
	require.Equal(t, upstream.StateUp, status(t, g, "mx-a", 111).State)
	require.Equal(t, 1, status(t, g, "b", 110).Conns)
	p.Release(turn, upstream.OutcomeRefused, 110)
	require.Zero(t, status(t, g, "b", 110).Conns)
	require.Equal(t, upstream.StateUnavail, status(t, g, "b", 110).State)
	again, q := pick(g, 121)
	require.Equal(t, "c", name(q))
	require.Same(t, p, g.Next(again, 121))
}

// Fails if the new limits of a known server are not taken over.
func TestUpdateAppliesParameters(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(server("a"), server("b")))
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	pick(g, 100)

	lenient := with(server("a"), func(s *upstream.Server) { s.MaxFails = 2 })
	g.Update(config(lenient, with(server("b"), maxConns(1)), with(server("c"), down)))
	require.Equal(t, upstream.StateUp, status(t, g, "a", 100).State)
	require.Equal(t, upstream.StateFull, status(t, g, "b", 100).State)
	require.Equal(t, upstream.StateDown, status(t, g, "c", 100).State)
	pick(g, 100)
	turn, _ = pick(g, 100)
	require.Equal(t, 2, turn.Left())
}

// Fails if the effective weight is kept as it was, or reset.
func TestUpdateScalesEffectiveWeight(t *testing.T) {
	t.Parallel()
	weigh := func(weight int) upstream.Server {
		return with(server("a"), func(s *upstream.Server) { s.Weight, s.MaxFails = weight, 4 })
	}
	for _, test := range []struct{ fails, weight, want int }{
		{0, 40, 40}, {0, 3, 3}, {1, 40, 32}, {1, 10, 8}, {1, 1, 0}, {4, 40, 8}, {5, 40, 0},
	} {
		g := upstream.NewGroup(config(weigh(10), server("b")))
		for i := range test.fails {
			turn, p := pick(g, 100+20*int64(i))
			p.Release(turn, upstream.OutcomeRefused, 100+20*int64(i))
		}
		g.Update(config(weigh(test.weight), server("b")))
		require.Equal(t, test.want, status(t, g, "a", 100).Effective, test)
	}
}

// The same address twice is two servers, told apart by their order.
//
// Fails if the address alone is the key.
func TestUpdateSameAddressTwice(t *testing.T) {
	t.Parallel()
	first := with(server("a"), maxConns(1))
	second := with(first, func(s *upstream.Server) { s.Name = "again" })
	g := upstream.NewGroup(config(first, second))
	t1, p1 := pick(g, 100)
	_, p2 := pick(g, 100)
	require.NotSame(t, p1, p2)
	require.Equal(t, p1.Addr(), p2.Addr())
	p1.Release(t1, upstream.OutcomeOK, 100)

	g.Update(config(server("b"), first, second))
	require.Equal(t, 0, status(t, g, "a", 100).Conns)
	require.Equal(t, 1, status(t, g, "again", 100).Conns)
}

// A removed server that sessions hold is still listed, takes its failures, and
// is the same peer when a later reload brings it back; once no session holds
// it, it is forgotten.
//
// Fails if Update drops held servers, or if retired ones are never dropped.
func TestUpdateRetires(t *testing.T) {
	t.Parallel()
	a, b, c := with(server("a"), maxConns(2)), server("b"), server("c")
	g := upstream.NewGroup(config(a, b, c))
	t1, p1 := pick(g, 100)
	t2, p2 := pick(g, 100)
	require.Same(t, p1, p2)

	g.Update(config(b, c))
	require.Equal(t, upstream.StateRemoved, status(t, g, "a", 100).State)
	require.Len(t, g.Snapshot(100), 3)
	require.Equal(t, "bc", walk(g, upstream.OutcomeLocalError, 100))
	p1.Release(t1, upstream.OutcomeRefused, 100)
	require.Equal(t, 1, status(t, g, "a", 100).Conns)

	g.Update(config(c))
	g.Update(config(a, b))
	require.Equal(t, upstream.Status{
		Peer: p1, Name: "a", Addr: a.Addr, State: upstream.StateUnavail, Health: upstream.StateUnavail, Since: 100, Why: "refused",
		Weight: 1, Percent: 100, Effective: 0, Conns: 1, Fails: 1,
	}, status(t, g, "a", 110))
	_, p := pick(g, 111)
	require.Same(t, p1, p)

	g.Update(config(b))
	p.Release(t2, upstream.OutcomeOK, 111)
	require.Len(t, g.Snapshot(111), 2)
	p2.Release(t2, upstream.OutcomeOK, 111)
	require.Len(t, g.Snapshot(111), 1)
	g.Update(config(a, b))
	_, p = pick(g, 111)
	require.Equal(t, "a", name(p))
	require.NotSame(t, p1, p)
}

// A group that a reload leaves with one server makes that one single, and not
// the removed one: its session goes on to the one that is left.
//
// Fails if the single exception is asked of the group without the peer, or if
// it gives the only server to a session that has tried it.
func TestUpdateToSingle(t *testing.T) {
	t.Parallel()
	a, b := server("a"), server("b")
	g := upstream.NewGroup(config(a, b))
	require.Equal(t, "ab", walk(g, upstream.OutcomeRefused, 100))
	turn, p := pick(g, 111)
	require.Equal(t, "a", name(p))

	g.Update(config(b))
	require.Equal(t, upstream.StateUp, status(t, g, "b", 100).State)
	p.Release(turn, upstream.OutcomeRefused, 111)
	require.Equal(t, 1, turn.Left())
	p = g.Next(turn, 111)
	require.Equal(t, "b", name(p))
	p.Release(turn, upstream.OutcomeRefused, 111)
	require.Zero(t, turn.Left())
	require.Zero(t, status(t, g, "b", 111).Fails)

	g.Update(config(a, b))
	require.Equal(t, "ab", walk(g, upstream.OutcomeRefused, 111), "and the exception ends with the next reload")
	require.Equal(t, "-", walk(g, upstream.OutcomeRefused, 111))

	turn, p = pick(g, 122)
	p.Release(turn, upstream.OutcomeRefused, 122)
	require.Equal(t, 1, turn.Left())
	g.Update(config(a))
	require.Equal(t, "-", name(g.Next(turn, 122)))
}
