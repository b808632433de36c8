package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// stall is what no reply takes that the server gives at once. The kernel's
// timers that can hold a small segment back are longer: 40 ms for the delayed
// acknowledgement that Nagle's algorithm waits for, 200 ms for a corked socket.
const stall = 30 * time.Millisecond

// T16: command and reply, over and over, in turn directly and through the
// balancer, so that whatever else the machine does hits both.
//
// Fails without TCP_NODELAY (where parts follow each other), and if splice is
// given SPLICE_F_MORE (where bulk goes before).
func TestPingPong(t *testing.T) {
	t.Parallel()
	text := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 2500) // 200 kB
	for _, test := range []struct {
		name      string
		exchanges int
		parts     []string // of what the client sends
	}{
		{"whole", 16000, []string{"NOOP\r\n"}},
		{"command-in-parts", 2000, []string{"NO", "OP\r\n"}},
		{"reply-in-parts", 2000, []string{"HELP\r\n"}},
		{"message", 300, []string{"DATA\r\n" + text + ".\r\n"}},
		{"message-in-parts", 300, []string{"DATA\r\n" + text, ".\r\n"}},
		{"long-reply", 300, []string{"EXPN\r\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := smtptest.Serve(t, loopback(t), chat).Addr()
			addr := freeAddr(t)
			smtptest.Start(t, workers(1)+proxy(addr, server))
			direct, proxied := call(t, server), call(t, addr)
			for range test.exchanges {
				require.NoError(t, direct.exchange(test.parts...))
				require.NoError(t, proxied.exchange(test.parts...))
			}
			requireNoStall(t, direct.took, proxied.took)
		})
	}
}

// requireNoStall fails if replies stall through the balancer that do not stall
// directly. On a busy machine a few are late on both ways, and more on the way
// on which more processes have to run; what waits for a timer is always late.
func requireNoStall(t testing.TB, direct, proxied []time.Duration) {
	t.Helper()
	stalled := func(took []time.Duration) (n int) {
		for _, d := range took {
			if d > stall {
				n++
			}
		}
		return n
	}
	d, p := stalled(direct), stalled(proxied)
	t.Logf("direct:  %v, %d above %v", smtptest.Summarize(direct), d, stall)
	t.Logf("proxied: %v, %d above %v", smtptest.Summarize(proxied), p, stall)
	require.LessOrEqual(t, p, 3*d+5+len(proxied)/100, "stalled replies, of %d; %d directly", len(proxied), d)
}

// chat serves, one after the other: NOOP; HELP, whose reply comes in parts;
// EXPN, with a long reply; DATA, with the message behind it and a reply only to
// its end; and BULK, after which all is discarded.
func chat(c net.Conn) {
	long := strings.Repeat("250-"+strings.Repeat("x", 74)+"\r\n", 2500) + "250 end\r\n"
	in := bufio.NewReader(c)
	for message := false; ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case message && string(line) != ".\r\n":
			continue
		case message:
			message = false
			err = say(c, "250 stored\r\n")
		case string(line) == "DATA\r\n":
			message = true
		case string(line) == "NOOP\r\n":
			err = say(c, "250 ok\r\n")
		case string(line) == "HELP\r\n":
			err = say(c, "250-no\r\n", "250 help\r\n")
		case string(line) == "EXPN\r\n":
			err = say(c, long)
		case string(line) == "BULK\r\n":
			discard(c)
			return
		}
		if err != nil {
			return
		}
	}
}

// say writes parts, with time between them for each to be relayed by itself.
func say(c net.Conn, parts ...string) error {
	for i, part := range parts {
		if i > 0 {
			time.Sleep(200 * time.Microsecond)
		}
		if _, err := io.WriteString(c, part); err != nil {
			return err
		}
	}
	return nil
}

// caller is a client of chat, used by one goroutine at a time.
type caller struct {
	net.Conn
	in    *bufio.Reader
	clock func() (time.Duration, error)
	took  []time.Duration // each exchange, by the clock
}

// call connects a client, and proves that it is connected to a server.
func call(t testing.TB, addr string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	c := &caller{Conn: conn, in: bufio.NewReader(conn), clock: sinceStart}
	require.NoError(t, c.exchange("NOOP\r\n"))
	c.took = nil
	return c
}

var started = time.Now()

func sinceStart() (time.Duration, error) { return time.Since(started), nil }

// exchange sends a command and reads the reply.
func (c *caller) exchange(parts ...string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	begun, err := c.clock()
	if err != nil {
		return err
	}
	if err := say(c, parts...); err != nil {
		return err
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || line[0] != '2' {
			return fmt.Errorf("unexpected reply: %q", line)
		}
		if line[3] == ' ' {
			ended, err := c.clock()
			c.took = append(c.took, ended-begun)
			return err
		}
	}
}

// loopback listens for a server.
func loopback(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}
