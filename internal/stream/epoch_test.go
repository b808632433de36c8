package stream

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"smtplb/internal/script"
	"smtplb/internal/smtptest"
)

// over reports whether an epoch's channel is closed.
func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// An epoch is over when the last of its sessions has gone, on whichever loop,
// and not before; those of the next one do not matter.
//
// Fails if End does not ask every worker, if leave does not check, or if a session
// leaves the epoch of the day and not its own. That all who join also leave is seen
// by settle, after each test of the package.
func TestEpoch(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) { p.Workers = 2 })
	call := func() net.Conn {
		c := g.dial()
		require.NoError(t, ping(c))
		return c
	}
	var old [20]net.Conn // more than one loop takes for itself
	for i := range old {
		old[i] = call()
	}
	g.each(func(s *session) { require.Same(t, g.epoch, s.route.Epoch) })
	g.ask(func(w *worker) { require.NotZero(t, w.sessions.Len(), "sessions of worker %d", w.index) })

	first := g.epoch
	next := g.port.restRoute()
	next.Epoch = g.NewEpoch()
	g.epoch = next.Epoch
	g.port.setRoute(&next)
	ended := first.End()
	young := call()
	for i, c := range old {
		require.False(t, over(ended), "with %d sessions", len(old)-i)
		require.NoError(t, c.Close())
	}
	await(t, patience, ended, "the epoch is not over")
	require.NoError(t, ping(young))
	require.NoError(t, young.Close())
}

// Under load, with sessions that one loop accepts for another, no session begins
// in an epoch that is over, and every epoch comes to its end.
//
// Fails, with -race, if End looks at the tallies itself instead of by the workers'
// mailboxes; and if a session leaves the epoch of the day and not its own.
func TestEpochsUnderLoad(t *testing.T) {
	t.Parallel()
	const epochs, callers = 200, 4
	g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) { p.Workers = 2 })
	var calls atomic.Int64
	var stop atomic.Bool
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for !stop.Load() && !t.Failed() {
				c, err := g.connect()
				if err == nil {
					err = ping(c)
					c.Close()
				}
				if err != nil {
					t.Error(err)
				}
				calls.Add(1)
			}
		})
	}
	for range epochs {
		before := calls.Load()
		last, next := g.epoch, g.port.restRoute()
		next.Epoch = g.NewEpoch()
		g.epoch = next.Epoch
		g.port.setRoute(&next)
		await(t, patience, last.End(), "the epoch is not over")
		g.ask(func(w *worker) {
			if n := last.sessions[w.index].n; n != 0 {
				t.Errorf("%d sessions in an epoch that is over", n)
			}
		})
		require.True(t, soon(func() bool { return calls.Load() > before }))
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	calling.Wait()
}

// What a worker keeps for sessions to come is nothing of those that have gone: a
// configuration of before, with its tables, goes with the last of its sessions.
//
// Fails if forget does not end what was evaluated.
func TestNothingIsKeptOfAConfiguration(t *testing.T) {
	const sessions = 3
	g := newRig(t, []string{newWitness(t, good).addr}, gated)
	var before weak.Pointer[script.Scope]
	for i, n := range []int{sessions, 1} {
		scope := script.NewScope(script.Process{})
		require.NoError(t, scope.Set("$word"))
		require.NoError(t, scope.Build())
		word, err := scope.Assign("$word", "$remote_addr")
		require.NoError(t, err)
		r := g.port.restRoute()
		r.Scope, r.Sets = scope, []*script.Assignment{word}
		g.port.setRoute(&r)
		var clients [sessions]net.Conn
		for i := range n {
			clients[i] = g.dial()
			greetingOf(t, clients[i])
		}
		for i := range n {
			clients[i].Close()
		}
		g.gone(patience)
		if i == 0 {
			before = weak.Make(scope)
		}
	}
	g.ask(func(w *worker) { require.Len(t, w.kept, sessions) })
	require.True(t, soon(func() bool {
		runtime.GC()
		return before.Value() == nil
	}), "the former scope is still there")
}
