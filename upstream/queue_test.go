package upstream_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/balancer"
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

// Whatever comes, leaves and ends, in any order: a place that becomes free goes
// to who is next by a simple model, none stays free while somebody waits, and no
// server has more than max_conns. In a full queue the latest of a longest line
// gives way to a newcomer from a line that is shorter even with him.
//
// Fails if an address that loses a waiting session, or all of them, loses or
// doubles its turn; if a full queue refuses everybody, or lets anybody else give
// way; and if lines are not counted right.
func TestQueueLikeModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const size, places = 6, 2
		g := upstream.NewGroup(queueing(size, with(server("a"), maxConns(1)), with(server("b"), maxConns(places-1))))
		type origin struct {
			from string
			line []*visitor
		}
		var ring []*origin // the model: whose turn it is, in order
		var seated []*visitor
		waiting := func() (n int) {
			for _, o := range ring {
				n += len(o.line)
			}
			return n
		}
		index := func(from string) int {
			return slices.IndexFunc(ring, func(o *origin) bool { return o.from == from })
		}
		ahead := func(from string) int {
			if i := index(from); i >= 0 {
				return len(ring[i].line)
			}
			return 0
		}
		longest := func() (n int) {
			for _, o := range ring {
				n = max(n, len(o.line))
			}
			return n
		}
		giveWay := func() {
			lost := 0
			for _, o := range ring {
				v := o.line[len(o.line)-1]
				if v.claim(); v.lost {
					lost++
					require.Equal(t, longest(), len(o.line))
					o.line = o.line[:len(o.line)-1]
				}
			}
			require.Equal(t, 1, lost)
		}
		given := func() {
			for len(ring) > 0 && len(seated) < places {
				o := ring[0]
				v := o.line[0]
				require.NotEqual(t, "-", v.claim(), "%s is next", o.from)
				seated = append(seated, v)
				o.line = o.line[1:]
				if ring = ring[1:]; len(o.line) > 0 {
					ring = append(ring, o)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				from := fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 4).Draw(t, "host"))
				v := come(g, from, 0)
				switch {
				case len(seated) < places:
					require.NotEqual(t, "-", v.claim())
					seated = append(seated, v)
				case waiting() == size && longest() <= ahead(from)+1:
					require.Equal(t, "-", v.claim())
				default:
					require.Equal(t, "-", v.claim(), "newcomers do not overtake")
					if waiting() == size {
						giveWay()
					}
					i := index(from)
					if i < 0 {
						i = len(ring)
						ring = append(ring, &origin{from: from})
					}
					ring[i].line = append(ring[i].line, v)
				}
			},
			"end": func(t *rapid.T) {
				if len(seated) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(seated)-1).Draw(t, "seat")
				seated[i].release(upstream.OutcomeOK, 0)
				seated = slices.Delete(seated, i, i+1)
				given()
			},
			"leave": func(t *rapid.T) {
				if len(ring) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(ring)-1).Draw(t, "origin")
				o := ring[i]
				j := rapid.IntRange(0, len(o.line)-1).Draw(t, "place in line")
				g.Withdraw(&o.line[j].turn, 0)
				o.line = slices.Delete(o.line, j, j+1)
				if len(o.line) == 0 {
					ring = slices.Delete(ring, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, waiting(), g.Waiting())
				sum := 0
				for _, st := range g.Snapshot(0) {
					require.LessOrEqual(t, st.Conns, 1)
					sum += st.Conns
				}
				require.Equal(t, len(seated), sum)
			},
		})
	})
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

// Sessions come, wait, are given servers, and leave, on many goroutines. At no
// time has a server more than max_conns, all who stay are served, and in the end
// nothing is held and nobody waits.
//
// Fails, or is reported by the race detector, if a hand-over and a withdrawal
// that meet lose a place or give it twice.
func TestQueueRaces(t *testing.T) {
	t.Parallel()
	const sessions, rounds, places = 40, 300, 3
	c := queueing(sessions, with(server("a"), maxConns(places)), with(server("b"), func(s *upstream.Server) { s.MaxConns, s.MaxFails = places, 0 }))
	c.Method = func([]upstream.Server) upstream.Method { return balancer.LeastConn{} }
	g := upstream.NewGroup(c)
	var busy [2]atomic.Int32
	var served, left atomic.Int32
	var all sync.WaitGroup
	for i := range sessions {
		from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 7)})
		all.Go(func() {
			var turn upstream.Turn
			woken := make(chan struct{}, 1)
			for n := range rounds {
				g.Begin(&turn)
				turn.Now = int64(n)
				p := g.Next(&turn, 0)
				if p == nil {
					if !turn.Full() || !g.Wait(&turn, from, func() { woken <- struct{}{} }) {
						t.Error("refused")
						return
					}
					if rand.N(4) == 0 { // may meet the hand-over
						runtime.Gosched()
						g.Withdraw(&turn, 0)
						left.Add(1)
						select { // given and taken back
						case <-woken:
						default:
						}
						continue
					}
					<-woken
					p, _ = g.Claim(&turn)
				}
				here := &busy[p.Addr().TCP.Port()%2]
				if here.Add(1) > places {
					t.Error("more than max_conns")
				}
				runtime.Gosched()
				served.Add(1)
				here.Add(-1)
				p.Release(&turn, upstream.OutcomeOK, 0)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, sessions*rounds, served.Load()+left.Load())
	require.Positive(t, left.Load())
	require.Zero(t, g.Waiting())
	for _, st := range g.Snapshot(0) {
		require.Zero(t, st.Conns)
	}
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
