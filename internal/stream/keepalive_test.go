package stream

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
	"smtplb/listener"
)

// TestKeepaliveOfSessionsThatLast: a session's server socket gets keepalive
// with its first timer, which is the one that its connect was given. Fails if
// expired does not call keepAlive, or sets another option's value.
func TestKeepaliveOfSessionsThatLast(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{serve(t, func(c net.Conn) { smtptest.Echo(c) })}, func(p *plan) {
		p.ConnectTimeout = 200 * time.Millisecond
		p.Keepalive = listener.Keepalive{On: true, Idle: 77 * time.Second, Interval: 33 * time.Second, Count: 5}
	})
	g.dial()
	option := func(level, name int) (value int) {
		g.each(func(s *session) {
			if s.server.fd >= 0 {
				value, _ = unix.GetsockoptInt(int(s.server.fd), level, name)
			}
		})
		return value
	}
	smtptest.Eventually(t, patience, "keepalive", func() bool { return option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 1 })
	require.Equal(t, 77, option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
	require.Equal(t, 33, option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
	require.Equal(t, 5, option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
}
