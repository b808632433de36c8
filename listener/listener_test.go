package listener

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

func tcp(addr string) Options {
	return Options{Addr: Addr{TCP: netip.MustParseAddrPort(addr)}}
}

func path(p string) Options { return Options{Addr: Addr{Path: p}} }

// mustOpen opens a socket that the test's end closes.
func mustOpen(t *testing.T, o Options) *Socket {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// families are a socket of each kind to open; without ::1 a developer's run
// goes on with the others, a CI run does not.
func families(t *testing.T) map[string]Options {
	t.Helper()
	all := map[string]Options{
		"ipv4": tcp("127.0.0.1:0"),
		"unix": path(t.TempDir() + "/s"),
	}
	if haveIPv6(t) {
		all["ipv6"] = tcp("[::1]:0")
	}
	return all
}

func haveIPv6(t *testing.T) bool {
	t.Helper()
	s, err := Open(tcp("[::1]:0"))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI needs an IPv6 loopback address:", err)
		}
		t.Log("no IPv6 here:", err)
		return false
	}
	require.NoError(t, s.Close())
	return true
}

func (a Addr) network() string {
	if a.Path != "" {
		return "unix"
	}
	return "tcp"
}

func (a Addr) target() string {
	if a.Path != "" {
		return a.Path
	}
	return a.TCP.String()
}

func dial(t *testing.T, s *Socket) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(s.Addr().network(), s.Addr().target(), patience)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// accept takes one connection, waiting for it, as a blocking descriptor whose
// reads and writes time out.
func accept(t *testing.T, s *Socket) int {
	t.Helper()
	fd, ok := acceptWithin(t, s, patience)
	require.True(t, ok, "no connection to accept")
	return fd
}

func acceptWithin(t *testing.T, s *Socket, wait time.Duration) (int, bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); ; {
		fd, _, err := unix.Accept4(s.FD(), unix.SOCK_CLOEXEC)
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			limit := unix.NsecToTimeval(int64(patience))
			require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
			return fd, true
		}
		require.Equal(t, unix.EAGAIN, err, "accept")
		left := time.Until(deadline)
		if left <= 0 {
			return -1, false
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != unix.EINTR {
			require.NoError(t, err)
		}
	}
}

// acceptAll accepts until EAGAIN, as the loops drain a removed listener.
func acceptAll(t *testing.T, s *Socket) (fds []int) {
	t.Helper()
	for {
		fd, ok := acceptWithin(t, s, 0)
		if !ok {
			return fds
		}
		fds = append(fds, fd)
	}
}

func getInt(t *testing.T, fd, level, option int) int {
	t.Helper()
	value, err := unix.GetsockoptInt(fd, level, option)
	require.NoError(t, err)
	return value
}

func TestAddrString(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]Addr{
		"0.0.0.0:25":          tcp("0.0.0.0:25").Addr,
		"[::]:25":             tcp("[::]:25").Addr,
		"[fe80::1%eth0]:2525": tcp("[fe80::1%eth0]:2525").Addr,
		"unix:/run/smtp.sock": path("/run/smtp.sock").Addr,
	} {
		require.Equal(t, want, a.String())
	}
}

// TestOpen fails without SOCK_NONBLOCK or SOCK_CLOEXEC (its own line each),
// and without learnPort (the dial finds port 0).
func TestOpen(t *testing.T) {
	t.Parallel()
	for name, o := range families(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustOpen(t, o)

			flags, err := unix.FcntlInt(uintptr(s.FD()), unix.F_GETFL, 0)
			require.NoError(t, err)
			require.NotZero(t, flags&unix.O_NONBLOCK, "O_NONBLOCK")
			flags, err = unix.FcntlInt(uintptr(s.FD()), unix.F_GETFD, 0)
			require.NoError(t, err)
			require.NotZero(t, flags&unix.FD_CLOEXEC, "FD_CLOEXEC")

			c := dial(t, s)
			server := accept(t, s)
			_, err = unix.Write(server, []byte("220 "))
			require.NoError(t, err)
			got := make([]byte, 4)
			_, err = c.Read(got)
			require.NoError(t, err)
			require.Equal(t, "220 ", string(got))
		})
	}
}

func TestCloseTwice(t *testing.T) {
	t.Parallel()
	s, err := Open(tcp("127.0.0.1:0"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Equal(t, -1, s.FD())
	require.NoError(t, s.Close())
}

// TestReopenWithConnections is a restart while connections of the old process
// are in TIME_WAIT. Fails with "address already in use" without SO_REUSEADDR.
func TestReopenWithConnections(t *testing.T) {
	t.Parallel()
	s, err := Open(tcp("127.0.0.1:0"))
	require.NoError(t, err)
	c := dial(t, s)
	server := accept(t, s)
	// The side that closes first keeps the port in TIME_WAIT: ours.
	require.NoError(t, unix.Shutdown(server, unix.SHUT_WR))
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	c.Close()
	_, err = unix.Read(server, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, s.Close())

	mustOpen(t, Options{Addr: s.Addr()})
}

// TestOpenErrors holds the messages an operator reads. Fails if a file that is
// not a socket is removed (its content is compared), or if a live socket's path
// is taken.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/file", []byte("precious"), 0o600))
	taken := mustOpen(t, tcp("127.0.0.1:0"))
	live := mustOpen(t, path(dir+"/live"))
	port := taken.Addr().TCP.Port()
	long := dir + "/" + string(make([]byte, 108))

	for _, c := range []struct {
		name string
		o    Options
		is   error
		want string
	}{
		{"port in use", Options{Addr: taken.Addr()}, unix.EADDRINUSE,
			"listen " + taken.Addr().String() + ": address already in use: another process (or another address of this configuration) holds it; " +
				`find it with "ss -ltnp 'sport = :` + itoa(port) + `'"`},
		{"wildcard over it", Options{Addr: Addr{TCP: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}}, unix.EADDRINUSE,
			"listen 0.0.0.0:" + itoa(port) + ": address already in use: "},
		{"not on this host", tcp("192.0.2.1:2525"), unix.EADDRNOTAVAIL,
			"listen 192.0.2.1:2525: cannot assign requested address: no interface of this host has the address; "},
		{"mapped address", tcp("[::ffff:127.0.0.1]:0"), nil,
			"listen [::ffff:127.0.0.1]:0: an IPv4 address in IPv6 notation cannot be listened on: write 127.0.0.1"},
		{"no address", Options{}, nil, "no address given"},
		{"no such zone", tcp("[fe80::1%nosuch0]:0"), nil, `listen [fe80::1%nosuch0]:0: no interface named "nosuch0" on this host`},
		{"negative backlog", Options{Addr: taken.Addr(), Backlog: -1}, nil, "backlog -1 is negative"},

		{"socket in use", Options{Addr: live.Addr()}, unix.EADDRINUSE,
			"listen unix:" + dir + "/live: address already in use: another process (or another address of this configuration) listens there"},
		{"not a socket", path(dir + "/file"), unix.EADDRINUSE,
			"listen unix:" + dir + "/file: address already in use: the file there is not a socket and is left alone: "},
		{"no directory", path(dir + "/no/s"), unix.ENOENT,
			"listen unix:" + dir + "/no/s: no such file or directory: the directory does not exist; create it first"},
		{"file as directory", path(dir + "/file/s"), unix.ENOTDIR, "the directory does not exist; create it first"},
		{"long path", path(long), nil, "a unix socket's may have 107: choose a shorter one"},
		{"abstract", path("@smtp"), nil, `begins with "@"`},
		{"NUL in path", path("/tmp/a\x00b"), nil, "path contains a NUL byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(c.o)
			require.Nil(t, s)
			require.ErrorContains(t, err, c.want)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
	content, err := os.ReadFile(dir + "/file")
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
}

// TestExplain covers the errors that the user or host of a test run may not
// be able to meet.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		addr Addr
		err  error
		want string
	}{
		{tcp("0.0.0.0:25").Addr, os.NewSyscallError("bind", unix.EACCES),
			"listen 0.0.0.0:25: permission denied: ports below net.ipv4.ip_unprivileged_port_start (1024) need root or CAP_NET_BIND_SERVICE; "},
		{tcp("[::]:25").Addr, os.NewSyscallError("socket", unix.EAFNOSUPPORT),
			"listen [::]:25: address family not supported by protocol: this host has the address family switched off"},
		{tcp("[fe80::1]:25").Addr, os.NewSyscallError("bind", unix.EINVAL), "a link-local address needs its interface: "},
		{path("/run/x/s").Addr, os.NewSyscallError("bind", unix.EACCES),
			"listen unix:/run/x/s: permission denied: the user of this process may not write in the directory"},
		{tcp("0.0.0.0:25").Addr, os.NewSyscallError("socket", unix.EMFILE), "listen 0.0.0.0:25: socket: too many open files"},
	} {
		err := explain(c.addr, c.err)
		require.ErrorContains(t, err, c.want)
		require.ErrorIs(t, err, errors.Unwrap(c.err))
	}
}

// TestNoPrivilege meets the real EACCES. Fails if the hint of EACCES is gone.
func TestNoPrivilege(t *testing.T) {
	start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	require.NoError(t, err)
	if s := string(bytes.TrimSpace(start)); s == "0" || s == "1" {
		t.Skip("this host lets every user bind every port")
	}
	dropCapabilities(t, 1<<unix.CAP_NET_BIND_SERVICE)
	_, err = Open(tcp("127.0.0.1:1"))
	require.ErrorIs(t, err, unix.EACCES)
	require.ErrorContains(t, err, "CAP_NET_BIND_SERVICE")
}
