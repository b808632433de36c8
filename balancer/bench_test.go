package balancer_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

func uniform(n int) *upstream.Group {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1 + i%5
	}
	return upstream.NewGroup(config(servers(weights...)...))
}

// attempt is all that a session does to its group.
func attempt(g *upstream.Group, turn *upstream.Turn) {
	g.Begin(turn)
	p := g.Next(turn, 100)
	p.Connected(100)
	p.Release(turn, upstream.OutcomeOK, 100)
}

// Fails if Pick allocates, for instance a list of the eligible slots.
func TestPickAllocatesNothing(t *testing.T) {
	g := uniform(100)
	var turn upstream.Turn
	require.Zero(t, testing.AllocsPerRun(1000, func() { attempt(g, &turn) }))
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := uniform(n)
			var turn upstream.Turn
			b.ReportAllocs()
			for b.Loop() {
				attempt(g, &turn)
			}
		})
	}
}
