package smtptest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Refused returns an address of 127.0.0.1 at which connections are refused
// until the test ends: a socket is bound there that never listens, so nobody
// else can take the port meanwhile.
func Refused(t testing.TB) string {
	t.Helper()
	p, err := holdPort()
	if err != nil {
		t.Fatalf("hold a port: %v", err)
	}
	t.Cleanup(p.release)
	return p.addr
}

// FreePort returns a TCP port for the program under test to listen on, at any
// address. It lies below the range from which the kernel takes the source
// ports of connections, and no other FreePort of this machine returns it
// before the test has ended.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest = 10000
	span := firstEphemeral() - lowest
	if span < 1000 {
		t.Fatalf("find a free port: net.ipv4.ip_local_port_range leaves no ports between %d and %d", lowest, lowest+span)
	}
	for range 1000 {
		port := lowest + rand.IntN(span)
		claim, err := net.Listen("unix", fmt.Sprintf("@smtptest-port-%d", port))
		if err != nil {
			continue // claimed, by us or by another test process
		}
		ln, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			claim.Close()
			continue
		}
		closeListener(ln)
		t.Cleanup(func() { claim.Close() })
		return port
	}
	t.Fatal("find a free port: 1000 tries met only ports in use")
	return 0
}

// firstEphemeral is the first port that the kernel gives to a connection.
func firstEphemeral() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if f := strings.Fields(string(b)); len(f) == 2 {
			if n, err := strconv.Atoi(f[0]); err == nil {
				return n
			}
		}
	}
	return 32768
}

// heldPort is a TCP port of 127.0.0.1 that stays ours whether or not somebody
// listens. Two sockets may share it since both have SO_REUSEPORT; the kernel
// offers connections only to the one that listens and refuses them without.
type heldPort struct {
	addr string
	fd   int
}

func holdPort() (*heldPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &heldPort{fd: fd}
	if err := p.bind(); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *heldPort) bind() error {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
	}
	if err := unix.Bind(p.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	sa, err := unix.Getsockname(p.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	p.addr = fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	return nil
}

func (p *heldPort) release() { unix.Close(p.fd) }

// listen opens a listener on the port. Multipath TCP is off: such a socket
// takes neither our packet filter nor SO_LINGER as plain TCP does.
func (p *heldPort) listen() (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return setInt(c, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}}
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp4", p.addr)
}

// setInt sets a socket option on a connection or listener.
func setInt(c syscall.RawConn, level, opt, value int) error {
	var serr error
	if err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), level, opt, value)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", serr)
}
