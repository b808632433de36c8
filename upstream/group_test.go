package upstream_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// Who is tried, in which order, by a session that every server refuses, when
// all servers are up, and by a second session right after.
//
// Fails, in the row named, if down servers are eligible (down); if they count
// as tries, or not towards the number that makes a group single (one up, one
// down); if the single exception holds beside a backup (single, backup), leaves
// a try (single), or lets a server pass that is down (single, down).
func TestFailover(t *testing.T) {
	t.Parallel()
	a, b, c, d := server("a"), server("b"), server("c"), server("d")
	for _, test := range []struct {
		name          string
		servers       []upstream.Server
		first, second string
	}{
		{"two", []upstream.Server{a, b}, "ab", "-"},
		{"down", []upstream.Server{a, with(b, down), c}, "ac", "-"},
		{"all down", []upstream.Server{with(a, down), with(b, down)}, "-", "-"},
		{"one up, one down", []upstream.Server{a, with(b, down)}, "a", "-"},
		{"single", []upstream.Server{a}, "a", "a"},
		{"single, down", []upstream.Server{with(a, down)}, "-", "-"},
		{"single, backup", []upstream.Server{a, with(b, backup)}, "ab", "-"},
		{"single, backup down", []upstream.Server{a, with(b, func(s *upstream.Server) { s.Backup, s.Down = true, true })}, "a", "-"},
		{"single backup of two", []upstream.Server{a, b, with(c, backup)}, "abc", "-"},
		{"backups in order", []upstream.Server{with(c, backup), a, with(d, backup), b}, "abcd", "-"},
		{"primary down, backup", []upstream.Server{with(a, down), with(b, backup)}, "b", "-"},
		{"max_fails=0", []upstream.Server{with(a, func(s *upstream.Server) { s.MaxFails = 0 }), b}, "ab", "a-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := upstream.NewGroup(config(test.servers...))
			require.Equal(t, test.first, walk(g, upstream.OutcomeRefused, 100))
			require.Equal(t, test.second, walk(g, upstream.OutcomeRefused, 100))
			for _, s := range g.Snapshot(100) {
				require.Zero(t, s.Conns, s.Name)
			}
		})
	}
}

// Sessions that stay fill one server after the other.
//
// Fails if a server takes one session more than max_conns, if the sole server
// of a group is let off it, or if full primaries do not spill to the backups.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	a, b, c := with(server("a"), maxConns(1)), with(server("b"), maxConns(2)), server("c")
	for _, test := range []struct {
		name    string
		servers []upstream.Server
		want    string
	}{
		{"primaries", []upstream.Server{a, b, c}, "abbcc"},
		{"spill to backups", []upstream.Server{a, with(b, backup), with(c, backup)}, "abbcc"},
		{"all full", []upstream.Server{a, b}, "abb--"},
		{"single", []upstream.Server{b}, "bb---"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := upstream.NewGroup(config(test.servers...))
			var got string
			var held []func()
			for range test.want {
				turn, p := pick(g, 100)
				got += name(p)
				if p != nil {
					held = append(held, func() { p.Release(turn, upstream.OutcomeOK, 100) })
				}
			}
			require.Equal(t, test.want, got)

			for _, release := range held {
				release()
			}
			_, p := pick(g, 100)
			require.Equal(t, test.want[:1], name(p))
		})
	}
}

// The window of a failure at 100 with fail_timeout 10 is 100..110 inclusive,
// and at 111 exactly one session gets through, until it has connected.
//
// Fails if the window ends at fail_timeout (< for <=), if the first session
// after it does not start it anew, or if only the end of that session, and
// not its connection, brings the server back.
func TestWindowAndProbe(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(server("a"), server("b")))
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	require.Equal(t, 1, turn.Left())

	for now := int64(100); now <= 110; now++ {
		_, p = pick(g, now)
		require.Equal(t, "b", name(p), now)
		require.Equal(t, upstream.StateUnavail, status(t, g, "a", now).State, now)
	}
	require.Equal(t, upstream.StateUp, status(t, g, "a", 111).State)
	_, probe := pick(g, 111)
	require.Equal(t, "a", name(probe))
	require.Equal(t, upstream.StateUnavail, status(t, g, "a", 121).State)
	_, p = pick(g, 121)
	require.Equal(t, "b", name(p))

	probe.Connected(121)
	require.Zero(t, status(t, g, "a", 121).Fails)
	_, p = pick(g, 121)
	require.Equal(t, "a", name(p))
}

// Failures 5 s apart add up however many sessions succeed between them, and a
// success of a session picked before the failure proves nothing.
//
// Fails if every success clears the failures.
func TestFailuresAddUpWithinTheWindow(t *testing.T) {
	t.Parallel()
	a := with(server("a"), func(s *upstream.Server) { s.MaxFails = 3 })
	g := upstream.NewGroup(config(a, server("b")))
	for i := range 3 {
		now := 100 + 5*int64(i)
		turn, good := pick(g, now)
		require.Equal(t, "a", name(good))
		bad, p := pick(g, now)
		p.Release(bad, upstream.OutcomeConnectTimeout, now+1)
		good.Connected(now + 1)
		good.Release(turn, upstream.OutcomeOK, now+4)
		s := status(t, g, "a", now+4)
		require.Equal(t, i+1, s.Fails)
		require.Equal(t, i == 2, s.State == upstream.StateUnavail)
	}
	require.Equal(t, upstream.StateUnavail, status(t, g, "a", 114).State)
}

// Each failure of a server that is out puts it out anew, as the sessions that
// were connecting when it went out fail one by one; but that it is out is told
// once, and so is its return.
//
// Fails if every failure past max_fails is told, or the return is not.
func TestChangesAreToldOnce(t *testing.T) {
	t.Parallel()
	c := config(server("a"), server("b"))
	var changes []string
	c.OnChange = func(x upstream.Change) {
		changes = append(changes, fmt.Sprintf("%s %s-%s: %s", name(x.Peer), x.From, x.To, x.Why))
	}
	g := upstream.NewGroup(c)
	t1, p1 := pick(g, 100)
	t2, p2 := pick(g, 100)
	p1.Release(t1, upstream.OutcomeRefused, 100)
	p2.Release(t2, upstream.OutcomeRefused, 105)
	require.Equal(t, upstream.StateUnavail, status(t, g, "a", 115).State)
	require.Equal(t, upstream.StateUp, status(t, g, "a", 116).State)
	require.Equal(t, []string{"a up-unavail: refused"}, changes)
	_, p := pick(g, 116)
	require.Equal(t, "a", name(p))
	p.Connected(117)
	require.Equal(t, "a unavail-up: a session was connected", changes[1])
	require.Len(t, changes, 2)
}

// Fails if Release does not refuse what was not picked: the count would go
// below zero and max_conns would let too many in.
func TestReleaseTwicePanics(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(server("a"), server("b")))
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeOK, 100)
	require.Panics(t, func() { p.Release(turn, upstream.OutcomeOK, 100) })
	require.Zero(t, status(t, g, "a", 100).Conns, "and the lock is free")
}

// Fails if max_conns, max_fails, down or backup does not show.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	a := with(server("a"), maxConns(1))
	b := with(server("b"), func(s *upstream.Server) { s.Weight, s.MaxFails = 6, 3 })
	c := with(server("c"), down)
	d := with(server("d"), backup)
	g := upstream.NewGroup(config(a, d, b, c))
	pick(g, 100)
	turn, p := pick(g, 100)
	p.Release(turn, upstream.OutcomeRefused, 100)
	pick(g, 100)

	want := []upstream.Status{
		{Name: "a", Addr: a.Addr, State: upstream.StateFull, Since: -1, Weight: 1, Effective: 1, Conns: 1},
		{Name: "b", Addr: b.Addr, State: upstream.StateUp, Since: -1, Weight: 6, Effective: 4, Conns: 1, Fails: 1},
		{Name: "c", Addr: c.Addr, State: upstream.StateDown, Since: -1, Weight: 1, Effective: 1},
		{Name: "d", Addr: d.Addr, Backup: true, State: upstream.StateUp, Since: -1, Weight: 1, Effective: 1},
	}
	got := g.Snapshot(100)
	for i := range got {
		got[i].Peer = nil
		want[i].Health, want[i].Percent = upstream.StateUp, 100
	}
	require.Equal(t, want, got)
	require.Equal(t, "mail", p.Group())
	require.Equal(t, "192.0.2.1:10098", p.Name())
}
