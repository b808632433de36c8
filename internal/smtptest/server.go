package smtptest

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Server is an SMTP server that plays a Script and remembers its sessions.
// Its methods may be called from any goroutine; those that take it off the
// network (Refuse, Kill, Blackhole, Resume) only from one at a time.
type Server struct {
	service *Service
	port    *heldPort // nil if the listener came from outside

	// commit is held for reading while a final reply is written and its
	// message stored, and for writing to look: a message whose 250 anybody has
	// seen is never missing from Messages.
	commit sync.RWMutex

	mu       sync.Mutex // protects below, and what it points to
	script   *Script
	sessions []*session
	messages []Message
}

// NewServer starts a server on a port of 127.0.0.1 that stays its own until
// the test ends, also while it refuses.
func NewServer(t testing.TB, script Script) *Server {
	t.Helper()
	port, err := holdPort()
	if err != nil {
		t.Fatalf("hold a port: %v", err)
	}
	t.Cleanup(port.release)
	ln, err := port.listen()
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	s := ServeSMTP(t, ln, script)
	s.port = port
	return s
}

// ServeSMTP starts a server on a listener of any kind, which it then owns.
// Such a server cannot Refuse, be killed, be a Blackhole or Resume.
func ServeSMTP(t testing.TB, ln net.Listener, script Script) *Server {
	t.Helper()
	s := &Server{}
	s.SetScript(script)
	s.service = Serve(t, ln, s.serve)
	return s
}

// Addr is the address of the server.
func (s *Server) Addr() string { return s.service.Addr() }

// SetScript changes how sessions that begin later are treated.
func (s *Server) SetScript(script Script) {
	if script.Name == "" {
		script.Name = "smtptest"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = &script
}

// Stop closes the listener and every connection, and waits for all sessions.
func (s *Server) Stop() { s.service.Stop() }

// Refuse closes the listener: connections are refused from now on, and those
// that no session has begun for are reset. Running sessions go on.
func (s *Server) Refuse() {
	s.own()
	s.service.detach()
}

// Kill does to the network what kill -9 of a server does: the listener and
// every connection are closed as they are.
func (s *Server) Kill() {
	s.Refuse()
	s.service.each(nil, func(c net.Conn) { c.Close() })
}

// Resume listens again after Refuse or Kill.
func (s *Server) Resume() error {
	s.Refuse() // or connections would be shared between two listeners
	ln, err := s.port.listen()
	if err != nil {
		return fmt.Errorf("listen again: %w", err)
	}
	s.service.attach(ln)
	return nil
}

// Blackhole makes the server vanish or come back: while on, every packet that
// comes for its listener or for an open connection is dropped, so that a SYN is
// never answered and data never acknowledged, as if a firewall dropped them.
func (s *Server) Blackhole(on bool) error {
	s.own()
	var first error
	drop := func(c any) {
		if err := dropPackets(c.(syscall.Conn), on); err != nil && first == nil {
			first = err
		}
	}
	s.service.each(func(ln net.Listener) { drop(ln) }, func(c net.Conn) { drop(c) })
	return first
}

func (s *Server) own() {
	if s.port == nil {
		panic("smtptest: BUG: the listener of this server is not its own")
	}
}

// Sessions returns a copy of what each session did, in the order in which they
// began.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Session, len(s.sessions))
	for i, c := range s.sessions {
		out[i] = c.snapshotLocked()
	}
	return out
}

// Accepted is the number of sessions that have begun.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Open is the number of sessions that have not ended.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.sessions {
		if !c.ended {
			n++
		}
	}
	return n
}

// Messages returns what the server has stored: each message whose 250 after
// the final dot it has written to the socket, and no other.
func (s *Server) Messages() []Message {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...)
}

func (s *Server) serve(conn net.Conn) {
	c := &session{srv: s, conn: conn, client: conn.RemoteAddr().String()}
	s.mu.Lock()
	c.script = s.script
	s.sessions = append(s.sessions, c)
	s.mu.Unlock()
	err := c.run()
	s.mu.Lock()
	c.err, c.ended = err, true
	s.mu.Unlock()
}

// dropPackets attaches a filter to a socket that lets no packet in, or detaches
// it. The kernel asks a socket's filter also for a listener's SYNs.
func dropPackets(c syscall.Conn, on bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if !on {
		return setInt(raw, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	}
	reject := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: uint16(len(reject)), Filter: unsafe.SliceData(reject[:])}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", serr)
}
