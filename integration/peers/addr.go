package peers

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// ReserveAddr returns an address "127.0.0.1:port" for a program that the test
// starts and wants to start again at the same place.
//
// A port that was merely free a moment ago may become the source port of any
// other test's connection. So the address stays bound, without listening, until
// the test ends: the kernel then gives it to nobody by itself, yet lets in
// whoever asks for it with SO_REUSEADDR, as servers do.
func ReserveAddr(t testing.TB) string {
	t.Helper()
	fd, err := bind(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	return fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
}

// listening reports whether a socket listens on addr, an IPv4 address and port.
// It does not connect: that would show in the log of a server, and make a proxy
// connect to its own. Sockets with SO_REUSEADDR may share an address as long as
// none of them listens, so one more can be bound or somebody listens.
func listening(addr string) (bool, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false, err
	}
	fd, err := bind(a)
	if errors.Is(err, syscall.EADDRINUSE) {
		return true, nil
	}
	if err == nil {
		syscall.Close(fd)
	}
	return false, err
}

// bind returns a socket with SO_REUSEADDR that is bound to an IPv4 address.
func bind(a netip.AddrPort) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	if err == nil {
		sa := &syscall.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
		err = os.NewSyscallError("bind", syscall.Bind(fd, sa))
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}
