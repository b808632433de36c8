package upstream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

// A server that is new in a running group is the last to be asked until its
// first probe; one that begins with the group is up, or out by default_down.
//
// Fails if a new server is trusted unseen, or one that was gone, or all of a new
// group are not, and if a server that was never found to be out has a slow start.
func TestNewServers(t *testing.T) {
	t.Parallel()
	var changes []string
	a, b := server("a"), server("b")
	g := upstream.NewGroup(checked(&changes, a))
	require.Equal(t, upstream.StateUp, status(t, g, "a", 100).State)
	g.Update(checked(&changes, b, a))
	require.Equal(t, upstream.StateChecking, status(t, g, "b", 100).State)
	require.Equal(t, "ab", walk(g, upstream.OutcomeUnjudged, 100))
	require.EqualValues(t, 1, peer(t, g, "b").Probed(bad, 100), "one more will be decisive")
	require.Zero(t, peer(t, g, "b").Probed(good, 101))
	require.Equal(t, "ba", walk(g, upstream.OutcomeUnjudged, 101))

	g.Update(checked(&changes, with(b, down), a))
	g.Update(checked(&changes, b, a))
	b2 := status(t, g, "b", 102)
	require.Equal(t, upstream.StateChecking, b2.State, "back from maintenance")
	require.Equal(t, int64(-1), b2.Since, "whatever was before that")

	turn, held := pick(g, 102)
	require.Equal(t, "a", name(held))
	g.Update(checked(&changes, b))
	g.Update(checked(&changes, b, a))
	require.Equal(t, upstream.StateChecking, status(t, g, "a", 102).State, "it was gone, though held")
	held.Release(turn, upstream.OutcomeOK, 102)

	slow := func(s *upstream.Server) { s.SlowStart = 30 }
	c := checked(&changes, with(a, slow), with(b, slow))
	c.DefaultDown = true
	g = upstream.NewGroup(c)
	require.Equal(t, upstream.StateUnhealthy, status(t, g, "a", 100).State)
	peer(t, g, "b").Probed(good, 50)
	peer(t, g, "a").Probed(good, 100)
	require.Equal(t, "ab", walk(g, upstream.OutcomeUnjudged, 100), "a first start is not slow")

	c.Servers[0].Down = true
	g.Update(c)
	c.Servers[0].Down = false
	g.Update(c)
	require.Equal(t, upstream.StateUnhealthy, status(t, g, "a", 100).State)
	peer(t, g, "a").Probed(fallen, 101)
	require.Equal(t, fallen.Why, status(t, g, "a", 101).Why, "found to be so")
	peer(t, g, "a").Probed(good, 102)
	require.Equal(t, "ba", walk(g, upstream.OutcomeUnjudged, 102), "and so its start is slow")
}

// The share of a recovered server, of two, rises by the clock: 30 s long, and
// within 2 % of its full share of what it should be.
//
// Fails without a slow start, and if the share is that of the second before.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	slow := func(s *upstream.Server) { s.SlowStart = 30 }
	for _, by := range []string{"probes", "sessions"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			var changes []string
			c := checked(&changes, with(server("a"), slow), with(server("b"), slow))
			c.Checked = by == "probes"
			c.Method = func([]upstream.Server) upstream.Method { return balancer.RoundRobin{} }
			g := upstream.NewGroup(c)
			a := peer(t, g, "a")
			if c.Checked {
				a.Probed(fallen, 50)
				a.Probed(good, 100)
			} else {
				for status(t, g, "a", 50).State == upstream.StateUp {
					turn, p := pick(g, 50)
					o := upstream.OutcomeOK
					if p == a {
						o = upstream.OutcomeRefused
					}
					p.Release(turn, o, 50)
				}
				for status(t, g, "a", 100).Fails > 0 {
					turn, p := pick(g, 100)
					p.Connected(100)
					p.Release(turn, upstream.OutcomeOK, 100)
				}
			}
			for now := int64(100); now < 140; now++ {
				n := 0
				for range 1000 {
					turn, p := pick(g, now)
					if p == a {
						n++
					}
					p.Release(turn, upstream.OutcomeUnjudged, now)
				}
				want := 500 * min(30, int(now-100)+1) / 30
				require.InDelta(t, want, n, 10, "second %d", now-100)
			}
		})
	}
}

// A suspect that was avoided for a while starts slowly, too: its queue for new
// connections is as empty as that of one that was out.
//
// Fails if it does not, or one that was avoided for a moment does.
func TestSlowStartAfterStandstill(t *testing.T) {
	t.Parallel()
	for cleared, want := range map[int64]string{101: "aaaa", 102: "bbbb"} {
		var changes []string
		slow := func(s *upstream.Server) { s.SlowStart = 30 }
		g := upstream.NewGroup(checked(&changes, with(server("a"), slow), server("b")))
		peer(t, g, "a").Waited(100)
		peer(t, g, "a").Probed(good, cleared)
		got := ""
		for range 4 {
			_, p := pick(g, cleared)
			got += name(p)
		}
		require.Equal(t, want, got, "cleared at %d", cleared)
	}
}

// Servers that all start slowly share as if none did, and one alone is not
// spared at all.
//
// Fails if a slow start can refuse a session.
func TestSlowStartOfAll(t *testing.T) {
	t.Parallel()
	var changes []string
	slow := func(s *upstream.Server) { s.SlowStart = 30 }
	g := upstream.NewGroup(checked(&changes, with(server("a"), slow), with(server("b"), slow)))
	for _, n := range []string{"a", "b"} {
		peer(t, g, n).Probed(fallen, 50)
		peer(t, g, n).Probed(good, 100)
	}
	for range 100 {
		turn, p := pick(g, 100)
		require.NotNil(t, p)
		p.Release(turn, upstream.OutcomeOK, 100)
	}
}

// Connects to a server that recovers are bounded until they are made or given
// up; then the next session is sent elsewhere, or told to wait.
//
// Fails if max_pending is not looked at, if a connection made or failed is not
// taken off, and if it holds for a server that is simply up.
func TestMaxPending(t *testing.T) {
	t.Parallel()
	var changes []string
	few := func(s *upstream.Server) { s.MaxPending, s.SlowStart = 2, 30 }
	g := upstream.NewGroup(checked(&changes, with(server("a"), few)))
	a := peer(t, g, "a")
	for range 5 {
		_, p := pick(g, 40)
		require.Equal(t, a, p, "up: as many as come")
	}
	a.Probed(fallen, 50)
	a.Probed(good, 100)
	t1, p := pick(g, 100)
	require.Equal(t, a, p)
	t2, p := pick(g, 100)
	require.Equal(t, a, p)
	t3, p := pick(g, 100)
	require.Nil(t, p)
	require.True(t, t3.MustWait())

	a.Established(t1)
	require.NotNil(t, g.Next(t3, 100))
	require.False(t, t3.MustWait())
	t4, p := pick(g, 100)
	require.Nil(t, p)
	a.Release(t2, upstream.OutcomeRefused, 100)
	require.NotNil(t, g.Next(t4, 100))
	a.Release(t1, upstream.OutcomeOK, 100)
	_, p = pick(g, 100)
	require.Nil(t, p, "an established one is not taken off again when it ends")
	_, p = pick(g, 130)
	require.NotNil(t, p, "the slow start is over")
}

// Nobody waits for a server that he has tried already, nor counts one that is
// full as not pending.
//
// Fails if the crowd is looked at before who was tried, and if the server is
// judged after the session is on it.
func TestMaxPendingOfSuspects(t *testing.T) {
	t.Parallel()
	var changes []string
	a := with(server("a"), func(s *upstream.Server) { s.MaxPending = 1 })
	g := upstream.NewGroup(checked(&changes, a, server("b")))
	turn, p := pick(g, 100)
	p.Waited(100)
	p.Release(turn, upstream.OutcomeUnjudged, 100)
	peer(t, g, "b").Probed(fallen, 100)
	_, p = pick(g, 100)
	require.Equal(t, "a", name(p), "one connect to the suspect is under way")
	g.Next(turn, 100) // b, as a last resort
	require.Nil(t, g.Next(turn, 100))
	require.False(t, turn.MustWait())

	g = upstream.NewGroup(checked(&changes, with(a, maxConns(2))))
	turn, p = pick(g, 100)
	p.Waited(100)
	_, second := pick(g, 100)
	require.NotNil(t, second)
	p.Release(turn, upstream.OutcomeOK, 100)
	turn, p = pick(g, 100)
	require.Nil(t, p)
	require.True(t, turn.MustWait())
}
