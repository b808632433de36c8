package stream

import (
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/upstream"
)

// connect asks the group for a server and tries it.
func (w *worker) connect(s *session) {
	w.try(s, w.next(s))
}

// next asks the group for a server, or a further one.
func (w *worker) next(s *session) *upstream.Peer {
	switch {
	case s.to.KeyValue != nil:
		w.key = s.to.KeyValue.Append(w.key[:0], w.variables(s))
		s.turn.Session.Key = w.key
	case s.to.Key == FixedKey:
		w.key = append(w.key[:0], s.to.KeyText...)
		s.turn.Session.Key = w.key
	case s.to.Key == ClientAddress:
		w.key = s.appendKey(w.key[:0])
		s.turn.Session.Key = w.key
	}
	return s.to.Group.Next(w.turn(s), w.seconds())
}

// appendKey appends what the session is hashed by: the client's address, in one
// spelling, without port, brackets and zone; "unix:" if it has none.
func (s *session) appendKey(b []byte) []byte {
	if !s.from.IsValid() {
		return append(b, "unix:"...)
	}
	return s.from.Addr().WithZone("").AppendTo(b)
}

// turn is the session's turn at the present time.
func (w *worker) turn(s *session) *upstream.Turn {
	s.turn.Now = w.loop.Now()
	return &s.turn
}

// try tries a peer that the group has given, and others after it, until one
// connects at once, one is under way, or none is left.
func (w *worker) try(s *session, p *upstream.Peer) {
	for ; p != nil; p = w.next(s) {
		s.peer, s.last, s.next = p, p, nil
		s.attempt++
		w.attempted(s, p)
		s.patient, s.doubted = false, false
		w.stats.Attempts++
		w.enter(s, stateConnecting)
		what, errno := w.dial(s)
		switch errno {
		case unix.EINPROGRESS:
			return
		case 0:
			w.connected(s)
			return
		}
		o := upstream.OutcomeLocalError // of the server, only connect can tell
		if what == calledConnect {
			o = outcomeOf(errno)
		}
		if !w.failed(s, o, what, errno) {
			return
		}
	}
	if s.turn.Full() && w.timeLeft(s) {
		w.enqueue(s)
		return
	}
	if s.turn.MustWait() && w.timeLeft(s) {
		w.enter(s, stateStandby)
		return
	}
	w.attempted(s, nil)
	w.complain(s, "no live upstreams", zap.String("upstream", s.groupName()))
	w.turnAway(s, ReplyUnavailable, causeNoServer)
}

// dial's names for the calls that can fail. By connect it asks the network.
const (
	calledConnect    = "connect"
	calledBind       = "bind"
	calledSocket     = "socket"
	calledSetsockopt = "setsockopt"
)

// dial opens a socket to the session's peer and starts connecting it: errno 0
// when it is connected, EINPROGRESS when the loop will be told. Otherwise what
// names the call that failed.
func (w *worker) dial(s *session) (what string, errno syscall.Errno) {
	addr := s.peer.Addr()
	if addr.Path != "" {
		if err := w.to.SetUnix(addr.Path); err != nil {
			return calledConnect, unix.ENAMETOOLONG
		}
	} else {
		w.to.SetTCP(addr.TCP)
	}
	fd, errno := w.calls.socket(&w.to)
	if errno != 0 {
		return calledSocket, errno
	}
	s.server = end{fd: int32(fd)}
	if errno = s.route.setBuffers(fd); errno != 0 {
		return calledSetsockopt, errno
	}
	if addr.Path == "" {
		if what, errno = w.prepare(fd, s); errno != 0 {
			return what, errno
		}
	}
	if errno = w.to.Connect(fd); errno != 0 && errno != unix.EINPROGRESS {
		return calledConnect, errno
	}
	// Registered only now: a socket that is not connecting yet reports a hang-up.
	if e := w.loop.Add(fd, s.serverToken(), reactor.Stream); e != 0 {
		return "epoll_ctl", e
	}
	return "", errno
}

// setBuffers sizes the buffers of a socket to a server, before the connect: the
// window that is offered goes by them.
func (r *Route) setBuffers(fd int) (errno syscall.Errno) {
	if r.RcvBuf > 0 {
		errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, r.RcvBuf)
	}
	if r.SndBuf > 0 && errno == 0 {
		errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, r.SndBuf)
	}
	return errno
}

// prepare sets the options of a TCP socket to a server. Urgent data is to stay
// in the stream, where it is relayed like any other byte.
func (w *worker) prepare(fd int, s *session) (what string, errno syscall.Errno) {
	errno = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	if errno == 0 && s.route.NoDelay {
		errno = reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if errno != 0 {
		return calledSetsockopt, errno
	}
	return w.bind(fd, s)
}

// keepAlive turns keepalive on for the server's socket. That is done when the
// session's timer first fires, which is later than most sessions last: those
// are spared four system calls.
func (w *worker) keepAlive(s *session) {
	k := s.route.Keepalive
	if s.keptAlive || !k.On || s.server.fd < 0 || s.last.Addr().Path != "" {
		return
	}
	s.keptAlive = true
	fd := int(s.server.fd)
	// A server that is gone already refuses these; its end is on its way.
	_ = reactor.SetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	if k.Idle > 0 {
		_ = reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle.Seconds()))
	}
	if k.Interval > 0 {
		_ = reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval.Seconds()))
	}
	if k.Count > 0 {
		_ = reactor.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count)
	}
}

// connecting handles an event of the server's socket before it is connected.
func (w *worker) connecting(s *session, events uint32) {
	if events&(reactor.Error|reactor.Hup) != 0 {
		if e := reactor.SocketError(int(s.server.fd)); e != 0 {
			w.attemptFailed(s, s.judge(outcomeOf(e)), calledConnect, e)
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
	if errno == 0 && n > 0 {
		errno = reactor.SocketError(int(s.client.fd)) // it may have been reset behind what it sent
	}
	if errno == eagain || errno == 0 && n > 0 {
		return
	}
	w.clientLeft(s, errno != 0)
}

// clientLeft ends a session whose client went before it had a server.
func (w *worker) clientLeft(s *session, reset bool) {
	s.client.eof, s.client.reset = !reset, reset
	c := causeClientClosed
	if reset {
		c = causeClientReset
	}
	w.finish(s, c)
}

// connected goes on to the greeting, or to relaying if there is no gate.
func (w *worker) connected(s *session) {
	s.server.writable = true
	w.bookConnect(s)
	s.peer.Established(&s.turn)
	s.route.journal().reached(w, s)
	s.peer.Reached(w.turn(s), upstream.Connect)
	if !w.writeHeader(s) {
		w.attemptFailed(s, s.judge(upstream.OutcomeReset), "send PROXY header", unix.ECONNRESET)
		return
	}
	if s.route.Gate != nil {
		w.await(s)
		return
	}
	w.commit(s, upstream.OutcomeOK)
}

// commit starts relaying: from here on the session has this server for good,
// and the outcome is known that is to be reported in the end.
func (w *worker) commit(s *session, o upstream.Outcome) {
	s.outcome = o
	if o == upstream.OutcomeOK {
		s.peer.Connected(w.seconds())
	}
	w.chooseRates(s)
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
	s.route.journal().failed(w, s, o, what, errno)
	w.hangUp(&s.server)
	s.server = end{fd: -1}
	w.release(s, o)
	if s.turn.Left() == 0 || !w.mayGoOn(s) {
		w.turnAway(s, ReplyUnavailable, causeConnectFailed)
		return false
	}
	return true
}

// mayGoOn reports whether the route allows the session a further server.
func (w *worker) mayGoOn(s *session) bool {
	r := s.route
	return r.NextUpstream && w.timeLeft(s)
}

// timeLeft reports whether the session may go on looking for a server.
func (w *worker) timeLeft(s *session) bool {
	limit := s.route.NextTimeout.Milliseconds()
	return limit == 0 || w.loop.Now()-s.started-s.waited < limit
}

// release gives the session's peer back with the outcome.
func (w *worker) release(s *session, o upstream.Outcome) {
	w.bookEnd(s)
	p := s.peer
	s.peer, s.outcome = nil, o
	p.Release(w.turn(s), o, w.seconds())
}

// judge corrects the outcome of a connect whose error comes after it was made:
// a server that breaks off at once, perhaps before it has read our header, has
// not failed to be reached. It may have its reasons with this client.
func (s *session) judge(o upstream.Outcome) upstream.Outcome {
	if o == upstream.OutcomeReset && s.route.Gate != nil {
		return upstream.OutcomeEmpty
	}
	return o
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
