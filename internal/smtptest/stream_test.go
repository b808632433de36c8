package smtptest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSourceAndSinkAgree(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	sent, err := Source(&b, 1<<20, 1000, 7)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, sent.N)
	require.Equal(t, 1<<20, b.Len())
	stream := bytes.Clone(b.Bytes())
	got, err := Sink(&b)
	require.NoError(t, err)
	require.Equal(t, sent, got)

	// Neither a flipped bit nor two exchanged bytes nor a lost one passes.
	for name, spoil := range map[string]func([]byte) []byte{
		"flipped":   func(p []byte) []byte { p[5000] ^= 1; return p },
		"exchanged": func(p []byte) []byte { p[0], p[1] = p[1], p[0]; return p },
		"lost":      func(p []byte) []byte { return p[1:] },
	} {
		got, err := Sink(bytes.NewReader(spoil(bytes.Clone(stream))))
		require.NoError(t, err)
		require.NotEqual(t, sent, got, name)
	}

	again, err := Source(io.Discard, 1<<20, 64<<10, 7)
	require.NoError(t, err)
	require.Equal(t, sent, again, "the stream depends on the seed only, not on its segments")
	other, err := Source(io.Discard, 1<<20, 1000, 8)
	require.NoError(t, err)
	require.NotEqual(t, sent, other)
}

func TestSourceSegments(t *testing.T) {
	t.Parallel()
	var shortest, longest = 1 << 30, 0
	_, err := Source(writerFunc(func(p []byte) (int, error) {
		shortest, longest = min(shortest, len(p)), max(longest, len(p))
		return len(p), nil
	}), 1<<20, 50, 1)
	require.NoError(t, err)
	require.Equal(t, 1, shortest)
	require.Equal(t, 50, longest)

	full := errors.New("full")
	got, err := Source(writerFunc(func([]byte) (int, error) { return 1, full }), 100, 50, 1)
	require.ErrorIs(t, err, full)
	require.EqualValues(t, 1, got.N)

	got, err = Source(io.Discard, 0, 50, 1)
	require.NoError(t, err)
	require.Zero(t, got.N)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestEcho(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := dial(t, Serve(t, ln, Echo).Addr())
	done := make(chan Digest)
	go func() {
		d, err := Source(c, 1<<20, 64<<10, 1)
		if err != nil || c.CloseWrite() != nil {
			t.Errorf("send: %v", err)
		}
		done <- d
	}()
	got, err := Sink(c)
	require.NoError(t, err)
	require.Equal(t, <-done, got)
}

func TestAbortResets(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connected := make(chan struct{})
	s := Serve(t, ln, func(c net.Conn) {
		<-connected
		Abort(c)
	})
	c := dial(t, s.Addr())
	close(connected)
	c.expectEnd(syscall.ECONNRESET)

	a, b := net.Pipe()
	defer b.Close()
	require.ErrorContains(t, CloseWrite(a), "has no CloseWrite")
	require.NoError(t, Abort(a))
}

// Fails without RcvBuf: loopback takes megabytes.
func TestSmallReceiverTakesLittle(t *testing.T) {
	t.Parallel()
	took := func(control func(string, string, syscall.RawConn) error, within time.Duration) int64 {
		lc := net.ListenConfig{Control: control}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		var s *Service
		s = Serve(t, ln, func(net.Conn) { <-s.Done() })
		c := dial(t, s.Addr())
		require.NoError(t, c.SetWriteBuffer(4096))
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(within)))
		d, err := Source(c, 128<<10, 4096, 1)
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		return d.N
	}
	require.Less(t, took(RcvBuf(2048), 200*time.Millisecond), int64(64<<10))
	require.Greater(t, took(nil, patience), int64(64<<10))
}
