package healthcheck

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// bubble runs a test in a synctest bubble with a field of servers whose probes
// take 100 ms.
func bubble(t *testing.T, test func(*testing.T, *field, *Checker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newField(100 * time.Millisecond)
		test(t, f, newChecker(t, f.dial))
	})
}

// pass lets fake time go by, and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// One probe for all targets of equal Settings; each counts for itself. Fails if
// checks has another key, such as the Reporter.
func TestSharedProbe(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		f.fail("s:25", syscall.ECONNREFUSED)
		var a, b, other reporter
		hasty, calm, smtp := aim("s:25", &a), aim("s:25", &b), aim("s:25", &other)
		hasty.Fall, hasty.Interval = 1, 5*time.Second
		hasty.DownInterval = 5 * time.Second
		smtp.Settings.SMTP = true
		c.Update([]Target{hasty, calm, smtp})
		pass(2 * time.Second)
		require.Len(t, f.visits("s:25"), 2, "one for each Settings")
		require.Equal(t, Result{State: Down, Why: "connect: connection refused"}, a.last())
		require.Equal(t, Result{State: Up, Why: "connect: connection refused"}, b.last())
		pass(time.Minute)
		require.Equal(t, a.count(), b.count())
		require.GreaterOrEqual(t, a.count(), 9, "the shortest interval counts")
		require.Equal(t, Down, b.last().State)
	})
}

// From the end of a probe to the beginning of the next there is an interval,
// give or take a fifth. Fails if the interval runs from the beginning, or if
// next has another range.
func TestIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(3 * time.Second)
		c := newChecker(t, f.dial)
		var r reporter
		c.Update([]Target{aim("s:25", &r)})
		pass(20 * time.Minute)
		visits := f.visits("s:25")
		first := visits[1].Sub(visits[0]) - f.took
		require.True(t, 5*time.Second <= first && first <= 10*time.Second, "the second one: %v", first)
		low, high := time.Hour, time.Duration(0)
		for i := 2; i < len(visits); i++ {
			pause := visits[i].Sub(visits[i-1]) - f.took
			low, high = min(low, pause), max(high, pause)
		}
		require.True(t, 8*time.Second <= low && low < 9*time.Second, "shortest: %v", low)
		require.True(t, 11*time.Second < high && high <= 12*time.Second, "longest: %v", high)
	})
}

// A second after a good probe of a server that is out; DownInterval while it is
// out. Fails if finish does not ask rising.
func TestRising(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		var r reporter
		f.fail("s:25", syscall.ECONNREFUSED)
		down := aim("s:25", &r)
		down.State, down.Rise = Down, 3
		c.Update([]Target{down})
		pass(2 * time.Second)
		require.Equal(t, 1, r.count())
		require.Equal(t, Down, r.last().State)
		f.fail("s:25", nil)
		pass(12 * time.Second)
		require.Equal(t, 1, r.count(), "30 s while down, the second one at 15 s at the earliest")
		pass(25 * time.Second)
		visits := f.visits("s:25")
		require.Equal(t, time.Second+f.took, visits[2].Sub(visits[1]))
		require.Equal(t, time.Second+f.took, visits[3].Sub(visits[2]))
		require.Equal(t, Down, r.results[2].State)
		require.Equal(t, Up, r.results[3].State)
	})
}

// While a Reporter waits, the next probe comes after a second.
func TestWaitingReporter(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		r := reporter{waiting: true}
		c.Update([]Target{aim("s:25", &r)})
		pass(5*time.Second + 500*time.Millisecond)
		visits := f.visits("s:25")
		require.GreaterOrEqual(t, len(visits), 4)
		for i := range visits[1:] {
			require.Equal(t, time.Second+f.took, visits[i+1].Sub(visits[i]))
		}
		r.wait(false)
		pass(2 * time.Second)
		n := r.count()
		pass(3 * time.Second)
		require.Equal(t, n, r.count())
	})
}

// ProbeNow: one probe for many calls, one at a time, and not within a second.
// Fails without the floor in soonest, without again, or if takeWanted schedules
// a check that is running.
func TestProbeNow(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		var r, stranger reporter
		late := aim("s:25", &r)
		late.Interval = time.Hour
		c.Update([]Target{late})
		pass(3 * time.Second) // the first one is more than a second ago
		require.Equal(t, 1, r.count())

		now := time.Now()
		for range 1000 {
			c.ProbeNow(&r)
			c.ProbeNow(&stranger)
		}
		pass(50 * time.Millisecond) // it runs
		require.Equal(t, now, f.visits("s:25")[1], "at once")
		for range 1000 {
			c.ProbeNow(&r)
		}
		pass(10 * time.Second)
		require.Len(t, f.visits("s:25"), 3)
		require.Equal(t, now.Add(f.took+time.Second), f.visits("s:25")[2], "a second after the running one")

		now = time.Now()
		c.ProbeNow(&r)
		pass(200 * time.Millisecond) // it has ended
		for range 1000 {
			c.ProbeNow(&r)
		}
		pass(10 * time.Second)
		visits := f.visits("s:25")
		require.Len(t, visits, 5)
		require.Equal(t, now, visits[3])
		require.Equal(t, now.Add(f.took+time.Second), visits[4], "a second after its end")
		require.Equal(t, 1, f.peak)
		require.Zero(t, stranger.count())
	})
}

// A probe that was under way when one was asked for says so, to who has asked: the
// next one does not, nor does one that was asked for before.
//
// Fails if every good result is as good as another, or if one Reporter's request
// makes the results of others stale.
func TestStaleResults(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		var asks, other reporter
		c.Update([]Target{aim("s:25", &asks), aim("s:25", &other)})
		pass(3 * time.Second)
		c.ProbeNow(&asks)
		pass(50 * time.Millisecond)
		require.Len(t, f.visits("s:25"), 2)
		c.ProbeNow(&asks)
		pass(2 * time.Second)
		require.Len(t, f.visits("s:25"), 3)
		var stale []bool
		for _, r := range asks.results {
			stale = append(stale, r.Stale)
		}
		require.Equal(t, []bool{false, true, false}, stale)
		for _, r := range other.results {
			require.False(t, r.Stale)
		}
	})
}

// An event loop calls it: no allocation.
func TestProbeNowDoesNotAllocate(t *testing.T) {
	c := newChecker(t, newField(0).dial)
	r := &reporter{}
	c.ProbeNow(r)
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { c.ProbeNow(r) }), 0.1)
}

// T29: a thousand servers are visited evenly. Fails if scheduleFirst starts all
// at once, or within a second.
func TestStaggering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(time.Second)
		c := newChecker(t, f.dial)
		targets := make([]Target, 1000)
		reporters := make([]reporter, len(targets))
		for i := range targets {
			targets[i] = aim(fmt.Sprint(i), &reporters[i])
		}
		began := time.Now()
		c.Update(targets)
		pass(time.Second)
		f.mu.Lock()
		require.InDelta(t, startRate, len(f.begun), 2)
		f.mu.Unlock()
		pass(2 * time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		mean := f.during.Seconds() / time.Since(began).Seconds()
		require.InDelta(t, 1000.0/11, mean, 10)
		require.LessOrEqual(t, float64(f.peak), 3*mean)
		require.Less(t, f.peak, maxRunning, "or this would show nothing")
	})
}

// No more than maxRunning at once, and everybody's turn comes. Fails without
// the bound in startDue.
func TestBoundedProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(10 * time.Second)
		c := newChecker(t, f.dial)
		targets := make([]Target, 1000)
		reporters := make([]reporter, len(targets))
		for i := range targets {
			targets[i] = aim(fmt.Sprint(i), &reporters[i]) // Timeout 5 s: none answers
			targets[i].Interval = 10 * time.Second
			targets[i].DownInterval = 10 * time.Second
		}
		c.Update(targets)
		pass(2 * time.Minute)
		require.Equal(t, maxRunning, f.peak)
		low, high := 1000, 0
		for i := range reporters {
			low, high = min(low, reporters[i].count()), max(high, reporters[i].count())
		}
		require.GreaterOrEqual(t, low, 4)
		require.LessOrEqual(t, high-low, 4, "fairly")
	})
}
