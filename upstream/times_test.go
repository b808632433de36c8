package upstream_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// timed is inOrder that goes by times, and notes those that it saw.
type timed struct {
	inOrder
	measure upstream.Measure
	saw     *[]int64
}

func (m timed) Measure() upstream.Measure { return m.measure }

func (m timed) Pick(slots []upstream.Slot, s *upstream.Session) int {
	*m.saw = nil
	for i := range slots {
		*m.saw = append(*m.saw, slots[i].Latency)
	}
	return m.inOrder.Pick(slots, s)
}

// clocked is a group whose method goes by a time, and the latencies that the
// method saw last.
func clocked(m upstream.Measure, servers ...upstream.Server) (upstream.Config, *[]int64) {
	saw := new([]int64)
	c := config(servers...)
	c.Method = func([]upstream.Server) upstream.Method { return timed{measure: m, saw: saw} }
	return c, saw
}

// at is a session's turn that asks at a moment, in ms.
func at(g *upstream.Group, t *upstream.Turn, ms int64) *upstream.Peer {
	g.Begin(t)
	return further(g, t, ms)
}

func further(g *upstream.Group, t *upstream.Turn, ms int64) *upstream.Peer {
	t.Now = ms
	return g.Next(t, ms/1000)
}

func release(p *upstream.Peer, t *upstream.Turn, o upstream.Outcome, ms int64) {
	t.Now = ms
	p.Release(t, o, ms/1000)
}

// The first good session sets the average, others move it by a twentieth; it is
// booked when the session ends, and failures never are.
//
// Fails if a time is booked at its moment, if a failure's is, or if the second
// one replaces the first.
func TestLatency(t *testing.T) {
	t.Parallel()
	c, saw := clocked(upstream.Measure{Of: upstream.FirstByte}, server("a"), server("b"))
	g := upstream.NewGroup(c)
	see := func(ms int64) []int64 {
		var turn upstream.Turn
		release(at(g, &turn, ms), &turn, upstream.OutcomeLocalError, ms)
		return *saw
	}
	session := func(ms, took int64, o upstream.Outcome) {
		var turn upstream.Turn
		p := at(g, &turn, ms)
		turn.Now = ms + 1
		p.Reached(&turn, upstream.Connect)
		turn.Now = ms + took
		p.Reached(&turn, upstream.FirstByte)
		turn.Now++
		p.Reached(&turn, upstream.FirstByte) // once is enough
		before := see(ms + took)
		require.Equal(t, before, see(ms+took))
		release(p, &turn, o, ms+took+5)
	}
	require.Equal(t, []int64{0, 0}, see(20_000))
	session(20_000, 100, upstream.OutcomeOK)
	require.Equal(t, []int64{100, 0}, see(21_000))
	session(21_000, 200, upstream.OutcomeOK)
	require.Equal(t, []int64{105, 0}, see(22_000))
	session(22_000, 900, upstream.OutcomeClientGone)
	session(22_000, 900, upstream.OutcomeUnjudged)
	require.Equal(t, []int64{105, 0}, see(23_000))
	// The pick at 20 s began a window of ten seconds; 31 s is past it, and the
	// latency halves for the pick that begins the next one.
	require.Equal(t, []int64{52, 0}, see(31_000))
	require.Equal(t, []int64{105, 0}, see(31_000))
	require.Equal(t, []int64{26, 0}, see(53_000))
}

// A session in flight counts from its pick, and no longer than until its moment,
// its failure, or until it has gone over to another server, even where it holds
// both for a while.
//
// Fails if any of these leaves it in flight.
func TestInflight(t *testing.T) {
	t.Parallel()
	c, saw := clocked(upstream.Measure{Of: upstream.FirstByte, Inflight: true}, server("a"), server("b"))
	g := upstream.NewGroup(c)
	see := func(ms int64) []int64 {
		var turn upstream.Turn
		p := at(g, &turn, ms)
		release(p, &turn, upstream.OutcomeLocalError, ms)
		return *saw
	}
	var turn upstream.Turn
	p := at(g, &turn, 1000)
	require.Equal(t, []int64{400, 0}, see(1400))

	second := further(g, &turn, 1500)
	require.NotEqual(t, p, second)
	release(p, &turn, upstream.OutcomeLocalError, 1500)
	require.Zero(t, see(9000)[0], "left, and learned nothing")

	turn.Now = 1600
	second.Reached(&turn, upstream.FirstByte)
	require.Equal(t, []int64{0, 100}, see(9000), "booked at once, and not in flight")
	release(second, &turn, upstream.OutcomeOK, 9000)
	require.Equal(t, []int64{0, 100}, see(9000), "booked once")
}

// A reload to another moment forgets the times of the old one, also those of
// sessions that are under way.
//
// Fails if either is kept.
func TestReloadToAnotherMoment(t *testing.T) {
	t.Parallel()
	c, _ := clocked(upstream.Measure{Of: upstream.LastByte}, server("a"))
	c.Servers = append(c.Servers, server("b"))
	g := upstream.NewGroup(c)
	var one, two, three upstream.Turn
	release(at(g, &one, 1000), &one, upstream.OutcomeOK, 9000)
	p := at(g, &two, 9000)

	c, saw := clocked(upstream.Measure{Of: upstream.Connect}, c.Servers...)
	g.Update(c)
	release(p, &two, upstream.OutcomeOK, 9500)
	release(at(g, &three, 9500), &three, upstream.OutcomeOK, 9500)
	require.Equal(t, []int64{0, 0}, *saw)
}

// A turn that is measured allocates nothing more.
func TestMeasuringAllocatesNothing(t *testing.T) {
	m := timed{measure: upstream.Measure{Of: upstream.Connect, Inflight: true}, saw: &[]int64{}}
	c := config(server("a"), server("b"))
	c.Method = func([]upstream.Server) upstream.Method { return quiet{m} }
	g := upstream.NewGroup(c)
	var turn upstream.Turn
	require.Zero(t, testing.AllocsPerRun(100, func() {
		p := at(g, &turn, 1000)
		p.Reached(&turn, upstream.Connect)
		release(p, &turn, upstream.OutcomeOK, 1000)
	}))
}

// quiet is timed that notes nothing.
type quiet struct{ timed }

func (q quiet) Pick(slots []upstream.Slot, s *upstream.Session) int { return q.inOrder.Pick(slots, s) }
