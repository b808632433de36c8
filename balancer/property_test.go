package balancer_test

import (
	"maps"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/upstream"
)

// drawServers makes up a group from a pool of ten servers, so that reloads
// remove some and bring others back.
func drawServers(t *rapid.T) []upstream.Server {
	pool := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}).Draw(t, "pool")
	n := rapid.IntRange(1, 8).Draw(t, "servers")
	all := make([]upstream.Server, 0, n)
	for i := range n {
		s := server(pool[i], rapid.IntRange(1, 10).Draw(t, "weight"))
		s.MaxConns = rapid.IntRange(0, 3).Draw(t, "max_conns")
		s.MaxFails = rapid.IntRange(0, 3).Draw(t, "max_fails")
		s.FailTimeout = rapid.Int64Range(0, 10).Draw(t, "fail_timeout")
		s.Down = rapid.IntRange(0, 5).Draw(t, "down") == 0
		s.Backup = i > 0 && rapid.IntRange(0, 3).Draw(t, "backup") == 0
		all = append(all, s)
	}
	return all
}

// Random sessions, outcomes, times and reloads, by each method. What must hold throughout: a
// session is never given a server that is down, out, full or removed; it is
// given one whenever a server that it has not tried is up; the connections
// counted for a server are exactly the sessions that hold it, also after it
// was removed and came back.
//
// Fails if a method gives up before round robin was asked, if Update makes the counts of held servers start at zero, forgets
// retired ones, or if any condition of eligibility is left out.
func TestRandomLife(t *testing.T) {
	t.Parallel()
	type life struct {
		turn  upstream.Turn
		peer  *upstream.Peer
		tried map[upstream.Addr]bool
		over  bool // has gone over to the backups
	}
	live := func(t *rapid.T, m ngxMethod) {
		g := upstream.NewGroup(by(m.options, drawServers(t)...))
		now := rapid.Int64Range(0, 1000).Draw(t, "start")
		var live []*life

		next := func(l *life) {
			state := make(map[upstream.Addr]upstream.Status)
			primaries, backups, haveBackups := 0, 0, false
			for _, s := range g.Snapshot(now) {
				state[s.Addr] = s
				haveBackups = haveBackups || s.Backup
				if s.State == upstream.StateUp && !l.tried[s.Addr] {
					if s.Backup {
						backups++
					} else {
						primaries++
					}
				}
			}
			l.peer = g.Next(&l.turn, now)
			if !l.over && primaries > 0 {
				require.NotNil(t, l.peer, "a primary is up")
				require.False(t, state[l.peer.Addr()].Backup)
			} else {
				l.over = l.over || haveBackups
				require.Equal(t, backups > 0, l.peer != nil, "a backup is up")
			}
			if l.peer == nil {
				return
			}
			require.Equal(t, upstream.StateUp, state[l.peer.Addr()].State)
			require.False(t, l.tried[l.peer.Addr()], "tried twice")
			l.tried[l.peer.Addr()] = true
			live = append(live, l)
		}

		forget := func() {
			known := make(map[upstream.Addr]bool)
			for _, s := range g.Snapshot(now) {
				known[s.Addr] = true
			}
			for _, l := range live {
				maps.DeleteFunc(l.tried, func(a upstream.Addr, _ bool) bool { return !known[a] })
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"session": func(t *rapid.T) {
				if len(live) > 20 {
					t.Skip()
				}
				l := &life{tried: make(map[upstream.Addr]bool)}
				begin(g, &l.turn, rapid.String().Draw(t, "key"))
				next(l)
			},
			"connected": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip()
				}
				rapid.SampledFrom(live).Draw(t, "session").peer.Connected(now)
			},
			"release": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "session")
				l := live[i]
				live = append(live[:i], live[i+1:]...)
				outcome := rapid.SampledFrom([]upstream.Outcome{
					upstream.OutcomeOK, upstream.OutcomeRefused, upstream.OutcomeClientGone,
				}).Draw(t, "outcome")
				l.peer.Release(&l.turn, outcome, now)
				if outcome == upstream.OutcomeRefused && l.turn.Left() > 0 {
					next(l)
				}
			},
			"time": func(t *rapid.T) {
				now += rapid.Int64Range(0, 15).Draw(t, "seconds")
			},
			"reload": func(t *rapid.T) {
				// A server that is gone and not held is forgotten; if it
				// comes back it is another, which a session may try.
				forget()
				g.Update(by(m.options, drawServers(t)...))
				forget()
			},
			"": func(t *rapid.T) {
				want := make(map[upstream.Addr]int)
				for _, l := range live {
					want[l.peer.Addr()]++
				}
				got := make(map[upstream.Addr]int)
				for _, s := range g.Snapshot(now) {
					if s.Conns != 0 {
						got[s.Addr] = s.Conns
					}
					require.GreaterOrEqual(t, s.Weight, s.Effective)
					require.GreaterOrEqual(t, s.Effective, 0)
				}
				require.True(t, maps.Equal(want, got), "held %v, counted %v", want, got)
			},
		})
	}
	for _, m := range ngxMethods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { live(t, m) })
		})
	}
}

// Loops pick and release while reloads come and go. The race detector judges
// the locking, the count at the end the accounting.
//
// Fails under -race if Connected, Release, Update or Snapshot does not take the
// lock.
func TestConcurrentSessionsAndReloads(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(servers(5, 1, 1)...))
	sets := [][]upstream.Server{servers(5, 1, 1), servers(1, 4), servers(1), servers(3, 2, 1, 1)}

	var loops sync.WaitGroup
	for range 4 {
		loops.Go(func() {
			var turn upstream.Turn
			for i := range 5000 {
				now := int64(100 + i/50)
				g.Begin(&turn)
				p := g.Next(&turn, now)
				if p == nil {
					continue
				}
				runtime.Gosched() // connecting: let others have the group meanwhile
				if i%7 != 0 {
					p.Connected(now)
					p.Release(&turn, upstream.OutcomeOK, now)
					continue
				}
				p.Release(&turn, upstream.OutcomeRefused, now)
				if turn.Left() == 0 {
					continue
				}
				if p = g.Next(&turn, now); p != nil {
					p.Release(&turn, upstream.OutcomeOK, now)
				}
			}
		})
	}
	loops.Go(func() {
		for i := range 500 {
			g.Update(config(sets[i%len(sets)]...))
			g.Snapshot(int64(100 + i/5))
			runtime.Gosched()
		}
	})
	loops.Wait()

	g.Update(config(servers(5, 1, 1)...))
	for _, s := range g.Snapshot(200) {
		require.Zero(t, s.Conns, s.Name)
	}
	require.Len(t, g.Snapshot(200), 3)
}
