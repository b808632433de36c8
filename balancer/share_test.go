package balancer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

// Over many sessions each healthy server has its share of them, within 2 %, or
// within four standard deviations where chance rules. Methods that look at
// connections have many at a time; least_time favours nobody when all take
// the same time.
//
// Fails if the weight is ignored, or if in the rotation the chosen one pays less
// than the total for being chosen.
func TestShareFollowsWeight(t *testing.T) {
	t.Parallel()
	const picks = 100_000
	for _, m := range ngxMethods {
		if of := m.options.Measure.Of; of != upstream.Never && of != upstream.FirstByte {
			continue // these choose alike
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				random := rand.New(rand.NewPCG(seed, 0))
				weights := make([]int, 2+random.IntN(10))
				total := 0
				for i := range weights {
					weights[i] = 1 + random.IntN(20)
					total += weights[i]
				}
				c := by(m.options, servers(weights...)...)
				chance := 0.0
				switch {
				case m.options.Name == "random":
					chance = 4
					c.Method = func(s []upstream.Server) upstream.Method {
						if len(s) == 0 {
							return balancer.RoundRobin{}
						}
						return balancer.NewRandom(s, m.options.Two, random.IntN)
					}
				case m.options.Consistent:
					continue // 160 points a weight are no even shares
				case m.options.Name == "hash":
					chance = 4
				}
				got := shares(c, picks, 20*total)
				for i, w := range weights {
					p := float64(w) / float64(total)
					want := picks * p
					require.InDelta(t, want, got[i], max(1, 0.02*want, chance*math.Sqrt(want*(1-p))), "seed %d, weights %v", seed, weights)
				}
			}
		})
	}
}

// shares counts the sessions of each server, of which so many are held at a time.
func shares(c upstream.Config, picks, held int) []int {
	g := upstream.NewGroup(c)
	got := make([]int, len(c.Servers))
	type life struct {
		turn upstream.Turn
		peer *upstream.Peer
	}
	ring := make([]life, held)
	var key []byte
	for i := range picks + held {
		l := &ring[i%held]
		if l.peer != nil {
			l.peer.Release(&l.turn, upstream.OutcomeOK, 100)
		}
		key = strconv.AppendInt(key[:0], int64(i), 10)
		g.Begin(&l.turn)
		l.turn.Session.Key = key
		l.peer = g.Next(&l.turn, 100)
		if i >= held { // not while they fill up
			got[index(l.peer)]++
		}
	}
	return got
}

// The points of a ring spread a consistent hash as evenly as nginx's: half of
// all keys on each of two equal servers, give or take a tenth.
//
// Fails if a server has a tenth of its points.
func TestConsistentShares(t *testing.T) {
	t.Parallel()
	for i, n := range shares(by(balancer.Options{Name: "hash", Consistent: true}, named("a:25", "b:25", "c:25", "d:25")...), 20_000, 1) {
		require.InDelta(t, 5000, n, 1000, "server %d", i)
	}
}

// Groups that are made alike choose alike, each time.
//
// Fails if an order comes out of a map, such as that of names in the ring.
func TestSameAgain(t *testing.T) {
	t.Parallel()
	for _, m := range ngxMethods {
		if m.options.Name == "random" {
			continue
		}
		run := func() (picked []int) {
			all := servers(5, 1, 3, 2, 1, 8, 1, 1)
			all[3].Name, all[6].Name = all[0].Name, all[1].Name
			g := upstream.NewGroup(by(m.options, all...))
			var held []*upstream.Peer
			turns := make([]upstream.Turn, 300)
			for i := range turns {
				turns[i] = upstream.Turn{}
				begin(g, &turns[i], fmt.Sprint("client ", i))
				turns[i].Now = int64(i)
				p := g.Next(&turns[i], 100)
				p.Reached(&turns[i], upstream.Connect)
				picked = append(picked, index(p))
				if held = append(held, p); i%3 == 0 {
					turns[i/2].Now = int64(i)
					if held[i/2] != nil {
						held[i/2].Release(&turns[i/2], upstream.OutcomeOK, 100)
						held[i/2] = nil
					}
				}
			}
			return picked
		}
		want := run()
		for range 10 {
			require.Equal(t, want, run(), m.name)
		}
	}
}
