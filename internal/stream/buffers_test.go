package stream

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestBuffersOfServers: sockets to servers have the buffers of the route when they
// connect, as the window says that a server is offered; without any, the kernel's
// own. It doubles what it is given.
//
// Fails if setBuffers takes one for the other, sets what is 0, or comes after the
// connect.
func TestBuffersOfServers(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for _, x := range []struct{ rcv, snd, locks int }{
			{},
			{20 << 10, 0, unix.SOCK_RCVBUF_LOCK},
			{0, 30 << 10, unix.SOCK_SNDBUF_LOCK},
			{20 << 10, 30 << 10, unix.SOCK_RCVBUF_LOCK | unix.SOCK_SNDBUF_LOCK},
		} {
			l := listen(t, network)
			addr := l.Addr().String()
			if network == "unix" {
				addr = "unix:" + addr
			}
			g := newRig(t, []string{addr}, func(p *plan) { p.RcvBuf, p.SndBuf = x.rcv, x.snd })
			client, server := g.pair(l)
			_, err := io.WriteString(server, "220 ")
			require.NoError(t, err)
			require.Equal(t, "220 ", read(t, client, 4))

			var rcv, snd, locks int
			g.each(func(s *session) {
				fd := int(s.server.fd)
				rcv, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
				snd, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
				locks, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
			})
			require.Equal(t, x.locks, locks, "%s %+v", network, x)
			if x.rcv > 0 {
				require.Equal(t, 2*x.rcv, rcv)
			}
			if x.snd > 0 {
				require.Equal(t, 2*x.snd, snd)
			}
			if x.rcv > 0 && network == "tcp" {
				require.LessOrEqual(t, offered(t, server), 2*x.rcv)
			}
		}
	}
}

// offered is the receive window that the peer of a TCP connection has announced.
func offered(t *testing.T, c net.Conn) (window int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		require.NoError(t, err)
		window = int(info.Snd_wnd)
	}))
	return window
}
