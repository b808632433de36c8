package listener

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRefuse is what a removed listener owes its clients: the queued ones are
// served whole, no matter whether they speak before or after, and no new one
// gets in. Fails if refuseTCP binds to interface 0, which is none (the new
// connection is made), and, with the listener closed and opened again in
// Refuse's place, or shut down, for want of the 40.
func TestRefuse(t *testing.T) {
	t.Parallel()
	const queued = 40
	for name, o := range families(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustOpen(t, o)
			early := bytes.Repeat([]byte("EHLO before\r\n"), 500)
			late := bytes.Repeat([]byte("MAIL after\r\n"), 500)

			var clients []net.Conn
			for range queued {
				c := dial(t, s)
				_, err := c.Write(early)
				require.NoError(t, err)
				clients = append(clients, c)
			}
			require.NoError(t, s.Refuse())
			for _, c := range clients {
				_, err := c.Write(late)
				require.NoError(t, err)
			}

			requireRefused(t, s)
			servers := acceptAll(t, s)
			require.Len(t, servers, queued)
			for _, fd := range servers {
				require.Equal(t, string(early)+string(late), string(readN(t, fd, len(early)+len(late))))
				_, err := unix.Write(fd, []byte("250 "))
				require.NoError(t, err)
			}
			for _, c := range clients {
				got := make([]byte, 4)
				require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
				_, err := io.ReadFull(c, got)
				require.NoError(t, err)
				require.Equal(t, "250 ", string(got))
			}
			require.Empty(t, acceptAll(t, s))
		})
	}
}

// TestRefuseUnderWay holds a handshake between its SYN and its end while
// Refuse runs: TCP_DEFER_ACCEPT keeps a connection out of the accept queue
// until the client sends data. Fails with a filter that drops every segment in
// refuseTCP's place, or a shutdown.
func TestRefuseUnderWay(t *testing.T) {
	t.Parallel()
	for name, o := range families(t) {
		if name == "unix" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustOpen(t, o)
			require.NoError(t, unix.SetsockoptInt(s.FD(), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(patience.Seconds())))
			c := dial(t, s)
			require.Zero(t, tcpQueue(t, s).Unacked, "the handshake is over already")

			require.NoError(t, s.Refuse())
			require.Empty(t, acceptAll(t, s))
			want := bytes.Repeat([]byte("EHLO under way\r\n"), 1000)
			_, err := c.Write(want)
			require.NoError(t, err)
			require.Equal(t, string(want), string(readN(t, accept(t, s), len(want))))
		})
	}
}

// TestRefuseUnprivileged: production has no capability but, at most,
// CAP_NET_BIND_SERVICE. Fails with a packet filter (SO_ATTACH_FILTER) in
// refuseTCP's place on a kernel that keeps that for CAP_NET_ADMIN.
func TestRefuseUnprivileged(t *testing.T) {
	dropCapabilities(t, ^uint32(0))
	for name, o := range families(t) {
		s := mustOpen(t, o)
		c := dial(t, s)
		require.NoError(t, s.Refuse(), name)
		requireRefused(t, s)
		_, err := c.Write([]byte("EHLO"))
		require.NoError(t, err)
		require.Equal(t, "EHLO", string(readN(t, accept(t, s), 4)))
	}
}

// requireRefused: nobody is there. A removed path is ENOENT for its clients.
func requireRefused(t *testing.T, s *Socket) {
	t.Helper()
	want := unix.ECONNREFUSED
	if s.Addr().Path != "" {
		want = unix.ENOENT
	}
	_, err := net.DialTimeout(s.Addr().network(), s.Addr().target(), patience)
	require.ErrorIs(t, err, want, "a new connection")
}

func readN(t *testing.T, fd, n int) []byte {
	t.Helper()
	got := make([]byte, n)
	for have := 0; have < n; {
		k, err := unix.Read(fd, got[have:])
		require.NoError(t, err, "after %d of %d bytes", have, n)
		require.Positive(t, k, "end of stream after %d of %d bytes", have, n)
		have += k
	}
	return got
}

// TestRefuseFreesPath: the successor may take the path while the old socket
// is still being drained, and the old one's Close leaves it alone. Fails if
// Refuse leaves the path there.
func TestRefuseFreesPath(t *testing.T) {
	t.Parallel()
	o := path(t.TempDir() + "/s")
	old, err := Open(o)
	require.NoError(t, err)
	dial(t, old)
	require.NoError(t, old.Refuse())
	_, err = os.Lstat(o.Addr.Path)
	require.ErrorIs(t, err, os.ErrNotExist)

	successor := mustOpen(t, o)
	dial(t, successor)
	require.Len(t, acceptAll(t, old), 1)
	require.NoError(t, old.Close())
	dial(t, successor)
	require.Len(t, acceptAll(t, successor), 2)
}
