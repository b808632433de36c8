package stream

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// answer says something at once, as an early talker, and returns the answer.
func (g *rig) answer() (string, error) {
	g.t.Helper()
	c := g.dial()
	_, err := c.Write([]byte("hello"))
	require.NoError(g.t, err)
	require.NoError(g.t, smtptest.CloseWrite(c))
	b, err := io.ReadAll(c)
	return string(b), err
}

// status returns the state of the servers by their names.
func (g *rig) status() map[string]upstream.Status {
	all := make(map[string]upstream.Status)
	for _, s := range g.group.Snapshot(g.Seconds()) {
		all[s.Name] = s
	}
	return all
}

// noListener returns a unix socket at which nobody listens.
func noListener(t *testing.T) string { return "unix:" + t.TempDir() + "/nobody" }

// full returns a unix socket whose backlog is full.
func full(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/full"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	require.NoError(t, unix.Listen(fd, 0))
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return "unix:" + path
}

// hole returns a server that does not answer to SYN.
func hole(t *testing.T) string {
	t.Helper()
	s := smtptest.NewServer(t, smtptest.Script{})
	require.NoError(t, s.Blackhole(true))
	return s.Addr()
}

// TestNextUpstream tries a server that cannot be reached, in every way there is,
// and then one that can. What the client said meanwhile is all for the second.
// It fails if failed does not book the outcome, or ends the session.
func TestNextUpstream(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(*testing.T) string{
		"refused":      func(t *testing.T) string { return smtptest.Refused(t) },
		"silent":       hole,
		"no socket":    noListener,
		"full backlog": full,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := bad(t)
			g := newRig(t, []string{addr, serve(t, smtptest.Echo)}, func(p *plan) {
				p.ConnectTimeout = 200 * time.Millisecond
			})
			for range 2 { // the second does not try the failed one
				got, err := g.answer()
				require.NoError(t, err)
				require.Equal(t, "hello", got)
			}
			require.Equal(t, uint64(3), g.Stats().Attempts)
			require.Equal(t, 1, g.status()[addr].Fails)
			require.Equal(t, upstream.StateUnavail, g.status()[addr].State)
		})
	}
}

// TestNoServerLeft: the client gets the end of a stream and no reset, although
// nobody has read what it said. It fails if finish hangs up on it.
func TestNoServerLeft(t *testing.T) {
	t.Parallel()
	a, b := smtptest.Refused(t), noListener(t)
	g := newRig(t, []string{a, b})
	for _, end := range []cause{causeConnectFailed, causeNoServer} {
		got, err := g.answer()
		require.NoError(t, err)
		require.Empty(t, got)
		g.gone(shortly)
		all := g.accounts()
		require.Equal(t, end.String(), all[len(all)-1].end)
	}
	require.Equal(t, uint64(2), g.Stats().Attempts)
}

// TestTriesAndTime bounds the attempts of a session: by their number, by the
// time since the first began, and to one where there is to be no other. It fails
// in the row named if failed does not look at that.
func TestTriesAndTime(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		set  func(*plan)
		want uint64
	}{
		"all":   {func(*plan) {}, 4},
		"tries": {func(p *plan) { p.Tries = 3 }, 3},
		"time":  {func(p *plan) { p.NextTimeout = 1900 * time.Millisecond }, 2},
		"off":   {func(p *plan) { p.NextUpstream = false }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, []string{hole(t), hole(t), hole(t), hole(t)}, func(p *plan) {
				p.ConnectTimeout = time.Second
				row.set(p)
			})
			begin := time.Now()
			got, err := g.answer()
			require.NoError(t, err)
			require.Empty(t, got)
			require.Equal(t, row.want, g.Stats().Attempts)
			least := time.Duration(row.want) * time.Second
			require.GreaterOrEqual(t, time.Since(begin), least, "an attempt was cut short")
			require.Less(t, time.Since(begin), least+patience)
		})
	}
}

// TestNoSocketForTheServer: that we have no descriptor left, or may not do what
// we want to, is no server's fault. It fails if the outcome of any call but
// connect is taken from its error, among which EPERM means unreachable.
func TestNoSocketForTheServer(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{unix.EMFILE, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			testNoSocket(t, errno)
		})
	}
}

func testNoSocket(t *testing.T, errno syscall.Errno) {
	a, b := serve(t, smtptest.Echo), serve(t, smtptest.Echo)
	g := newRig(t, []string{a, b}, func(p *plan) {
		p.prepare = func(w *worker) {
			left := 2
			w.calls.socket = func(to *reactor.Sockaddr) (int, syscall.Errno) {
				if left--; left >= 0 {
					return -1, errno
				}
				return to.Socket()
			}
		}
	})
	got, err := g.answer()
	require.NoError(t, err)
	require.Empty(t, got)
	got, err = g.answer()
	require.NoError(t, err)
	require.Equal(t, "hello", got)
	for _, s := range g.status() {
		require.Zero(t, s.Fails, s.Name)
	}
	require.Equal(t, 1, g.logs.FilterMessage("socket failed").Len())
}

// TestServerSocketOptions looks at what the servers see of our sockets, and at
// the sockets; keepalive comes later, see keepalive_test.go.
func TestServerSocketOptions(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
		p.Bind.Addr = netip.MustParseAddrPort("127.0.0.9:0")
	})
	_, server := g.pair(l)
	require.Equal(t, "127.0.0.9", server.RemoteAddr().(*net.TCPAddr).IP.String())
	require.True(t, g.comes(relaying))
	g.each(func(s *session) {
		for _, o := range []struct{ level, option, want int }{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
			{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1},
		} {
			got, err := unix.GetsockoptInt(int(s.server.fd), o.level, o.option)
			if err != nil || got != o.want {
				t.Errorf("option %d of level %d: want %d, got %d, %v", o.option, o.level, o.want, got, err)
			}
		}
	})
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "CI needs an IPv6 loopback address: %v", err)
		t.Skip("no IPv6 here: ", err)
	}
	server := smtptest.Serve(t, l, smtptest.Echo)
	g := newRig(t, []string{server.Addr()}, func(p *plan) { p.listen = "[::1]:0" })
	got, err := g.answer()
	require.NoError(t, err)
	require.Equal(t, "hello", got)
	g.gone(shortly)
	require.True(t, strings.HasPrefix(g.accounts()[0].client, "[::1]:"), g.accounts()[0].client)
}
