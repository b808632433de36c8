package stream

import (
	"time"

	"go.uber.org/zap"

	"smtplb/internal/reactor"
	"smtplb/internal/smtp"
	"smtplb/upstream"
)

// The greeting gate. A mail server speaks first, so its first bytes say
// whether it takes mail at all, before the client has seen anything; until
// then the session can go to another server, and nobody notices. The greeting
// is peeked at and stays in the socket: once the gate is open, the relay
// delivers it like any other byte.
//
// The gate opens, for good, when
//   - the first bytes are those of a 2xx reply, whether complete or not (but
//     with PregreetHold it must be);
//   - the refusal is about this client (a 5xx, a 421 4.7.x), and the server
//     knows who the client is;
//   - it is a refusal, and no other server is left to ask;
//   - the client has spoken first and Pregreet passes that on: then it is for
//     the server to judge.

// Gate are the settings of a route whose servers speak SMTP.
type Gate struct {
	// Timeout is how long a server may take to greet while another one can be
	// asked; the last one has what is left of Route.NextTimeout, or else
	// Route.Timeout.
	Timeout  time.Duration
	Pregreet Pregreet
	Replies  Replies
}

// Pregreet says what becomes of a client that speaks before it is greeted.
type Pregreet uint8

// The values of smtp_pregreet.
const (
	PregreetPass   Pregreet = iota // the server gets its bytes at once, and sees the offence
	PregreetHold                   // its bytes wait for the whole greeting
	PregreetReject                 // it is refused
)

// tlsHandshake is the first byte of a TLS client hello (port 465): the session
// is no SMTP yet, and its client rightly speaks first.
const tlsHandshake = 0x16

// within cuts a deadline to the time that the session has for finding a server.
func (w *worker) within(s *session, deadline int64) int64 {
	if s.route.Gate == nil || s.route.NextTimeout == 0 {
		return deadline
	}
	return min(deadline, s.started+s.waited+s.route.NextTimeout.Milliseconds())
}

// await begins the wait for the greeting of a server that was just reached.
func (w *worker) await(s *session) {
	w.enter(s, stateGreeting)
	if !w.clientSpoke(s) && s.server.readable {
		w.greeting(s)
	}
}

// clientSpoke handles what a client does while it should wait for the greeting.
// It reports whether that decided the session.
func (w *worker) clientSpoke(s *session) bool {
	if !s.client.readable {
		return false
	}
	n, errno := reactor.Peek(int(s.client.fd), w.buf[:1])
	if errno == eagain {
		s.client.readable = false
		return false
	}
	if errno == 0 && s.client.hup {
		errno = reactor.SocketError(int(s.client.fd)) // it may have been reset behind what it sent
	}
	if errno != 0 || n == 0 {
		w.clientLeft(s, errno != 0)
		return true
	}
	switch g := s.route.Gate; {
	case w.buf[0] == tlsHandshake:
		w.commit(s, upstream.OutcomeOK)
	case g.Pregreet == PregreetPass:
		w.commit(s, upstream.OutcomeUnjudged)
	case g.Pregreet == PregreetReject:
		w.turnAway(s, ReplyPregreet, causePregreet)
	default:
		return false
	}
	return true
}

// greeting judges what the server has said so far.
func (w *worker) greeting(s *session) {
	b := w.buffer(smtp.MaxGreeting)
	n, errno := reactor.Peek(int(s.server.fd), b)
	if errno == eagain {
		s.server.readable = false
		return
	}
	if errno != 0 || n == 0 {
		w.passOver(s, upstream.OutcomeEmpty, "server closed before its greeting", nil)
		return
	}
	g := smtp.Classify(b[:n], s.server.hup)
	w.bookFirstByte(s)
	w.bookBanner(s, g.Code)
	switch {
	case g.Verdict == smtp.More:
	case g.Verdict == smtp.Ready && s.route.Gate.Pregreet == PregreetHold && !s.server.hup && !smtp.Ended(b[:n]):
		// What the client says would reach the server between two lines of its
		// greeting, as by postscreen's teaser.
	case g.Verdict == smtp.Ready:
		w.commit(s, upstream.OutcomeOK)
	case g.Verdict == smtp.Policy && s.clientVisible():
		w.commit(s, upstream.OutcomeClientRejected)
	case g.Verdict == smtp.Policy:
		w.passOver(s, upstream.OutcomeRejected, "server refuses this balancer", g.Line)
	case g.Verdict == smtp.Busy:
		w.passOver(s, upstream.OutcomeBusy, "server takes no mail now", g.Line)
	default:
		w.passOver(s, upstream.OutcomeGarbage, "server does not greet as SMTP does", g.Line)
	}
}

// greeted reports that what the server says first is, for all we know, no
// refusal; of one it is no merit to come fast.
func (s *session) greeted() bool {
	return s.outcome == upstream.OutcomeOK || s.outcome == upstream.OutcomeUnjudged
}

// noGreeting is called when a server has taken too long to greet. If nobody
// else can be asked, it gets the rest of the time there is.
func (w *worker) noGreeting(s *session) {
	if s.patient {
		o := upstream.OutcomeGreetingTimeout
		if w.loop.Now()-s.active < s.route.Gate.Timeout.Milliseconds() {
			o = upstream.OutcomeUnjudged
		}
		w.complain(s, "no greeting in time", w.about(s, nil)...)
		w.giveUp(s, o, false)
		w.turnAway(s, ReplyUnavailable, causeNoGreeting)
		return
	}
	next := w.another(s)
	if next == nil && !s.turn.MustWait() {
		s.patient = true
		w.loop.Timers.Arm(s.index, w.deadline(s))
		return
	}
	w.complain(s, "no greeting in time, asking another server", w.about(s, nil)...)
	w.giveUp(s, upstream.OutcomeGreetingTimeout, false)
	w.try(s, next)
}

// passOver goes on to another server when one is connected but of no use. Where
// there is none, a refusal is passed to the client as it stands: it says more
// than we could.
func (w *worker) passOver(s *session, o upstream.Outcome, why string, said []byte) {
	w.complain(s, why, w.about(s, said)...)
	refusal := o == upstream.OutcomeBusy || o == upstream.OutcomeRejected
	if !refusal {
		w.giveUp(s, o, false)
	}
	next := w.another(s)
	none := next == nil && !s.turn.MustWait() && !s.turn.Full()
	switch {
	case none && refusal:
		w.commit(s, o)
		return
	case none:
		w.turnAway(s, ReplyUnavailable, causeNoGreeting)
		return
	case refusal:
		w.giveUp(s, o, true)
	}
	w.try(s, next)
}

// another returns a further server for the session, or nil. If it has one, it
// holds both from then on.
func (w *worker) another(s *session) *upstream.Peer {
	left := s.turn.Left()
	if s.peer != nil {
		left-- // the try under way
	}
	if left <= 0 || !w.mayGoOn(s) {
		return nil
	}
	s.next = w.next(s)
	return s.next
}

// giveUp ends the session's business with its server.
func (w *worker) giveUp(s *session, o upstream.Outcome, quit bool) {
	w.abandon(s, quit)
	w.release(s, o)
}

// abandon parts from a server that was connected for nothing, in the way that
// leaves least dirt in its log: QUIT if it has greeted, then our end of stream,
// and what it still says is read and discarded. The socket goes to a session of
// its own, which has nothing else and lingers.
func (w *worker) abandon(s *session, quit bool) {
	fd := s.server.fd
	s.server = end{fd: -1}
	if quit {
		_, _ = reactor.Send(int(fd), []byte("QUIT\r\n"))
	}
	_ = reactor.ShutdownWrite(int(fd))
	o, index, generation := w.sessions.Get()
	o.index, o.generation = index, generation
	o.client.fd = -1
	o.server = end{fd: fd, readable: true, shut: true}
	o.route, o.port = s.route, s.port
	o.accounted = true
	w.join()
	if e := w.loop.Move(int(fd), o.serverToken(), reactor.Stream); e != 0 {
		w.hangUp(&o.server)
		w.free(o)
		return
	}
	w.enter(o, stateLingering)
	w.linger(o)
}

// saidField is the field of a server's words.
const saidField = "said"

// about are the fields of a line about a server's greeting.
func (w *worker) about(s *session, said []byte) []zap.Field {
	fields := []zap.Field{zap.String("upstream", s.groupName()), zap.String("peer", s.peer.Name())}
	if len(said) > 0 {
		fields = append(fields, zap.String(saidField, smtp.Printable(said, smtp.LogLimit)))
	}
	return fields
}
