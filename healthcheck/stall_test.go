package healthcheck

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// T23: a bad result from a time in which the process did not run counts for
// nothing and is repeated; a good one counts. Fails if visit does not ask
// between, or if a fault is not repeated in a hurry.
func TestStallDiscards(t *testing.T) {
	bubble(t, func(t *testing.T, f *field, c *Checker) {
		f.took = 2 * time.Second
		f.fail("bad:25", syscall.ECONNREFUSED)
		var bad, good reporter
		c.Update([]Target{aim("bad:25", &bad), aim("good:25", &good)})
		pass(1500 * time.Millisecond) // both run
		c.stalls.mu.Lock()
		c.stalls.end = time.Now() // a bubble has no way to stop
		c.stalls.mu.Unlock()
		pass(1600 * time.Millisecond)
		require.Zero(t, bad.count())
		require.Equal(t, 1, good.count())
		pass(4 * time.Second)
		require.Equal(t, 1, bad.count())
		require.Len(t, f.visits("bad:25"), 2)
	})
}

func TestStalls(t *testing.T) {
	base := time.Now()
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	var s stalls
	require.False(t, s.between(at(0), at(5000)), "no tick yet: nothing is known")
	s.tick(at(0))
	s.tick(at(250))
	s.tick(at(1250))
	require.False(t, s.between(at(0), at(1300)), "a gap of a second is none")
	require.True(t, s.between(at(1200), at(5000)), "no tick since")
	s.tick(at(5000))
	require.True(t, s.between(at(1200), at(5100)))
	require.True(t, s.between(at(4900), at(5100)), "in its course")
	require.False(t, s.between(at(5000), at(5100)), "after it")
}
