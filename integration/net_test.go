package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/tunpump"
)

// T15: a server says its last word and closes while the client, 50 ms away on
// a network that loses 2 % of its packets, is still sending. Every client reads
// all of that word and then the end of the stream.
//
// Fails if the client's connection is closed without an end of stream first and
// without reading what still comes: the kernel then answers that with a reset,
// which overtakes what it has not sent, or had to send again.
func TestLastReplyArrives(t *testing.T) {
	t.Parallel()
	const (
		clients = 1000
		atATime = 200
		excess  = 32 << 10 // sent by each client and read by nobody
	)
	// The client names how it is to be treated.
	farewells := []farewell{
		{reply: lines("221-", 1)},
		{reply: lines("221-", 1), abrupt: true},
		{reply: lines("221-", 600)}, // 48 KiB: more than the first window
		{reply: lines("221-", 600), abrupt: true},
	}
	server := smtptest.Serve(t, smallListener(t), func(c net.Conn) { sayFarewell(c, farewells) }).Addr()
	link := tunpump.New(t, tunpump.Config{Delay: 25 * time.Millisecond, Loss: 0.02, Seed: 15})
	addr := netip.AddrPortFrom(link.Near(), uint16(smtptest.FreePort(t))).String()
	smtptest.Start(t, proxy(addr, server))

	var (
		all   sync.WaitGroup
		errs  = make(chan error, clients)
		seats = make(chan struct{}, atATime)
	)
	for i := range clients {
		seats <- struct{}{}
		all.Go(func() {
			n := i % len(farewells)
			got, err := quitEarly(t.Context(), link, addr, n, excess)
			if err == nil && got != farewells[n].reply {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				err = fmt.Errorf("farewell %d: after %d of %d bytes: %w", n, len(got), len(farewells[n].reply), err)
			}
			errs <- err
			<-seats
		})
	}
	all.Wait()
	failed := 0
	for range clients {
		if err := <-errs; err != nil {
			if failed++; failed <= 3 {
				t.Error(err)
			}
		}
	}
	toFar, toNear := link.Stats()
	t.Logf("lost on the way: %d of %d packets to clients, %d of %d from them", toFar.Dropped, toFar.Sent, toNear.Dropped, toNear.Sent)
	require.Zero(t, failed, "clients that did not read all, of %d", clients)
}

// farewell is how a server ends a session.
type farewell struct {
	reply  string
	abrupt bool // close at once, with input unread, instead of reading it
}

// lines is a reply of n lines of 80 bytes.
func lines(prefix string, n int) string {
	line := prefix + strings.Repeat("x", 80-len(prefix)-2) + "\r\n"
	return strings.Repeat(line, n)
}

// sayFarewell reads the number of a farewell and plays it. Only that line is
// read before the reply and the end of the stream are sent.
func sayFarewell(c net.Conn, farewells []farewell) {
	var n int
	if _, err := fmt.Fscanf(c, "QUIT %d\r\n", &n); err != nil {
		return
	}
	f := farewells[n]
	if _, err := io.WriteString(c, f.reply); err != nil {
		return
	}
	if err := smtptest.CloseWrite(c); err != nil || f.abrupt {
		return
	}
	_, _ = io.Copy(io.Discard, c)
}

// quitEarly sends QUIT with the number of a farewell, goes on sending, and then
// reads to the end of the stream.
func quitEarly(ctx context.Context, link *tunpump.Link, addr string, n, excess int) (string, error) {
	c, err := link.Dial(ctx, "tcp4", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, fmt.Sprintf("QUIT %d\r\n", n)+lines("NOOP ", excess/80)); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

// smallListener listens for a server that soon takes no more than it reads.
func smallListener(t testing.TB) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: smtptest.RcvBuf(4 << 10)}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}
