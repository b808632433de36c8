package smtptest

import (
	"net"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Service serves each connection of a listener on a goroutine of its own.
// Its methods may be called from any goroutine.
type Service struct {
	handle func(net.Conn)
	done   chan struct{} // closed by Stop
	wg     sync.WaitGroup

	mu      sync.Mutex // protects below
	ln      net.Listener
	ended   chan struct{} // closed when ln is accepted from no more
	conns   map[net.Conn]struct{}
	stopped bool
}

// Serve runs handle for each connection that ln accepts until the test ends
// or Stop is called. Serve owns ln. The connection is closed when handle
// returns; handle has to return once its connection fails, and if it waits for
// anything else, when Done is closed.
func Serve(t testing.TB, ln net.Listener, handle func(net.Conn)) *Service {
	t.Helper()
	s := newService(handle)
	t.Cleanup(s.Stop)
	s.attach(ln)
	return s
}

func newService(handle func(net.Conn)) *Service {
	return &Service{
		handle: handle,
		done:   make(chan struct{}),
		conns:  make(map[net.Conn]struct{}),
	}
}

// Addr is the address that the service listens on.
func (s *Service) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ln.Addr().String()
}

// Done is closed when Stop begins.
func (s *Service) Done() <-chan struct{} { return s.done }

// Stop closes the listener and every connection, and waits until all handlers
// have returned. It may be called more than once, but not by a handler.
func (s *Service) Stop() {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.done)
	}
	if s.ln != nil {
		closeListener(s.ln)
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// attach starts accepting from ln, in addition to any earlier listener that
// still does.
func (s *Service) attach(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		ln.Close()
		return
	}
	s.ln, s.ended = ln, make(chan struct{})
	s.wg.Add(1)
	go s.accept(ln, s.ended)
}

// detach closes the listener, if there is one, and returns when the kernel has,
// which goes on taking connections as long as somebody accepts from it.
func (s *Service) detach() {
	s.mu.Lock()
	ln, ended := s.ln, s.ended
	s.mu.Unlock()
	if ln != nil {
		closeListener(ln)
		<-ended
	}
}

// closeListener closes a listener so that it takes no connection any more. The
// kernel would let it for as long as somebody has its descriptor: such as a
// process just started by another test, which does not know yet that it closes
// it with exec. So it is told to stop listening before.
func closeListener(ln net.Listener) {
	if c, ok := ln.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
		}
	}
	ln.Close()
}

// each calls f for the listener, if it is open, and for each open connection.
func (s *Service) each(onListener func(net.Listener), onConn func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if onListener != nil && s.ln != nil {
		onListener(s.ln)
	}
	if onConn != nil {
		for c := range s.conns {
			onConn(c)
		}
	}
}

func (s *Service) accept(ln net.Listener, ended chan<- struct{}) {
	defer s.wg.Done()
	defer close(ended)
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed: a test server has no other way to end
		}
		if !s.track(c) {
			c.Close()
			return
		}
		go s.serve(c)
	}
}

// track adds c to the open connections, unless the service has stopped.
func (s *Service) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Service) serve(c net.Conn) {
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		c.Close()
	}()
	s.handle(c)
}
