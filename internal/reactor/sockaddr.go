package reactor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockaddr is a socket address as the kernel takes and gives it. The zero
// value is empty; it is meant to live in its owner and be filled again and
// again.
type Sockaddr struct {
	raw unix.RawSockaddrAny
	len uint32
}

// SetTCP fills in an IPv4 or IPv6 address. An IPv6 zone must be numeric or an
// interface's number written by String.
func (s *Sockaddr) SetTCP(ap netip.AddrPort) {
	a := ap.Addr()
	if a.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		*sa = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
		putPort(&sa.Port, ap.Port())
		s.len = unix.SizeofSockaddrInet4
		return
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.raw))
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16()}
	if z := a.Zone(); z != "" {
		n, _ := strconv.ParseUint(z, 10, 32)
		sa.Scope_id = uint32(n)
	}
	putPort(&sa.Port, ap.Port())
	s.len = unix.SizeofSockaddrInet6
}

// SetUnix fills in a unix socket's path. A path longer than the kernel takes
// (107 bytes) is an error.
func (s *Sockaddr) SetUnix(path string) error {
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&s.raw))
	*sa = unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if path == "" || len(path) >= len(sa.Path) {
		return fmt.Errorf("unix socket path of %d bytes: want 1 to %d", len(path), len(sa.Path)-1)
	}
	for i := range len(path) {
		sa.Path[i] = int8(path[i])
	}
	s.len = uint32(unsafe.Offsetof(sa.Path)) + uint32(len(path)) + 1
	return nil
}

// Family returns AF_INET, AF_INET6 or AF_UNIX.
func (s *Sockaddr) Family() int { return int(s.raw.Addr.Family) }

// TCP returns the address as AddrPort, IPv4-mapped ones as IPv4; the zero
// AddrPort for a unix socket.
func (s *Sockaddr) TCP() netip.AddrPort {
	switch s.raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.raw))
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, port(&sa.Port))
	}
	return netip.AddrPort{}
}

// Ports are in network order whatever the host's.
func putPort(p *uint16, v uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], v)
}

func port(p *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:])
}

// Socket opens a non-blocking, close-on-exec stream socket of the address's
// family. The caller owns the descriptor.
func (s *Sockaddr) Socket() (fd int, errno syscall.Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(s.raw.Addr.Family),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int(r), e
}

// Connect starts connecting fd to the address: 0 when connected already,
// EINPROGRESS when a writable event will tell.
func (s *Sockaddr) Connect(fd int) syscall.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.len))
	return e
}

// Bind gives fd the address as its own.
func (s *Sockaddr) Bind(fd int) syscall.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(s.len))
	return e
}

// Accept takes one connection off a non-blocking listener and fills in the
// peer's address. The new descriptor is non-blocking and close-on-exec.
func (s *Sockaddr) Accept(listener int) (fd int, errno syscall.Errno) {
	s.len = unix.SizeofSockaddrAny
	r, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&s.raw)),
		uintptr(unsafe.Pointer(&s.len)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(r), e
}

// Local fills in the address that a connected socket has on this host.
func (s *Sockaddr) Local(fd int) syscall.Errno {
	s.len = unix.SizeofSockaddrAny
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(unsafe.Pointer(&s.len)))
	return e
}
