package stream

import (
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/upstream"
)

// connect tries servers until one connects at once, one is under way, or none
// is left.
func (w *worker) connect(s *session) {
	for {
		s.peer = s.route.Group.Next(&s.turn, w.seconds())
		if s.peer == nil {
			w.noServer(s)
			return
		}
		s.last = s.peer
		s.attempt++
		w.stats.Attempts++
		w.enter(s, stateConnecting)
		what, errno := w.dial(s)
		switch {
		case errno == unix.EINPROGRESS:
			return
		case errno == 0:
			w.connected(s)
			return
		}
		if !w.failed(s, outcomeOf(errno), what, errno) {
			return
		}
	}
}

func (w *worker) noServer(s *session) {
	w.complain(s, "no live upstreams", zap.String("upstream", s.route.Group.Name()))
	w.finish(s, causeNoServer)
}

// dial opens a socket to the session's peer and starts connecting it: errno 0
// when it is connected, EINPROGRESS when the loop will be told. Otherwise what
// names the call that failed.
func (w *worker) dial(s *session) (what string, errno syscall.Errno) {
	r, addr := s.route, s.peer.Addr()
	if addr.Path != "" {
		if err := w.to.SetUnix(addr.Path); err != nil {
			return "connect", unix.ENAMETOOLONG
		}
	} else {
		w.to.SetTCP(addr.TCP)
	}
	fd, errno := w.calls.socket(&w.to)
	if errno != 0 {
		return "socket", errno
	}
	s.server = end{fd: int32(fd)}
	if addr.Path == "" {
		if what, errno = w.prepare(fd, r); errno != 0 {
			return what, errno
		}
	}
	if errno = w.to.Connect(fd); errno != 0 && errno != unix.EINPROGRESS {
		return "connect", errno
	}
	// Registered only now: a socket that is not connecting yet reports a hang-up.
	if e := w.loop.Add(fd, s.serverToken(), reactor.Stream); e != 0 {
		return "epoll_ctl", e
	}
	return "", errno
}

// prepare sets the options of a TCP socket to a server. Urgent data is to stay
// in the stream, where it is relayed like any other byte.
func (w *worker) prepare(fd int, r *Route) (what string, errno syscall.Errno) {
	errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	if errno == 0 && r.NoDelay {
		errno = reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if errno != 0 {
		return "setsockopt", errno
	}
	if !r.Bind.IsValid() {
		return "", 0
	}
	if r.Bind.Port() == 0 {
		// The port is chosen at connect, where the kernel knows the destination:
		// each destination then has all ports to itself.
		if errno = reactor.SetInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); errno != 0 {
			return "setsockopt", errno
		}
	} else if errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); errno != 0 {
		return "setsockopt", errno
	}
	w.local.SetTCP(r.Bind)
	return "bind", w.local.Bind(fd)
}

// keepAlive turns keepalive on for the server's socket. That is done when the
// session's timer first fires, which is later than most sessions last: those
// are spared four system calls.
func (w *worker) keepAlive(s *session) {
	k := s.route.Keepalive
	if s.kept || !k.On || s.last.Addr().Path != "" || s.server.fd < 0 {
		return
	}
	s.kept = true
	fd := int(s.server.fd)
	// A server that is gone already refuses these; its end is on its way.
	reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	if k.Idle > 0 {
		reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle.Seconds()))
	}
	if k.Interval > 0 {
		reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval.Seconds()))
	}
	if k.Count > 0 {
		reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count)
	}
}

// connecting handles an event of the server's socket before it is connected.
func (w *worker) connecting(s *session, events uint32) {
	if events&(reactor.Error|reactor.Hup) != 0 {
		if e := reactor.SocketError(int(s.server.fd)); e != 0 {
			w.attemptFailed(s, outcomeOf(e), "connect", e)
			return
		}
	}
	if s.server.writable {
		w.connected(s)
	}
}

// waiting handles an event of the client while its server is being connected.
// Its bytes stay in the kernel. A client that was reset, or that ended its
// stream without having said a word, has left.
func (w *worker) waiting(s *session) {
	if !s.client.hup {
		return
	}
	n, errno := reactor.Peek(int(s.client.fd), w.buf[:1])
	switch {
	case n > 0 || errno == eagain:
		return
	case errno != 0:
		s.client.reset = true
		s.cause = causeClientReset
	default:
		s.client.eof = true
		s.cause = causeClientClosed
	}
	w.finish(s, s.cause)
}

// connected starts relaying: from here on the session has this server for good.
func (w *worker) connected(s *session) {
	s.peer.Connected()
	s.server.writable = true
	w.enter(s, stateRelaying)
	w.relay(s)
}

// attemptFailed gives up the server under way and goes on to the next.
func (w *worker) attemptFailed(s *session, o upstream.Outcome, what string, errno syscall.Errno) {
	if w.failed(s, o, what, errno) {
		w.connect(s)
	}
}

// failed books a failed attempt. It reports whether another one is due; if
// not, it has ended the session.
func (w *worker) failed(s *session, o upstream.Outcome, what string, errno syscall.Errno) bool {
	w.logAttempt(s, o, what+" failed", errno)
	w.hangUp(&s.server)
	s.server = end{fd: -1}
	w.release(s, o)
	r := s.route
	elapsed := w.loop.Now() - s.started
	switch {
	case !r.NextUpstream, s.turn.Left() == 0,
		r.NextTimeout > 0 && elapsed >= r.NextTimeout.Milliseconds():
		w.finish(s, causeConnectFailed)
		return false
	}
	return true
}

// release gives the session's peer back with the outcome.
func (w *worker) release(s *session, o upstream.Outcome) {
	p := s.peer
	s.peer = nil
	if p.Release(&s.turn, o, w.seconds()) {
		w.log.Warn("upstream server temporarily disabled",
			zap.String("upstream", p.Group()), zap.String("peer", p.Name()))
	}
}

// outcomeOf sorts the errors of connecting by whom they speak about.
func outcomeOf(e syscall.Errno) upstream.Outcome {
	switch e {
	case unix.ECONNREFUSED, unix.ENOENT, unix.EAGAIN:
		// A unix socket says ENOENT where nobody listens and EAGAIN where the
		// backlog is full.
		return upstream.OutcomeRefused
	case unix.ETIMEDOUT:
		return upstream.OutcomeConnectTimeout
	case unix.ECONNRESET, unix.EPIPE:
		return upstream.OutcomeReset
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.EACCES, unix.EPERM:
		return upstream.OutcomeUnreachable
	}
	return upstream.OutcomeLocalError
}
