// Package listener owns listening sockets: it opens, adjusts, drains and
// closes them. It accepts nothing itself.
//
//	s, err := listener.Open(listener.Options{Addr: addr, NoDelay: true})
//	// register s.FD() with the event loops, accept4 from it
//	err = s.Apply(changed) // reload: the socket stays, its options change
//	err = s.Refuse()       // removal: no new connections ...
//	// ... accept until EAGAIN, take s.FD() out of the loops
//	err = s.Close()
//
// A descriptor is raw, non-blocking and close-on-exec; neither the Go network
// poller nor an os.File ever sees it. A Socket has one owner, and its methods
// are called by one goroutine at a time; the loops use the number that FD
// returns, and no longer than until Close.
//
// # What an accepted connection inherits
//
// Linux copies a TCP listener's TCP_NODELAY, SO_KEEPALIVE, TCP_KEEPIDLE,
// TCP_KEEPINTVL, TCP_KEEPCNT, SO_OOBINLINE, SO_RCVBUF and SO_SNDBUF into each
// connection when its handshake ends. They are therefore set here, once, and an
// accept costs no setsockopt. A connection that waited in the accept queue while
// Apply ran keeps the options of its own time. SO_OOBINLINE is always on: an
// urgent byte then stays in the stream, and the stream reaches the server as it
// was sent.
package listener

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultBacklog is the accept queue asked for by a zero Options.Backlog.
const DefaultBacklog = 4096

// Addr is where a socket listens: a TCP address and port, or a unix socket's
// path. It is comparable and may be a map key.
type Addr struct {
	TCP  netip.AddrPort // port 0: the kernel chooses one
	Path string         // not empty: a unix socket, and TCP is not used
}

// String is the address as nginx prints it: "0.0.0.0:25", "[::]:25",
// "unix:/run/smtp.sock".
func (a Addr) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.TCP.String()
}

// Wildcard is the address that takes connections to a besides its own socket: at
// the same port, of every interface. That of a unix socket is itself.
func (a Addr) Wildcard() Addr {
	switch {
	case a.Path != "":
		return a
	case a.TCP.Addr().Is4():
		return Addr{TCP: netip.AddrPortFrom(netip.IPv4Unspecified(), a.TCP.Port())}
	}
	return Addr{TCP: netip.AddrPortFrom(netip.IPv6Unspecified(), a.TCP.Port())}
}

// Keepalive is TCP keepalive for the accepted connections. A zero Idle,
// Interval or Count means the kernel's own (net.ipv4.tcp_keepalive_time,
// _intvl, _probes).
type Keepalive struct {
	On       bool
	Idle     time.Duration // whole seconds, 1s to 32767s
	Interval time.Duration // whole seconds, 1s to 32767s
	Count    int           // 1 to 127
}

// Options are one listening address and how to listen there. ReusePort,
// IPv6Only, NoDelay, Keepalive, the buffers and FastOpen are TCP's; a unix socket
// ignores them.
type Options struct {
	Addr    Addr
	Backlog int // 0: DefaultBacklog; the kernel cuts it to net.core.somaxconn

	// RcvBuf and SndBuf are the buffers of accepted connections in bytes, of which
	// the kernel makes twice as much, up to net.core.rmem_max and wmem_max; 0: it
	// sizes them as it needs.
	RcvBuf, SndBuf int
	// FastOpen is how many connections may wait that have brought data with their
	// SYN (RFC 7413); 0: none may. It needs 2 in net.ipv4.tcp_fastopen.
	FastOpen int

	// ReusePort only sets the flag, which lets another process of the same
	// user listen beside this one. There is never more than one socket for an
	// address here: to close one of several loses the connections queued on it.
	ReusePort bool
	IPv6Only  bool // of an IPv6 address: leave IPv4 to other sockets
	NoDelay   bool
	Keepalive Keepalive
}

func (o Options) backlog() int {
	if o.Backlog == 0 {
		return DefaultBacklog
	}
	return o.Backlog
}

// Socket is one open listening socket.
type Socket struct {
	addr  Addr // after the kernel chose the port
	asked Addr // as it was when port 0 was asked for

	fd     int     // -1 after Close
	kernel Options // keepalive and buffers as the kernel gives them to a socket on which nothing is set
	set    Options // what is in force; the zero value while it opens
	file   fileID  // of a unix socket's path; zero: nothing of ours is there
}

// FD is the listening descriptor. It stays the Socket's: the caller neither
// closes it nor uses it after Close.
func (s *Socket) FD() int { return s.fd }

// Addr is the address the socket is bound to, with the port the kernel chose
// if port 0 was asked for.
func (s *Socket) Addr() Addr { return s.addr }

// GiveTo makes a user the socket's owner, for Open: beside a socket the kernel
// takes only one of the same user, who is not the one that the process has become
// since. A unix socket's path stays whose it is.
func (s *Socket) GiveTo(uid int) error {
	if err := os.NewSyscallError("fchown", unix.Fchown(s.fd, uid, -1)); err != nil {
		return fmt.Errorf("give listening socket %s to user %d: %w", s.addr, uid, err)
	}
	return nil
}

// Close closes the socket and, of a unix socket, removes the path if that is
// still the file made by Open. Connections nobody has accepted are reset; see
// Refuse. A second Close does nothing.
func (s *Socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	// The path first: as long as the socket is open its inode number cannot
	// be given to another file, so an equal number means an equal file.
	err := s.removePath()
	// After close(2) the descriptor is gone on Linux whatever it returned.
	_ = unix.Close(s.fd)
	s.fd = -1
	if err != nil {
		return fmt.Errorf("close listening socket %s: %w", s.addr, err)
	}
	return nil
}
