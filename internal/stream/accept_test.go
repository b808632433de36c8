package stream

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
)

// ping sends a byte through an echoing session and waits for it.
func ping(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// TestSessionLimit: clients above the limit wait in the backlog, sessions go on
// as if nothing were, and each that ends makes room for one that waits. It fails
// if accept does not ask full, if resumeAccept does not watch the ports again, or
// if leave does not count.
func TestSessionLimit(t *testing.T) {
	t.Parallel()
	const limit, more = 10, 20
	g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) { p.Workers, p.MaxSessions = 2, limit })
	var held, waiting []net.Conn
	for range limit {
		c := g.dial()
		require.NoError(t, ping(c))
		held = append(held, c)
	}
	for range more {
		c := g.dial()
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		waiting = append(waiting, c)
	}
	smtptest.Eventually(t, shortly, "a pause", func() bool { return g.paused() })
	for _, c := range held {
		require.NoError(t, ping(c))
	}
	require.Equal(t, limit, g.Sessions())
	for _, c := range held {
		require.NoError(t, c.Close())
	}
	for i, c := range waiting {
		require.NoError(t, c.SetDeadline(time.Now().Add(shortly)))
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err, "waiting client %d", i)
		require.LessOrEqual(t, g.Sessions(), limit+1, "one more worker than one may have looked at the same time")
		require.NoError(t, c.Close())
	}
	g.gone(shortly)
}

// paused reports whether a worker has stopped accepting for a moment.
func (g *rig) paused() (is bool) {
	g.ask(func(w *worker) { is = is || w.paused })
	return is
}

// TestNoRoomInTheKernel is the second part of T17: accept fails for want of
// descriptors or memory, while clients wait. The loops do not spin, live
// sessions do not notice, the log says so once a second, and once there is room
// all who waited are served.
//
// It fails if pauseAccept does not take the listeners out of the loop (100,000
// calls a second), or logs without asking the limiter.
func TestNoRoomInTheKernel(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			const workers, clients, while = 2, 20, 1500 * time.Millisecond
			var scarce atomic.Bool
			var calls atomic.Int64
			g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) {
				p.Workers = workers
				p.prepare = func(w *worker) {
					w.calls.accept = func(from *reactor.Sockaddr, listener int) (int, syscall.Errno) {
						calls.Add(1)
						if scarce.Load() {
							return -1, errno
						}
						return from.Accept(listener)
					}
				}
			})
			live := g.dial()
			require.NoError(t, ping(live))
			scarce.Store(true)
			calls.Store(0)
			begin := time.Now()
			var waiting []net.Conn
			for range clients {
				c := g.dial()
				_, err := c.Write([]byte("x"))
				require.NoError(t, err)
				waiting = append(waiting, c)
			}
			for time.Since(begin) < while || calls.Load() < int64(while/(pause*time.Millisecond))/2 {
				require.NoError(t, ping(live))
				require.Less(t, time.Since(begin), patience, "nobody tries again")
				time.Sleep(10 * time.Millisecond)
			}
			n, lines := calls.Load(), g.logs.FilterMessageSnippet("accepting paused").All()
			took := time.Since(begin)
			require.LessOrEqual(t, n, int64(workers*(took/(pause*time.Millisecond)+1)))
			require.NotEmpty(t, lines)
			require.LessOrEqual(t, len(lines), 1+int(took/time.Second)+1)
			require.Equal(t, errno.Error(), lines[0].ContextMap()["error"])

			scarce.Store(false)
			room := time.Now()
			for i, c := range waiting {
				require.NoError(t, c.SetDeadline(room.Add(patience)))
				_, err := io.ReadFull(c, make([]byte, 1))
				require.NoError(t, err, "waiting client %d", i)
			}
			require.NoError(t, ping(live))
		})
	}
}

// TestAcceptErrors: an error that is about one connection, which has died in the
// queue, does not keep the next one waiting; any other, if it lasts, is no reason
// to spin. It fails if accept pauses at every error, or at none but those of
// TestNoRoomInTheKernel.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	for errno, about := range map[syscall.Errno]string{
		unix.ECONNABORTED: "one", unix.EPROTO: "one", unix.ENETDOWN: "one", unix.EHOSTUNREACH: "one",
		unix.EPERM: "all", unix.EINVAL: "all", unix.ENOSYS: "all",
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			const failures = 5
			var calls atomic.Int64
			g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) {
				p.prepare = func(w *worker) {
					w.calls.accept = func(from *reactor.Sockaddr, listener int) (int, syscall.Errno) {
						if calls.Add(1) <= failures {
							return -1, errno
						}
						return from.Accept(listener)
					}
				}
			})
			begin := time.Now()
			require.NoError(t, ping(g.dial()))
			if about == "one" {
				require.Empty(t, g.logs.FilterMessageSnippet("accepting paused").All())
			} else {
				require.GreaterOrEqual(t, time.Since(begin), (failures-1)*pause*time.Millisecond)
			}
		})
	}
}

// TestWorkersShareSessions holds 400 sessions, all of which one worker accepts as
// the others are busy just then. Each gets its share, within a quarter. It fails
// if place always chooses its own worker.
func TestWorkersShareSessions(t *testing.T) {
	t.Parallel()
	for workers := 2; workers <= 4; workers++ {
		const sessions = 400
		g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) { p.Workers = workers })
		thaw := freeze(g.workers[1:]...)
		var held []net.Conn
		for range sessions {
			held = append(held, g.dial())
		}
		smtptest.Eventually(t, patience, "all are accepted", func() bool { return g.Sessions() == sessions })
		thaw()
		for _, c := range held {
			require.NoError(t, ping(c))
		}
		fair := float64(sessions / workers)
		g.ask(func(w *worker) {
			if n := w.sessions.Len(); n != int(w.load.Load()) || float64(n) < fair*0.75 || float64(n) > fair*1.25 {
				t.Errorf("%d workers: %d sessions on one, %d counted, fair %v", workers, n, w.load.Load(), fair)
			}
		})
	}
}
