package stream

import (
	"io"
	"net"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A session that always has more to do gets one share in each round of its
// loop, however many events it has meanwhile, so others wait no longer than
// that for theirs. The round in which it begins to be busy may give it two.
//
// Fails if an event gives a session whose turn is due a share at once, or asks
// for one more; and, since here the mailbox is never empty, if a loop with mail
// does not look for events.
func TestBusySessionGetsOneShareARound(t *testing.T) {
	t.Parallel()
	const rounds, share = 500, turns << 10
	g := newRig(t, []string{serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })}, func(p *plan) {
		// A session that copies little at a time does not keep up with its client.
		p.BufferSize = share / turns
		p.prepare = func(w *worker) {
			w.calls.splice = func(_, _, _ int) (int, syscall.Errno) { return 0, unix.EPERM }
		}
	})
	c := g.dial()
	poured := make(chan struct{})
	go func() {
		defer close(poured)
		for chunk := make([]byte, 1<<20); ; {
			if _, err := c.Write(chunk); err != nil {
				return // closed, or not taken in time
			}
		}
	}()

	var moved []int64 // in each round that moved any
	var before int64  // 0: not looked at yet
	w, done := g.workers[0], make(chan struct{})
	var round func()
	round = func() {
		w.sessions.Each(func(_ uint32, s *session) {
			if before > 0 && s.up.in > before {
				moved = append(moved, s.up.in-before)
			}
			before = s.up.in
		})
		if len(moved) == rounds {
			close(done)
			return
		}
		w.loop.Post(round)
	}
	w.loop.Post(round)
	select {
	case <-done:
	case <-poured:
		require.FailNow(t, "the session was not busy for long enough")
	}
	c.Close()
	<-poured
	require.LessOrEqual(t, slices.Max(moved), int64(2*share))
}
