package stream

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
)

// TestNoStallBehindAFullPipe is T13: a server that has stopped reading while
// bulk runs, a pipe full of it, and behind that 100 segments of 100 bytes and
// the end of the stream. Small segments fill a pipe's slots long before its
// bytes (D1), a full pipe and an empty socket are both EAGAIN, and the end of a
// stream behind a full pipe is EAGAIN, too (D2). No further event tells of what
// is left in the socket: once the server reads, all must come at once.
//
// It fails if pump splices into a pipe that is not empty and takes EAGAIN for
// an empty socket.
func TestNoStallBehindAFullPipe(t *testing.T) {
	for _, size := range []int{64 << 10, 8 << 10, 4 << 10} {
		t.Run(fmt.Sprint(size>>10, "KiB"), func(t *testing.T) {
			l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
			g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
				p.prepare = func(w *worker) { w.loop.Pipes.Size = size }
			})
			took := make([]time.Duration, 100)
			var full atomic.Int32
			parallel(t, len(took), 1, func(i int) (err error) {
				took[i], err = behindAFullPipe(g, l, size, &full)
				return err
			})
			late := 0
			for _, d := range took {
				if d > 250*time.Millisecond {
					late++
				}
			}
			t.Log(smtptest.Summarize(took), "pipes full:", full.Load())
			require.LessOrEqual(t, late, 3, "a busy machine's; who waits for a timer is always late")
			require.NotZero(t, full.Load(), "no pipe was full")
		})
	}
}

// behindAFullPipe is one session of TestNoStallBehindAFullPipe. It returns how
// long the server read.
func behindAFullPipe(g *rig, l net.Listener, pipe int, full *atomic.Int32) (time.Duration, error) {
	client, err := g.connect()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer server.Close()
	const small, segments = 100, 100
	bulk := pipe + 112<<10 // more than the pipe and the buffers between it and the server take

	// Turn the half to splice, while everything still flows.
	if _, err := client.Write(make([]byte, bulk)); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(io.Discard, server, int64(bulk)); err != nil {
		return 0, err
	}
	g.each(deepen)
	g.each(narrow)
	if _, err := client.Write(make([]byte, bulk)); err != nil {
		return 0, err
	}
	for range segments {
		if _, err := client.Write(make([]byte, small)); err != nil {
			return 0, err
		}
	}
	if err := smtptest.CloseWrite(client); err != nil {
		return 0, err
	}
	if !g.comes(func(s *session) bool { return s.up.holds() && s.client.hup }) {
		return 0, fmt.Errorf("the session holds nothing")
	}
	if g.any(func(s *session) bool { return s.up.piped > 0 }) {
		full.Add(1)
	}
	if err := server.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	begin := time.Now()
	d, err := smtptest.Sink(server)
	if want := int64(bulk + segments*small); err == nil && d.N != want {
		err = fmt.Errorf("want %d bytes, got %d", want, d.N)
	}
	return time.Since(begin), err
}

// deepen gives a session room for what waits at its doors.
func deepen(s *session) {
	for _, e := range [...]end{s.client, s.server} {
		reactor.SetInt(int(e.fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 208<<10)
	}
}

// narrow leaves a session little room for what it has sent.
func narrow(s *session) {
	for _, e := range [...]end{s.client, s.server} {
		reactor.SetInt(int(e.fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 32<<10)
	}
}
