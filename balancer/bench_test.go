package balancer_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

func uniform(m ngxMethod, n int) *upstream.Group {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1 + i%5
	}
	all := servers(weights...)
	for i := range all {
		all[i].Name = fmt.Sprintf("10.0.%d.%d:25", i>>8, i&0xff)
	}
	return upstream.NewGroup(by(m.options, all...))
}

// attempt is all that a session does to its group. The clock stands still: else
// least_time would see servers that rest.
func attempt(g *upstream.Group, turn *upstream.Turn, key []byte) {
	g.Begin(turn)
	turn.Session.Key = key
	p := g.Next(turn, 100)
	p.Reached(turn, upstream.Connect)
	p.Connected(100)
	p.Reached(turn, upstream.FirstByte)
	p.Release(turn, upstream.OutcomeOK, 100)
}

// Fails if Pick allocates, for instance a list of the eligible slots, or the
// text that hash puts before a key.
func TestPickAllocatesNothing(t *testing.T) {
	for _, m := range ngxMethods {
		g := uniform(m, 100)
		key := []byte("192.0.2.1")
		var turn upstream.Turn
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			attempt(g, &turn, key)
			g.Begin(&turn) // and one that is hashed and drawn again
			turn.Session.Key = key
			g.Next(&turn, 100).Release(&turn, upstream.OutcomeLocalError, 100)
			g.Next(&turn, 100).Release(&turn, upstream.OutcomeLocalError, 100)
		}), m.name)
	}
}

func BenchmarkPick(b *testing.B) {
	each(b, func(b *testing.B, g *upstream.Group) {
		var turn upstream.Turn
		key := []byte("192.0.2.1")
		for b.Loop() {
			attempt(g, &turn, key)
		}
	})
}

// Several goroutines share a group, as event loops do.
func BenchmarkPickContended(b *testing.B) {
	each(b, func(b *testing.B, g *upstream.Group) {
		b.SetParallelism(2)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			var turn upstream.Turn
			key := []byte("192.0.2.1")
			for pb.Next() {
				attempt(g, &turn, key)
			}
		})
	})
}

func each(b *testing.B, run func(*testing.B, *upstream.Group)) {
	for _, m := range ngxMethods {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", m.name, n), func(b *testing.B) {
				g := uniform(m, n)
				b.ReportAllocs()
				run(b, g)
			})
		}
	}
}
