package stream

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/script"
	"smtplb/internal/smtp"
)

// Bind is the address that connections to servers come from. The zero Bind
// leaves it to the kernel.
type Bind struct {
	Addr        netip.AddrPort // port 0: any
	Client      bool           // the client's own address, in place of Addr
	ClientPort  bool           // and its port
	Transparent bool           // the address need not be one of this host

	// Value becomes the address in each session, in place of all but Transparent.
	Value *script.Value
}

// source is the address for a client, which is invalid if it came through a
// unix socket: such a client has none, and the kernel chooses.
func (b *Bind) source(client netip.AddrPort) netip.AddrPort {
	switch {
	case !b.Client:
		return b.Addr
	case !b.ClientPort && client.IsValid():
		return netip.AddrPortFrom(client.Addr(), 0)
	}
	return client
}

// chooseSource evaluates the session's source address, once. What is empty or no
// address leaves it to the kernel, as in ngx_stream_proxy_set_local.
func (w *worker) chooseSource(s *session) {
	s.record.source = netip.AddrPort{}
	w.text = s.route.Bind.Value.Append(w.text[:0], w.variables(s))
	if len(w.text) == 0 {
		return
	}
	source, ok := parseSource(string(w.text))
	if !ok {
		w.complain(s, `invalid local address "`+smtp.Printable(w.text, smtp.LogLimit)+`"`)
		return
	}
	s.record.source = source
}

// parseSource reads an address with or without a port, which only behind brackets
// can follow one of IPv6 (ngx_parse_addr_port).
func parseSource(text string) (source netip.AddrPort, ok bool) {
	a, err := netip.ParseAddr(text)
	if source = netip.AddrPortFrom(a, 0); err != nil {
		source, err = netip.ParseAddrPort(text)
		ok = source.Port() > 0
	} else {
		ok = true
	}
	return source, ok && err == nil && source.Addr().Zone() == ""
}

// source is where the session's connections come from; invalid: the kernel
// chooses.
func (s *session) source() netip.AddrPort {
	if s.route.Bind.Value != nil {
		return s.record.source
	}
	return s.route.Bind.source(s.from)
}

// bind gives the socket of a session to its server the address it is to come
// from. Without that address the server is not connected to at all: it would
// take us for the client, and may trust us further. So a client of one address
// family only gets servers of that family. Whatever fails is no server's fault.
func (w *worker) bind(fd int, s *session) (what string, errno syscall.Errno) {
	source := s.source()
	if !source.IsValid() {
		return "", 0
	}
	if source.Addr().Is4() != (w.to.Family() == unix.AF_INET) {
		return "bind to " + source.Addr().String() + ", which has another address family than the server,", unix.EAFNOSUPPORT
	}
	if s.route.Bind.Transparent {
		if errno = setTransparent(fd); errno != 0 {
			return "setsockopt IP_TRANSPARENT, which needs CAP_NET_RAW or CAP_NET_ADMIN,", errno
		}
	}
	if source.Port() == 0 {
		// The port is chosen at connect, where the kernel knows the destination:
		// each destination then has all ports to itself.
		errno = reactor.SetInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	} else {
		// Sessions to several servers may share the port, if nobody listens there.
		errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if errno != 0 {
		return calledSetsockopt, errno
	}
	w.local.SetTCP(source)
	return calledBind, w.local.Bind(fd)
}

// setTransparent lets a socket have an address that is not of this host. The
// option sets IPV6_TRANSPARENT, too: they are one flag of the kernel's.
func setTransparent(fd int) syscall.Errno {
	return reactor.SetInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

// CheckTransparent reports whether a Bind may be transparent in this process.
func CheckTransparent() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if errno := setTransparent(fd); errno != 0 {
		return fmt.Errorf("an address that is not of this host needs root, CAP_NET_RAW or CAP_NET_ADMIN; "+
			"in a systemd unit: AmbientCapabilities=CAP_NET_RAW: %w", os.NewSyscallError("setsockopt IP_TRANSPARENT", errno))
	}
	return nil
}
