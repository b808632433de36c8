package listener

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open returns a socket that is bound and listening; clients may connect from
// that moment on. Its errors begin with the address and end with what the
// operator can do.
//
// A wildcard and an address that it covers may listen side by side if the one is
// named when the other is opened: the kernel takes two such sockets of one user
// if both have SO_REUSEPORT at that moment, and gives each connection to the more
// specific one.
func Open(o Options, beside ...*Socket) (*Socket, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("listen %s: %w", o.Addr, err)
	}
	s, err := openBeside(o, beside)
	if err != nil {
		return nil, explain(o.Addr, err)
	}
	return s, nil
}

func openBeside(o Options, beside []*Socket) (*Socket, error) {
	if len(beside) == 0 {
		return open(o)
	}
	for _, b := range beside {
		if err := b.setReusePort(true); err != nil {
			return nil, err
		}
		defer func() { _ = b.setReusePort(b.set.ReusePort) }() // it was possible just now
	}
	wanted := o.ReusePort
	o.ReusePort = true
	s, err := open(o)
	if err != nil {
		return nil, err
	}
	s.set.ReusePort = wanted
	if err := s.setReusePort(wanted); err != nil {
		_ = s.Close() // the first error tells more
		return nil, err
	}
	return s, nil
}

func open(o Options) (*Socket, error) {
	sa, domain, err := o.Addr.sockaddr()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Socket{fd: fd, addr: o.Addr, asked: o.Addr}
	if err := s.start(o, sa); err != nil {
		_ = s.Close() // the first error tells more
		return nil, err
	}
	s.set = o
	return s, nil
}

// start sets the options before it binds, so that no connection, not even the
// first, misses one.
func (s *Socket) start(o Options, sa unix.Sockaddr) error {
	if s.addr.Path != "" {
		if err := s.bindPath(sa); err != nil {
			return err
		}
		return s.listen(o)
	}
	if err := s.keepKernelDefaults(); err != nil {
		return err
	}
	// On Linux this lets a restart bind while old connections of the port are
	// in TIME_WAIT; it never lets two sockets listen on one address.
	if err := s.setInt("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if s.addr.TCP.Addr().Is6() { // always said, whatever net.ipv6.bindv6only holds
		if err := s.setFlag("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, o.IPv6Only); err != nil {
			return err
		}
	}
	if err := s.setOptions(o); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := s.listen(o); err != nil {
		return err
	}
	return s.learnPort()
}

// listen makes the socket listen, or changes the backlog of one that does.
// Two sockets with SO_REUSEADDR may both be bound; the second one's conflict
// is then found here.
func (s *Socket) listen(o Options) error {
	return os.NewSyscallError("listen", unix.Listen(s.fd, o.backlog()))
}

func (s *Socket) learnPort() error {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	port := s.addr.TCP.Port()
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = uint16(sa.Port)
	case *unix.SockaddrInet6:
		port = uint16(sa.Port)
	}
	s.addr.TCP = netip.AddrPortFrom(s.addr.TCP.Addr(), port)
	return nil
}

// sockaddr is the address as bind takes it, and the protocol family.
func (a Addr) sockaddr() (unix.Sockaddr, int, error) {
	if a.Path != "" {
		return &unix.SockaddrUnix{Name: a.Path}, unix.AF_UNIX, nil
	}
	ip, port := a.TCP.Addr(), int(a.TCP.Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, unix.AF_INET, nil
	}
	sa := &unix.SockaddrInet6{Addr: ip.As16(), Port: port}
	if zone := ip.Zone(); zone != "" {
		id, err := interfaceIndex(zone)
		if err != nil {
			return nil, 0, err
		}
		sa.ZoneId = id
	}
	return sa, unix.AF_INET6, nil
}

// interfaceIndex is the index of a zone: an interface's name, or a number
// (RFC 4007, section 11.2).
func interfaceIndex(zone string) (uint32, error) {
	if id, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(id), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("no interface named %q on this host", zone)
	}
	return uint32(ifi.Index), nil
}
