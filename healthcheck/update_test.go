package healthcheck

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// What was counted survives an Update that changes everything else. Fails if
// apply makes a new target for a Reporter that it knows.
func TestUpdateKeepsState(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		f.fail("s:25", syscall.ECONNREFUSED)
		f.fail("other:25", syscall.ECONNREFUSED)
		var r, gone reporter
		c.Update([]Target{aim("s:25", &r), aim("gone:25", &gone)})
		pass(2 * time.Second)
		require.Equal(t, 1, r.count())
		before := len(f.visits("s:25"))
		c.Update([]Target{aim("s:25", &r), aim("gone:25", &gone)})
		pass(2 * time.Second)
		require.Len(t, f.visits("s:25"), before, "the same again makes no probe")

		moved := aim("other:25", &r)
		moved.Fall = 2
		c.Update([]Target{moved})
		n := gone.count()
		pass(1100 * time.Millisecond)
		require.Equal(t, Down, r.last().State, "one failure before, one after")
		pass(time.Minute)
		require.Len(t, f.visits("s:25"), before)
		require.Equal(t, n, gone.count())
		c.Update(nil)
		pass(time.Hour)
		require.Empty(t, c.checks)
		require.Empty(t, c.queue)
	})
}

// An interval made shorter holds at once. Fails without hasten.
func TestUpdateShortensInterval(t *testing.T) {
	bubble(t, func(t *testing.T, _ *field, c *Checker) {
		var r reporter
		tg := aim("s:25", &r)
		tg.Interval = 24 * time.Hour
		c.Update([]Target{tg})
		pass(2 * time.Second)
		tg.Interval = 5 * time.Second
		c.Update([]Target{tg})
		pass(6 * time.Second)
		require.GreaterOrEqual(t, r.count(), 2)
	})
}

// A probe that nobody needs is cut, and its Reporter is not called. If somebody
// needs it again before it has ended, there are still not two at a time. Fails
// if dropUnused deletes a running check, or does not cut it.
func TestUpdateCutsProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(4 * time.Second)
		f.lag = 500 * time.Millisecond
		c := newChecker(t, f.dial)
		var r, again reporter
		c.Update([]Target{aim("s:25", &r)})
		pass(2 * time.Second) // it runs
		cut := time.Now()
		c.Update(nil)
		c.Update([]Target{aim("s:25", &again)})
		c.ProbeNow(&again)
		pass(6 * time.Second)
		require.Len(t, f.visits("s:25"), 2)
		require.Equal(t, cut.Add(f.lag+time.Second), f.visits("s:25")[1])
		require.Equal(t, 1, f.peak)
		require.Zero(t, r.count())
		require.Equal(t, 1, again.count())
		require.True(t, again.last().Good)
	})
}

// Stop cuts what runs and returns at once; nothing works after it.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(time.Minute)
		c := newChecker(t, f.dial)
		var r reporter
		c.Update([]Target{aim("s:25", &r)})
		pass(2 * time.Second)
		now := time.Now()
		c.Stop()
		c.Stop()
		require.Equal(t, now, time.Now())
		require.Zero(t, f.open)
		c.Update([]Target{aim("s:25", &r)})
		c.ProbeNow(&r)
		pass(time.Hour)
		require.Zero(t, r.count())
	})
}

// A probe that Stop cuts says nothing of its server, also if the scheduler sees
// its end before it sees the Stop. Fails if finish does not ask ctx.
func TestStopReportsNothing(t *testing.T) {
	c := start(zap.NewNop(), nil)
	c.Stop() // from here on this goroutine is the scheduler
	var r reporter
	k := &check{cancel: func() {}, targets: []*target{{Target: aim("s:25", &r)}}}
	c.finish(k, outcome{why: "no connection in 0s"}, time.Now())
	require.Zero(t, r.count())
}

// Fails if apply makes a target of each.
func TestReporterTwice(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		var r reporter
		c.Update([]Target{aim("s:25", &r), aim("other:25", &r)})
		pass(2 * time.Second)
		require.Empty(t, f.visits("s:25"))
		require.Len(t, f.visits("other:25"), 1)
		require.Equal(t, 1, r.count())
	})
}
