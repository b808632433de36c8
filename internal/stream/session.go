package stream

import (
	"net/netip"
	"runtime/debug"

	"github.com/valyala/bytebufferpool"
	"go.uber.org/zap"

	"smtplb/internal/reactor"
	"smtplb/upstream"
)

// state is where a session is in its life. A free slot has state zero.
type state uint8

const (
	stateFree       state = iota
	stateHeader           // the proxy in front has not said yet who the client is
	stateAdmission        // it is known: limits and rules are asked, in one go
	statePassing          // and so is another port, which is to have it; in the same go
	stateRouting          // it is welcome: how and where it goes on is evaluated, in one go
	stateStandby          // every server that is fit has enough connects under way
	stateQueue            // every server that is fit has max_conns sessions
	stateConnecting       // a connect is under way
	stateGreeting         // connected; the server has not greeted yet
	stateRelaying         // bytes flow
	stateLingering        // all is said; what the peers still send is discarded until they close
)

// end is one side of a session: a descriptor and what is known of it.
type end struct {
	fd       int32 // -1: none
	readable bool  // bytes or an end may be waiting
	writable bool  // room may be there
	hup      bool  // the peer has ended its stream or is gone: a short read is not the last
	urgent   bool  // urgent data seen: reads stop short at its mark, and splice stops for good
	eof      bool  // its stream was read to the end
	reset    bool  // it is gone: its end was an error, or a write to it failed
	shut     bool  // our end of stream was sent to it
}

// note records what epoll reported.
func (e *end) note(events uint32) {
	if events&(reactor.Readable|reactor.Urgent|reactor.PeerShut|reactor.Hup|reactor.Error) != 0 {
		e.readable = true
	}
	if events&(reactor.Writable|reactor.Hup|reactor.Error) != 0 {
		e.writable = true
	}
	if events&(reactor.PeerShut|reactor.Hup|reactor.Error) != 0 {
		e.hup = true
	}
	if events&reactor.Urgent != 0 {
		e.urgent = true
	}
}

// half is one direction: bytes from a source end to a destination end. At any
// time at most one of held and piped is not empty, and the source is read only
// when both are.
type half struct {
	held *bytebufferpool.ByteBuffer // what the destination did not take; nil: nothing
	off  int32                      // bytes of held already written

	piped  int32        // bytes in the pipe
	pipe   reactor.Pipe // borrowed if lent
	lent   bool
	bulk   bool // the last read was large: splice the next one
	copied bool // splice was refused: this half copies for good

	eof  bool // nothing more will be read
	done bool // and everything read has been dealt with

	in  int64 // bytes read from the source
	out int64 // bytes written to the destination

	pace pace
}

// session is one client and its server. It is a slot of its worker's slab and
// owned by that worker's goroutine.
type session struct {
	index      uint32
	generation uint32
	attempt    uint8 // of connecting, tells the server descriptors apart
	passes     uint8 // from port to port
	state      state
	cause      cause
	draining   bool // the process is stopping: nothing more is read from the client
	downLast   bool // the last byte moved was the server's: the client's turn, safe to cut
	again      bool // has used up its share, and another turn is due; see event
	accounted  bool // account was called
	keptAlive  bool // keepAlive was called
	patient    bool // no other server is left: this one may take all the time there is
	doubted    bool // the group was told that this server's greeting is awaited for long

	outcome upstream.Outcome // what to report when the peer is released, or was reported last
	barren  uint16           // events without progress since barrenAt; see spins

	client, server end
	up, down       half

	route *Route
	port  *Port
	to    *Destination // nil until it is admitted, and where there is none
	turn  upstream.Turn
	peer  *upstream.Peer // held until released; nil before and after
	next  *upstream.Peer // held beside it, from its choice until it is tried; see another
	last  *upstream.Peer // the latest peer tried, for the log

	from    netip.AddrPort // client's address; invalid for a unix socket
	local   netip.AddrPort // what the client connected to; invalid: not asked for yet
	front   netip.AddrPort // the proxy that introduced the client, if one did
	started int64          // ms; on its present port
	active  int64          // ms of the last progress, or of the state's begin
	waited  int64          // ms in the queue, before the present state
	lingers int32          // bytes discarded
	number  uint64         // of its client, counted in the process

	barrenAt int64 // ms

	record *record // nil unless the route has variables; and once accounted for
}

func (s *session) clientToken() reactor.Token {
	return reactor.MakeToken(kindClient, s.index, s.generation, 0)
}

func (s *session) serverToken() reactor.Token {
	return reactor.MakeToken(kindServer, s.index, s.generation, s.attempt)
}

// open starts the life of an accepted connection. The session owns fd.
func (w *worker) open(p *Port, fd int, from netip.AddrPort) {
	s := w.begin(p, fd, from)
	defer w.guard(s)
	if w.register(s) {
		w.welcome(s)
	}
}

// welcome begins with a client: if it is a proxy, by asking for whom it speaks.
func (w *worker) welcome(s *session) {
	if s.route.fronted(s.from.Addr()) {
		w.enter(s, stateHeader)
		w.readHeader(s)
		return
	}
	w.start(s)
}

// begin makes a session of an accepted connection.
func (w *worker) begin(p *Port, fd int, from netip.AddrPort) *session {
	s, index, generation := w.sessions.Get()
	now := w.loop.Now()
	s.index, s.generation = index, generation
	s.client = end{fd: int32(fd), writable: true}
	s.server.fd = -1
	s.port, s.from = p, from
	routes := p.routes.Load()
	w.choose(s, routes, netip.Addr{})
	s.setNoDelay(routes.rest.NoDelay) // that of the listening socket
	s.route.Epoch.join(w)
	s.started, s.active = now, now
	s.number = w.engine.numbers.Add(1)
	w.borrowRecord(s)
	s.route.journal().began(w, s)
	return s
}

// register has the loop watch the client; if it cannot, the session ends.
func (w *worker) register(s *session) bool {
	e := w.loop.Add(int(s.client.fd), s.clientToken(), reactor.Stream)
	if e != 0 {
		w.log.Error("register client", zap.Error(e))
		w.finish(s, causeInternal)
	}
	return e == 0
}

// guard ends a session whose handler panicked, and only that session. It is
// deferred around every entry into a session.
func (w *worker) guard(s *session) {
	r := recover()
	if r == nil {
		return
	}
	w.log.Error("session handler panicked, session dropped; please report this with the stack",
		zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
	if s.state == stateFree && s.route == nil {
		return // it was over already
	}
	if s.cause == causeNone {
		s.cause = causeInternal
	}
	s.up.drop(w)
	s.down.drop(w)
	w.account(s)
	w.hangUp(&s.client)
	w.hangUp(&s.server)
	w.free(s)
}

// event handles one event of a session's end, or with no events the turn that
// was due. A session with a turn due leaves what happens to that turn: else each
// event would be a further share of the loop, and ask for one more.
func (w *worker) event(s *session, kind reactor.Kind, events uint32) {
	defer w.guard(s)
	if w.engine.onEvent != nil {
		w.engine.onEvent(s)
	}
	e := &s.client
	if kind == kindServer {
		e = &s.server
	}
	e.note(events)
	if s.again && events != 0 {
		return
	}
	s.again = false
	switch s.state {
	case stateHeader:
		w.readHeader(s)
	case stateStandby:
		w.waiting(s)
	case stateQueue:
		w.queued(s)
	case stateConnecting:
		if kind == kindServer {
			w.connecting(s, events)
		} else {
			w.waiting(s)
		}
	case stateGreeting:
		if kind == kindServer {
			w.greeting(s)
		} else {
			w.clientSpoke(s)
		}
	case stateRelaying:
		w.relay(s)
	case stateLingering:
		w.linger(s)
	}
}
