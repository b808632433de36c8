package upstream_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/balancer"
	"smtplb/upstream"
)

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
