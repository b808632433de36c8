package upstream_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// queueing is a group with a queue.
func queueing(size int, servers ...upstream.Server) upstream.Config {
	c := config(servers...)
	c.Queue = size
	return c
}

// visitor is a session that waits, if it has to, or has a server.
type visitor struct {
	g     *upstream.Group
	turn  upstream.Turn
	peer  *upstream.Peer
	woken atomic.Bool
	lost  bool // it had to give way
}

// come starts a session from an address. It is refused if it has neither a
// server then nor waits.
func come(g *upstream.Group, from string, now int64) *visitor {
	v := &visitor{g: g}
	g.Begin(&v.turn)
	v.next(from, now)
	return v
}

func (v *visitor) next(from string, now int64) (waits bool) {
	v.woken.Store(false)
	v.peer = v.g.Next(&v.turn, now)
	return v.peer == nil && v.turn.Full() && v.g.Wait(&v.turn, netip.MustParseAddr(from), func() { v.woken.Store(true) })
}

// claim returns the letter of the server that the session has by now, or "-".
func (v *visitor) claim() string {
	if v.woken.Load() {
		var waits bool
		v.peer, waits = v.g.Claim(&v.turn)
		v.lost = v.peer == nil && !waits
		v.woken.Store(false)
	}
	return name(v.peer)
}

func (v *visitor) release(o upstream.Outcome, now int64) {
	p := v.peer
	v.peer = nil
	p.Release(&v.turn, o, now)
}

// The one place of a server goes round among the addresses that wait, in the
// order in which they came, and within each to who came first. All of a /64 are
// one address.
//
// Fails if sessions are served as they come, if an address has more turns for
// more sessions, or if each address of an IPv6 host counts.
func TestQueueTakesTurns(t *testing.T) {
	t.Parallel()
	for came, want := range map[string]string{
		"192.0.2.1": "0",
		"192.0.2.1 192.0.2.1 192.0.2.1 192.0.2.2":                     "0 3 1 2",
		"192.0.2.1 192.0.2.1 192.0.2.2 192.0.2.2 192.0.2.3 192.0.2.1": "0 2 4 1 3 5",
		"192.0.2.1 ::ffff:192.0.2.1 192.0.2.2":                        "0 2 1",
		"2001:db8::1 2001:db8::2 2001:db8::3 2001:db8:0:1::1":         "0 3 1 2",
	} {
		g := upstream.NewGroup(queueing(10, with(server("a"), maxConns(1))))
		holder := come(g, "192.0.2.9", 0)
		require.Equal(t, "a", holder.claim())
		var waiting []*visitor
		for from := range strings.FieldsSeq(came) {
			waiting = append(waiting, come(g, from, 0))
		}
		var served []string
		for range waiting {
			holder.release(upstream.OutcomeOK, 0)
			i := slices.IndexFunc(waiting, func(v *visitor) bool { return v.claim() == "a" })
			require.GreaterOrEqual(t, i, 0, "%s: %s", came, served)
			holder = waiting[i]
			served = append(served, fmt.Sprint(i))
		}
		require.Equal(t, want, strings.Join(served, " "), came)
		require.Zero(t, g.Waiting())
	}
}

// A server that was given to a session which does not want it any more goes to
// the next, and from the last it is free.
//
// Fails if Withdraw drops it, or lets it lie.
func TestGivenToOneThatLeaves(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(queueing(10, with(server("a"), maxConns(1))))
	holder, first, second := come(g, "192.0.2.1", 0), come(g, "192.0.2.2", 0), come(g, "192.0.2.3", 0)
	holder.release(upstream.OutcomeOK, 0)
	require.True(t, first.woken.Load())
	require.False(t, second.woken.Load())
	g.Withdraw(&first.turn, 0)
	require.Equal(t, "-", first.claim())
	require.Equal(t, "a", second.claim())
	require.Equal(t, 1, status(t, g, "a", 0).Conns)
	second.release(upstream.OutcomeOK, 0)
	require.Zero(t, status(t, g, "a", 0).Conns)
}

// Nobody waits for a server that would not be had even if it were not full, nor
// where there is no queue, or room in it, or another server.
//
// Fails if a session waits for what will not come, or does not for what will.
func TestWhoMayWait(t *testing.T) {
	t.Parallel()
	full := with(server("a"), maxConns(1))
	for what, test := range map[string]struct {
		config upstream.Config
		fails  bool // who is served fails its server
		want   bool
	}{
		"full":                      {queueing(1, full), false, true},
		"no queue":                  {config(full), false, false},
		"full backup":               {queueing(1, with(server("b"), down), with(full, backup)), false, true},
		"full, but configured down": {queueing(1, with(full, down)), false, false},
		"out":                       {queueing(1, full, with(server("b"), down)), true, false},
	} {
		g := upstream.NewGroup(test.config)
		one := come(g, "192.0.2.1", 0)
		if test.fails {
			one.release(upstream.OutcomeRefused, 0)
		}
		next := come(g, "192.0.2.2", 0)
		require.Nil(t, next.peer, what)
		require.Equal(t, test.want, next.turn.Full(), what)
		if test.want {
			require.Equal(t, 1, g.Waiting(), what)
			require.False(t, (&visitor{g: g}).begin().next("192.0.2.3", 0), "%s: there is room for one", what)
		}
	}
}

// Fails if a full server is waited for that is out, or that the session has
// tried.
func TestWhatIsNotWorthWaitingFor(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(queueing(1, with(server("a"), maxConns(2)), with(server("b"), down)))
	one := come(g, "192.0.2.1", 0)
	come(g, "192.0.2.1", 0)
	one.release(upstream.OutcomeRefused, 0)
	g.Update(queueing(1, with(server("a"), maxConns(1)), with(server("b"), down)))
	require.Equal(t, upstream.StateUnavail, status(t, g, "a", 0).State)
	late := come(g, "192.0.2.2", 0)
	require.False(t, late.turn.Full(), "it is out")

	g = upstream.NewGroup(queueing(1, with(server("a"), func(s *upstream.Server) { s.MaxConns, s.MaxFails = 1, 0 }), with(server("b"), down)))
	one = come(g, "192.0.2.1", 0)
	one.release(upstream.OutcomeRefused, 0)
	come(g, "192.0.2.1", 0)
	require.False(t, one.next("192.0.2.1", 0), "it was tried")
	require.False(t, one.turn.Full())
}

// Fails if a session that has looked at the backups in vain stays with them.
func TestQueueForPrimaries(t *testing.T) {
	t.Parallel()
	a, b := with(server("a"), maxConns(1)), with(with(server("b"), maxConns(1)), backup)
	g := upstream.NewGroup(queueing(1, a, b))
	one, two := come(g, "192.0.2.1", 0), come(g, "192.0.2.1", 0)
	require.Equal(t, "b", two.claim())
	waiter := come(g, "192.0.2.2", 0)
	one.release(upstream.OutcomeOK, 0)
	require.Equal(t, "a", waiter.claim())
}

// keys notes what sessions are hashed by.
type keys struct{ seen []string }

func (k *keys) Pick(slots []upstream.Slot, s *upstream.Session) int {
	k.seen = append(k.seen, string(s.Key))
	return inOrder{}.Pick(slots, s)
}

// Fails if a session that waits relies on a key that is its worker's.
func TestQueueKeepsKey(t *testing.T) {
	t.Parallel()
	k := &keys{}
	c := queueing(1, with(server("a"), maxConns(1)), with(server("b"), down))
	c.Method = func([]upstream.Server) upstream.Method { return k }
	g := upstream.NewGroup(c)
	holder, waiter, buffer := come(g, "192.0.2.1", 0), &visitor{g: g}, []byte("key")
	waiter.begin().turn.Session.Key = buffer
	require.True(t, waiter.next("192.0.2.2", 0))
	copy(buffer, "KEY")
	holder.release(upstream.OutcomeOK, 0)
	require.Equal(t, "a", waiter.claim())
	require.Equal(t, "key", k.seen[len(k.seen)-1])
}

// A pick with a queue that nobody waits in allocates no more than without: nothing.
//
// Fails if Next makes ready for a wait.
func TestQueueAllocatesNothing(t *testing.T) {
	g := upstream.NewGroup(queueing(10, with(server("a"), maxConns(1))))
	var turn upstream.Turn
	require.Zero(t, testing.AllocsPerRun(100, func() {
		g.Begin(&turn)
		g.Next(&turn, 0).Release(&turn, upstream.OutcomeOK, 0)
	}))
}

// BenchmarkQueueHandOver has a session end for which 1,000 of 100 addresses wait.
func BenchmarkQueueHandOver(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := upstream.NewGroup(queueing(n, with(server("a"), maxConns(1))))
			at := func(i int) string { return fmt.Sprintf("192.0.2.%d", i%100) }
			holder := come(g, at(0), 0)
			var next *visitor
			join := func(i int) {
				v := &visitor{g: g}
				g.Begin(&v.turn)
				g.Next(&v.turn, 0)
				g.Wait(&v.turn, netip.MustParseAddr(at(i)), func() { next = v })
			}
			for i := range n - 1 {
				join(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				join(i)
				holder.release(upstream.OutcomeOK, 0)
				holder = next
				holder.peer, _ = g.Claim(&holder.turn)
			}
		})
	}
}
