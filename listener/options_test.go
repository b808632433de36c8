package listener

import (
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func itoa(port uint16) string { return strconv.Itoa(int(port)) }

// dropCapabilities takes those of a mask (the first 32) from the calling
// thread, which ends with the test's goroutine and does not get them back.
func dropCapabilities(t *testing.T, mask uint32) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= mask
	require.NoError(t, unix.Capset(&header, &data[0]))
}

// tcpOptions are the inheritable options of a socket, by name.
func tcpOptions(t *testing.T, fd int) map[string]int {
	t.Helper()
	return map[string]int{
		"SO_OOBINLINE":  getInt(t, fd, unix.SOL_SOCKET, unix.SO_OOBINLINE),
		"SO_KEEPALIVE":  getInt(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE),
		"TCP_KEEPIDLE":  getInt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
		"TCP_KEEPINTVL": getInt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
		"TCP_KEEPCNT":   getInt(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
		"TCP_NODELAY":   getInt(t, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY),
	}
}

// TestInheritance shows that this kernel gives an accepted connection all that
// was set on the listening socket, the first connection as any other, and that
// Apply changes it for the next. Fails for each line taken out of setOptions
// and setKeepalive, and (last part) if setKeepalive leaves a value that is
// zero in the options alone.
func TestInheritance(t *testing.T) {
	t.Parallel()
	for name, o := range families(t) {
		if name == "unix" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A value of the kernel's own that no test here sets.
			plain := mustOpen(t, o)
			dial(t, plain)
			kernel := tcpOptions(t, accept(t, plain))
			require.Zero(t, kernel["TCP_NODELAY"])
			require.Zero(t, kernel["SO_KEEPALIVE"])
			require.NotZero(t, kernel["SO_OOBINLINE"])

			o.NoDelay = true
			o.Keepalive = Keepalive{On: true, Idle: 121 * time.Second, Interval: 31 * time.Second, Count: 4}
			want := map[string]int{
				"SO_OOBINLINE": 1, "SO_KEEPALIVE": 1, "TCP_NODELAY": 1,
				"TCP_KEEPIDLE": 121, "TCP_KEEPINTVL": 31, "TCP_KEEPCNT": 4,
			}
			s := mustOpen(t, o)
			dial(t, s)
			require.Equal(t, want, tcpOptions(t, accept(t, s)))

			o.NoDelay = false
			o.Keepalive = Keepalive{On: true, Count: 7}
			require.NoError(t, s.Apply(o))
			want["TCP_NODELAY"] = 0
			want["TCP_KEEPIDLE"], want["TCP_KEEPINTVL"], want["TCP_KEEPCNT"] = kernel["TCP_KEEPIDLE"], kernel["TCP_KEEPINTVL"], 7
			dial(t, s)
			require.Equal(t, want, tcpOptions(t, accept(t, s)))

			o.Keepalive = Keepalive{}
			require.NoError(t, s.Apply(o))
			dial(t, s)
			require.Zero(t, tcpOptions(t, accept(t, s))["SO_KEEPALIVE"])
		})
	}
}

// TestBuffers: connections have the sizes that were set, from the first on and as
// Apply changes them, and the kernel's own sizing again where that takes one out.
// The kernel doubles what it is given.
//
// Fails if setBuffers takes one for the other, if Apply leaves a size there or
// fixed, or if it loosens the other buffer, too.
func TestBuffers(t *testing.T) {
	t.Parallel()
	type buffers struct{ rcv, snd, fixed int }
	for name, o := range families(t) {
		if name == "unix" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			accepted := func(s *Socket) (b buffers) {
				dial(t, s)
				fd := accept(t, s)
				b.fixed = getInt(t, fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
				b.rcv = getInt(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
				b.snd = getInt(t, fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
				return b
			}
			kernel := accepted(mustOpen(t, o))
			require.Zero(t, kernel.fixed)

			o.RcvBuf, o.SndBuf = 20<<10, 30<<10
			const both = unix.SOCK_RCVBUF_LOCK | unix.SOCK_SNDBUF_LOCK
			s := mustOpen(t, o)
			require.Equal(t, buffers{40 << 10, 60 << 10, both}, accepted(s))
			for _, x := range []struct {
				rcv, snd int
				want     buffers
			}{
				{25 << 10, 30 << 10, buffers{50 << 10, 60 << 10, both}},
				{0, 30 << 10, buffers{kernel.rcv, 60 << 10, unix.SOCK_SNDBUF_LOCK}},
				{20 << 10, 0, buffers{40 << 10, kernel.snd, unix.SOCK_RCVBUF_LOCK}},
				{0, 0, kernel},
			} {
				o.RcvBuf, o.SndBuf = x.rcv, x.snd
				require.NoError(t, s.Apply(o))
				require.Equal(t, x.want, accepted(s))
			}
		})
	}
}

// TestFastOpen fails if TCP_FASTOPEN is not set, or stays when it is taken out.
func TestFastOpen(t *testing.T) {
	t.Parallel()
	o := tcp("127.0.0.1:0")
	o.FastOpen = 5
	s := mustOpen(t, o)
	for _, n := range []int{5, 7, 0, 3} {
		o.FastOpen = n
		require.NoError(t, s.Apply(o))
		require.Equal(t, n, getInt(t, s.FD(), unix.IPPROTO_TCP, unix.TCP_FASTOPEN))
	}
}

// TestApplyBacklog changes the queue's length on a live socket with a
// connection in it. Fails if Apply does not call listen.
func TestApplyBacklog(t *testing.T) {
	t.Parallel()
	o := tcp("127.0.0.1:0")
	o.Backlog = 7
	s := mustOpen(t, o)
	require.Equal(t, uint32(7), tcpQueue(t, s).Sacked, "backlog")
	dial(t, s)

	o.Addr, o.Backlog = s.Addr(), 11
	require.NoError(t, s.Apply(o))
	require.Equal(t, uint32(11), tcpQueue(t, s).Sacked, "backlog")
	require.Len(t, acceptAll(t, s), 1, "the connection that was queued")
}

// tcpQueue is TCP_INFO of a listening socket, in which Unacked is the length
// of the accept queue and Sacked its limit.
func tcpQueue(t *testing.T, s *Socket) *unix.TCPInfo {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(s.FD(), unix.IPPROTO_TCP, unix.TCP_INFO)
	require.NoError(t, err)
	return info
}

// TestApplyUnixBacklog counts: a unix socket's queue takes backlog + 1
// connections. Fails if listen ignores the backlog or Apply does not call it.
func TestApplyUnixBacklog(t *testing.T) {
	t.Parallel()
	o := path(t.TempDir() + "/s")
	o.Backlog = 2
	s := mustOpen(t, o)
	require.Equal(t, 3, fillUnix(t, s))

	o.Backlog = 5
	require.NoError(t, s.Apply(o))
	require.Equal(t, 3, fillUnix(t, s))
	require.Len(t, acceptAll(t, s), 6)
}

// fillUnix connects until the queue is full.
func fillUnix(t *testing.T, s *Socket) (n int) {
	t.Helper()
	for ; ; n++ {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.Addr().Path})
		if err == unix.EAGAIN {
			return n
		}
		require.NoError(t, err)
	}
}

// TestReusePort lets a second socket in only if both ask for it, whether the
// first did so when it was opened or later. Fails if setOptions leaves the
// flag alone.
func TestReusePort(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, tcp("127.0.0.1:0"))
	second := Options{Addr: s.Addr(), ReusePort: true}
	_, err := Open(second)
	require.ErrorIs(t, err, unix.EADDRINUSE)

	require.NoError(t, s.Apply(second))
	mustOpen(t, second)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	o := tcp("127.0.0.1:0")
	s := mustOpen(t, o)

	require.NoError(t, s.Check(o), "as it was asked for, with port 0")
	o.Addr = s.Addr()
	require.NoError(t, s.Check(o), "as it is")
	o.IPv6Only = true
	require.NoError(t, s.Check(o), "ipv6only means nothing here")

	elsewhere := tcp("127.0.0.2:0")
	require.ErrorContains(t, s.Check(elsewhere), "options of 127.0.0.2:0 do not belong to this socket")
	require.ErrorContains(t, s.Check(path("/run/s")), "options of unix:/run/s do not belong to this socket")

	for want, k := range map[string]Keepalive{
		"keepalive idle time 1.5s: want whole seconds, at most 32767":  {Idle: 1500 * time.Millisecond},
		"keepalive idle time 9h6m8s: want whole seconds":               {Idle: 32768 * time.Second},
		"keepalive interval 9h6m8s: want whole seconds, at most 32767": {Interval: 32768 * time.Second},
		"keepalive interval -1s: want whole seconds":                   {Interval: -time.Second},
		"keepalive count 128: want at most 127":                        {Count: 128},
		"keepalive count -1: want at most 127":                         {Count: -1},
	} {
		bad := o
		bad.Keepalive = k
		require.ErrorContains(t, s.Check(bad), "listen "+s.Addr().String()+": "+want)
		require.Error(t, s.Apply(bad))
		_, err := Open(bad)
		require.ErrorContains(t, err, want)
	}
	o.Keepalive = Keepalive{On: true, Idle: maxKeepaliveTime, Interval: maxKeepaliveTime, Count: maxKeepaliveCount}
	require.NoError(t, s.Apply(o), "the kernel takes the greatest values")
}

// TestIPv6Only fails if IPV6_V6ONLY is not set (net.ipv6.bindv6only is 0 by
// default: the socket would take 127.0.0.1 too), or not cleared where
// bindv6only is 1.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	if !haveIPv6(t) {
		t.Skip("no IPv6")
	}
	o := tcp("[::]:0")
	o.IPv6Only = true
	only := mustOpen(t, o)
	require.Equal(t, 1, getInt(t, only.FD(), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY))
	o.IPv6Only = false
	both := mustOpen(t, o)
	require.Equal(t, 0, getInt(t, both.FD(), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY))

	require.ErrorContains(t, only.Check(o), "ipv6only cannot change while the socket is open: restart to change it, or keep ipv6only=on")
	require.Error(t, only.Apply(o))
	require.NoError(t, both.Check(o))
}

// TestBeside opens a wildcard beside an address that it covers, and the other way
// round, both families mixed. Each connection comes to the more specific one, and
// when that refuses, to the other. Once open, neither lets a third one in.
//
// Fails if Open leaves a socket's SO_REUSEPORT alone, or as it was while it opened.
func TestBeside(t *testing.T) {
	t.Parallel()
	pairs := [][2]Options{{tcp("127.0.0.1:0"), tcp("0.0.0.0:0")}}
	if haveIPv6(t) {
		only := tcp("[::]:0")
		only.IPv6Only = true
		pairs = append(pairs, [2]Options{tcp("[::1]:0"), only}, [2]Options{tcp("[::1]:0"), tcp("[::]:0")},
			[2]Options{tcp("127.0.0.1:0"), tcp("[::]:0")}, [2]Options{tcp("0.0.0.0:0"), tcp("[::]:0")})
	}
	for _, pair := range pairs {
		for _, wide := range []int{0, 1} {
			port := freePort(t)
			var opened [2]*Socket
			at := func(o Options) Options {
				o.Addr.TCP = netip.AddrPortFrom(o.Addr.TCP.Addr(), port)
				return o
			}
			first, second := at(pair[wide]), at(pair[1-wide])
			opened[wide] = mustOpen(t, first)
			_, err := Open(second)
			require.ErrorIs(t, err, unix.EADDRINUSE, "%v beside %v", second.Addr, first.Addr)
			opened[1-wide], err = Open(second, opened[wide])
			require.NoError(t, err, "%v beside %v", second.Addr, first.Addr)
			t.Cleanup(func() { require.NoError(t, opened[1-wide].Close()) })
			for _, s := range opened {
				require.Zero(t, getInt(t, s.FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT))
			}

			target := at(pair[0])
			if target.Addr.TCP.Addr().IsUnspecified() {
				target.Addr.TCP = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
			}
			connect := func() {
				c, err := net.DialTimeout("tcp", target.Addr.TCP.String(), patience)
				require.NoError(t, err)
				t.Cleanup(func() { c.Close() })
			}
			connect()
			require.Len(t, acceptAll(t, opened[0]), 1, "%v beside %v", second.Addr, first.Addr)
			require.NoError(t, opened[0].Refuse())
			connect()
			require.Len(t, acceptAll(t, opened[1]), 1, "%v beside %v", second.Addr, first.Addr)
		}
	}
}

// freePort is a port that no socket of this host listens on: below the range
// that the kernel chooses from, so that no parallel test is given it meanwhile.
func freePort(t *testing.T) uint16 {
	t.Helper()
	everywhere := tcp("0.0.0.0:0")
	if haveIPv6(t) {
		everywhere = tcp("[::]:0")
	}
	for port := uint16(20000); port < 32000; port++ {
		everywhere.Addr.TCP = netip.AddrPortFrom(everywhere.Addr.TCP.Addr(), port)
		if s, err := Open(everywhere); err == nil {
			require.NoError(t, s.Close())
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
