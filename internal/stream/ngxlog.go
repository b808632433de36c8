package stream

import (
	"net/netip"
	"strconv"
	"syscall"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"smtplb/internal/errorlog"
	"smtplb/internal/reactor"
	"smtplb/internal/smtp"
	"smtplb/upstream"
)

// nginxJournal writes nginx's lines, word for word, for those who search them:
//
//	*1 client 192.0.2.1:40000 connected to 0.0.0.0:25
//	*1 connect() failed (111: Connection refused) while connecting to upstream, client: 192.0.2.1,
//	   server: 0.0.0.0:25, upstream: "10.0.0.1:25", bytes from/to client:0/0, bytes from/to upstream:0/0
//	*1 client disconnected, bytes from/to client:6/17, bytes from/to upstream:17/6
//
// (on one line each). The levels are nginx's too, and as there no line is left
// out. What nginx has no words for, the greeting before all, is said in ours and
// in the same shape. The number is the client's alone: nginx counts connections
// to servers along with them. See ngx_stream_log_error and
// ngx_stream_proxy_log_error.
type nginxJournal struct{}

// What a session is doing, in nginx's words where it does so.
const (
	doingHeader     = "reading PROXY protocol"
	doingInit       = "initializing session"
	doingNothing    = "" // between that and the next
	doingPassing    = "passing connection to port"
	doingConnecting = "connecting to upstream"
	doingQueue      = "waiting in the queue of upstream"
	doingGreeting   = "reading greeting from upstream"
	doingRelaying   = "proxying connection"
)

// doing is for the sessions whose client is known.
func (s *session) doing() string {
	switch s.state {
	case stateAdmission:
		return doingInit
	case stateRouting:
		if s.to == nil {
			return doingNothing
		}
	case statePassing:
		return doingPassing
	case stateQueue:
		return doingQueue
	case stateGreeting:
		return doingGreeting
	case stateRelaying:
		return doingRelaying
	}
	return doingConnecting
}

func (nginxJournal) began(w *worker, s *session) {
	if entry := w.logOf(s).Check(errorlog.Info, ""); entry != nil {
		entry.Message = string(s.line().text("client ").text(clientAddr(s.from)).text(" connected to ").text(s.route.listen))
		entry.Write()
	}
}

func (nginxJournal) reached(w *worker, s *session) {
	entry := w.logOf(s).Check(errorlog.Info, "")
	if entry == nil || w.local.Local(int(s.server.fd)) != 0 {
		return
	}
	entry.Message = string(s.line().text("proxy ").text(clientAddr(w.local.TCP())).text(" connected to ").text(s.peer.Addr().String()))
	entry.Write()
}

func (j nginxJournal) failed(w *worker, s *session, _ upstream.Outcome, what string, errno syscall.Errno) {
	level := errorlog.Error
	switch {
	case errno == unix.ETIMEDOUT:
		what = "upstream timed out"
	case what == calledConnect && s.server.hup: // the loop has told
		level, what = connectionError(errno, errorlog.Alert), "connect() failed"
	case what == calledConnect:
		level, what = connectionError(errno, errorlog.Crit), "connect() to "+s.peer.Addr().String()+" failed"
	case what == calledBind:
		level, what = errorlog.Crit, "bind("+sourceText(s.source())+") failed"
	case what == calledSocket || what == calledSetsockopt:
		level, what = errorlog.Alert, what+"() failed"
	default:
		what += " failed"
	}
	j.tell(w, s, level, what, errno, doingConnecting)
}

func (j nginxJournal) complain(w *worker, s *session, level zapcore.Level, message string, fields ...zap.Field) {
	if s.state == stateHeader {
		if message == lateHeader {
			j.tell(w, s, errorlog.Info, "client timed out", unix.ETIMEDOUT, doingHeader)
		} else {
			j.brokenHeader(w, s)
		}
		return
	}
	for _, f := range fields {
		if f.Key == saidField {
			message += ": " + inQuotes(f.String)
		}
	}
	j.tell(w, s, level, message, 0, s.doing())
}

func (j nginxJournal) ended(w *worker, s *session) {
	switch s.cause {
	case causeClientClosed, causeServerClosed, causeClientReset, causeServerReset:
		switch {
		case s.state != stateHeader:
			j.disconnected(w, s)
		case s.cause == causeClientReset:
			j.tell(w, s, errorlog.Info, "recv() failed", unix.ECONNRESET, doingHeader)
		default:
			j.brokenHeader(w, s)
		}
	case causeIdle:
		j.tell(w, s, errorlog.Info, "connection timed out", unix.ETIMEDOUT, doingRelaying)
	case causeDenied:
		j.tell(w, s, errorlog.Error, "access forbidden by rule", 0, doingInit)
	case causeLimit:
		j.tell(w, s, errorlog.Info, causeLimit.String()+" reached", 0, doingInit)
	case causePregreet:
		j.tell(w, s, errorlog.Info, causePregreet.String(), 0, doingGreeting)
	case causeShutdown:
		j.tell(w, s, errorlog.Info, "shutdown timeout", 0, s.doing())
	}
	// All other causes have been complained about.
}

// brokenHeader repeats what the client has sent in place of a PROXY header, as
// much of it as a version 1 may be long.
func (j nginxJournal) brokenHeader(w *worker, s *session) {
	const most = 107
	n, _ := reactor.Peek(int(s.client.fd), w.buf[:most])
	said := smtp.Printable(w.buf[:max(n, 0)], len(`\x00`)*most)
	j.tell(w, s, errorlog.Error, "broken header: "+inQuotes(said), 0, doingHeader)
}

// disconnected names the side that ended its stream first, or where ends are
// passed on, last; nginx gives up the session there.
func (j nginxJournal) disconnected(w *worker, s *session) {
	c := s.cause
	switch {
	case c == causeClientReset:
		j.tell(w, s, errorlog.Info, "recv() failed", unix.ECONNRESET, "proxying and reading from client")
	case c == causeServerReset:
		j.tell(w, s, errorlog.Error, "recv() failed", unix.ECONNRESET, "proxying and reading from upstream")
	case s.route.HalfClose && s.client.eof && s.server.eof:
		c = causeClientClosed + causeServerClosed - c
	}
	entry := w.logOf(s).Check(errorlog.Info, "")
	if entry == nil {
		return
	}
	side := "client"
	if c == causeServerClosed || c == causeServerReset {
		side = "upstream"
	}
	entry.Message = string(s.line().text(side).text(" disconnected").bytes(w, s))
	entry.Write()
}

// tell writes a line of "message (errno: text) while doing, client: ...".
func (nginxJournal) tell(w *worker, s *session, level zapcore.Level, message string, errno syscall.Errno, doing string) {
	entry := w.logOf(s).Check(level, "")
	if entry == nil {
		return
	}
	l := s.line().text(message)
	if errno != 0 {
		l = l.text(" (").number(int64(errno)).text(": ").text(errnoText(errno)).text(")")
	}
	if doing != doingNothing {
		l = l.text(" while ").text(doing)
	}
	l = l.text(", client: ").text(addrText(s.from.Addr())).text(", server: ").text(s.port.name)
	switch doing {
	case doingHeader, doingInit, doingPassing:
	case doingNothing:
		l = l.bytes(w, s)
	default:
		l = l.text(`, upstream: "`).text(s.upstreamText()).text(`"`).bytes(w, s)
	}
	entry.Message = string(l)
	entry.Write()
}

// upstreamText is the server that the session has or had, or its group while it
// looks for one.
func (s *session) upstreamText() string {
	switch {
	case s.peer != nil:
		return s.peer.Addr().String()
	case s.last != nil && (s.state == stateGreeting || s.state == stateRelaying):
		return s.last.Addr().String()
	}
	return s.groupName()
}

// ngxLine is a line of nginx's under construction.
type ngxLine []byte

func (s *session) line() ngxLine {
	return ngxLine("*").number(int64(s.number)).text(" ")
}

func (l ngxLine) text(s string) ngxLine  { return append(l, s...) }
func (l ngxLine) number(n int64) ngxLine { return strconv.AppendInt(l, n, 10) }

// bytes adds what was moved. The PROXY header counts, as nginx sends it like
// the client's first bytes.
func (l ngxLine) bytes(w *worker, s *session) ngxLine {
	toServer := s.up.out
	if s.state == stateGreeting || s.state == stateRelaying {
		toServer += int64(len(w.header(s)))
	}
	return l.text(", bytes from/to client:").number(s.up.in).text("/").number(s.down.out).
		text(", bytes from/to upstream:").number(s.down.in).text("/").number(toServer)
}

// addrText is an address as nginx has it in addr_text: no port, no zone.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "unix:"
	}
	return a.WithZone("").String()
}

// sourceText is an address to bind as it was written, a port of 0 is none.
func sourceText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return addrText(a.Addr())
	}
	return a.String()
}

// errnoText is what strerror says. Go has the same words, but begins them in
// lower case.
func errnoText(errno syscall.Errno) string {
	text := errno.Error()
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// connectionError is error for what a network may say and other for the rest
// (ngx_event_connect_peer, ngx_connection_error).
func connectionError(errno syscall.Errno, other zapcore.Level) zapcore.Level {
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH,
		unix.EAGAIN, unix.EPIPE, unix.ENOTCONN:
		return errorlog.Error
	}
	return other
}
