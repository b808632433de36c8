package upstream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

func (v *visitor) begin() *visitor {
	v.g.Begin(&v.turn)
	return v
}

// What makes room is told to who waits: an end, a backup, a change of the
// configuration, a good probe, a connect or a greeting, and for what only time
// brings, Poll or a newcomer.
//
// Fails if one of them is forgotten.
func TestWhatWakes(t *testing.T) {
	t.Parallel()
	a := with(server("a"), maxConns(1))
	b := with(server("b"), maxConns(1))
	for what, test := range map[string]struct {
		config upstream.Config
		wake   func(*upstream.Group, *visitor)
		want   string
	}{
		"an end":            {queueing(1, a), func(_ *upstream.Group, v *visitor) { v.release(upstream.OutcomeOK, 1) }, "a"},
		"a failure":         {queueing(1, with(a, func(s *upstream.Server) { s.MaxFails = 0 })), func(_ *upstream.Group, v *visitor) { v.release(upstream.OutcomeRefused, 1) }, "a"},
		"a new server":      {queueing(1, a), func(g *upstream.Group, _ *visitor) { g.Update(queueing(1, a, b)) }, "b"},
		"a new backup":      {queueing(1, a), func(g *upstream.Group, _ *visitor) { g.Update(queueing(1, a, with(b, backup))) }, "b"},
		"more for a server": {queueing(1, a), func(g *upstream.Group, _ *visitor) { g.Update(queueing(1, with(a, maxConns(2)))) }, "a"},
		"not down":          {queueing(1, a, with(b, down)), func(g *upstream.Group, _ *visitor) { g.Update(queueing(1, a, b)) }, "b"},
		"the queue goes":    {queueing(1, a), func(g *upstream.Group, v *visitor) { g.Update(config(a)); v.release(upstream.OutcomeOK, 1) }, "a"},
	} {
		g := upstream.NewGroup(test.config)
		holder, waiter := come(g, "192.0.2.1", 0), come(g, "192.0.2.2", 0)
		require.Equal(t, "-", waiter.claim(), what)
		test.wake(g, holder)
		require.Equal(t, test.want, waiter.claim(), what)
		require.Zero(t, g.Waiting(), what)
	}

	// By the clock: b is out for its failure, and let in again.
	g := upstream.NewGroup(queueing(1, a, b))
	holder, failed := come(g, "192.0.2.1", 0), come(g, "192.0.2.1", 0)
	failed.release(upstream.OutcomeRefused, 0)
	waiter := come(g, "192.0.2.2", 0)
	g.Poll(10)
	require.Equal(t, "-", waiter.claim())
	g.Poll(11)
	require.Equal(t, "b", waiter.claim())
	holder.release(upstream.OutcomeOK, 11)

	// The same, and who notices is a newcomer, who then waits.
	g = upstream.NewGroup(queueing(2, a, b))
	come(g, "192.0.2.1", 0)
	come(g, "192.0.2.1", 0).release(upstream.OutcomeRefused, 0)
	waiter = come(g, "192.0.2.2", 0)
	newcomer := come(g, "192.0.2.3", 11)
	require.Equal(t, "b", waiter.claim())
	require.Equal(t, "-", newcomer.claim())

	// It may have two, but only one until that is connected.
	g = upstream.NewGroup(queueing(2, a, with(b, maxConns(2))))
	come(g, "192.0.2.1", 0)
	come(g, "192.0.2.1", 0).release(upstream.OutcomeRefused, 0)
	first := come(g, "192.0.2.2", 11)
	waiter = come(g, "192.0.2.3", 11)
	require.Equal(t, "b", first.claim())
	require.Equal(t, "-", waiter.claim())
	first.peer.Connected(11)
	require.Equal(t, "b", waiter.claim())

	// By a connect that is made to one with as many under way as it may have.
	c := queueing(2, a, with(b, func(s *upstream.Server) { s.MaxConns, s.MaxPending, s.SlowStart = 2, 1, 10 }))
	c.Checked = true
	g = upstream.NewGroup(c)
	recovering := g.Snapshot(0)[1].Peer
	recovering.Probed(upstream.Probe{State: upstream.StateUnhealthy}, 0)
	recovering.Probed(upstream.Probe{Good: true, State: upstream.StateUp}, 1)
	come(g, "192.0.2.1", 1)
	first = come(g, "192.0.2.1", 1)
	require.Equal(t, "b", first.claim())
	waiter = come(g, "192.0.2.2", 1)
	require.Equal(t, "-", waiter.claim())
	require.Equal(t, 1, g.Waiting())
	first.peer.Established(&first.turn)
	require.Equal(t, "b", waiter.claim())

	// By a probe.
	c = queueing(1, a, b)
	c.Checked = true
	g = upstream.NewGroup(c)
	out := g.Snapshot(0)[1].Peer
	out.Probed(upstream.Probe{State: upstream.StateUnhealthy}, 0)
	come(g, "192.0.2.1", 0)
	waiter = come(g, "192.0.2.2", 0)
	require.Equal(t, "-", waiter.claim(), "not for resort: a is full, and works")
	out.Probed(upstream.Probe{Good: true, State: upstream.StateUp}, 1)
	require.Equal(t, "b", waiter.claim())
}

// One address has filled the queue. Whoever else comes takes the place of its
// latest session, until it has no more of them than the others. A session that
// comes back finds room in the same way, and has its place in front.
//
// Fails if one address can fill the queue, if who came first gives way, or if a
// session that has given way is served.
func TestQueueGivesWay(t *testing.T) {
	t.Parallel()
	never := func(s *upstream.Server) { s.MaxConns, s.MaxFails = 1, 0 }
	g := upstream.NewGroup(queueing(4, with(server("a"), never), with(server("b"), never)))
	holder, other := come(g, "192.0.2.9", 0), come(g, "192.0.2.9", 0)
	var hoard [4]*visitor
	for i := range hoard {
		hoard[i] = come(g, "192.0.2.1", 0)
	}
	require.False(t, (&visitor{g: g}).begin().next("192.0.2.1", 0), "all room is its own already")
	second := come(g, "192.0.2.2", 0)
	third := come(g, "192.0.2.2", 0)
	require.False(t, (&visitor{g: g}).begin().next("192.0.2.2", 0))
	require.Equal(t, 4, g.Waiting())
	for i, v := range hoard {
		require.Equal(t, "-", v.claim())
		require.Equal(t, i >= 2, v.lost, "%d", i)
	}

	holder.release(upstream.OutcomeOK, 0)
	require.Equal(t, "a", hoard[0].claim())
	hoard[0].release(upstream.OutcomeRefused, 0)
	require.Equal(t, "a", second.claim())
	fourth := come(g, "192.0.2.4", 0)
	fifth := come(g, "192.0.2.2", 0)
	require.Equal(t, 4, g.Waiting())
	require.True(t, hoard[0].next("192.0.2.1", 0))
	require.Equal(t, "-", hoard[1].claim())
	require.True(t, hoard[1].lost, "to one of its own address: no line is longer")
	require.Equal(t, 4, g.Waiting())
	other.release(upstream.OutcomeOK, 0)
	require.Equal(t, "b", hoard[0].claim(), "before %v, %v and %v", third, fourth, fifth)
}

// A session that has tried a server waits for others only, in front of those
// who came later; what it cannot use is given to them.
//
// Fails if it is given the same server again, holds up the others, or loses its
// place.
func TestQueueAfterFailure(t *testing.T) {
	t.Parallel()
	never := func(s *upstream.Server) { s.MaxConns, s.MaxFails = 1, 0 }
	g := upstream.NewGroup(queueing(10, with(server("a"), never), with(server("b"), never)))
	one, two := come(g, "192.0.2.1", 0), come(g, "192.0.2.1", 0)
	early, late := come(g, "192.0.2.2", 0), come(g, "192.0.2.3", 0)
	same := come(g, "192.0.2.2", 0)
	one.release(upstream.OutcomeOK, 0)
	require.Equal(t, "a", early.claim())
	early.release(upstream.OutcomeRefused, 0)
	require.Equal(t, "a", late.claim(), "a place is never kept")
	require.True(t, early.next("192.0.2.2", 0))
	late.release(upstream.OutcomeOK, 0)
	require.Equal(t, "-", early.claim())
	require.Equal(t, "a", same.claim(), "what early has tried")
	last, behind := come(g, "192.0.2.4", 0), come(g, "192.0.2.2", 0)
	require.Equal(t, 3, g.Waiting())
	two.release(upstream.OutcomeOK, 0)
	require.Equal(t, "-", last.claim())
	require.Equal(t, "b", early.claim())

	// It returns while others of its address wait.
	early.release(upstream.OutcomeRefused, 0)
	require.Equal(t, "b", last.claim())
	same.release(upstream.OutcomeRefused, 0)
	require.Equal(t, "a", behind.claim())
	behind.release(upstream.OutcomeOK, 0)
	next := come(g, "192.0.2.5", 0)
	require.Equal(t, "a", next.claim())
	other, own := come(g, "192.0.2.5", 0), come(g, "192.0.2.2", 0)
	require.True(t, same.next("192.0.2.2", 0))
	last.release(upstream.OutcomeOK, 0)
	require.Equal(t, "b", same.claim(), "before %v and %v", other, own)
}
