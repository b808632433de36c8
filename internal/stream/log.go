package stream

import (
	"net/netip"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/upstream"
)

// journal tells the log what becomes of sessions. A route has one of two: ours,
// with one line for each session and its facts as fields, or nginx's, which is
// in ngxlog.go.
type journal interface {
	began(w *worker, s *session)   // a client was accepted
	reached(w *worker, s *session) // a server is connected
	// failed is called when a server could not be reached, while the session
	// still has it. What names the step, errno may be 0.
	failed(w *worker, s *session, o upstream.Outcome, what string, errno syscall.Errno)
	// complain writes what peers can cause as often as they like.
	complain(w *worker, s *session, level zapcore.Level, message string, fields ...zap.Field)
	ended(w *worker, s *session) // once, and its server is released
}

func (r *Route) journal() journal {
	if r.NginxLog {
		return nginxJournal{}
	}
	return ownJournal{}
}

// Log takes what sessions meet with.
type Log struct {
	*zap.Logger
	complaints limiter
}

// NewLog makes a Log of a logger. The routes that have it share how often it
// tells of what peers can cause.
func NewLog(logger *zap.Logger) *Log { return &Log{Logger: logger} }

// logOf is where lines about a session go, for all its life.
func (w *worker) logOf(s *session) *Log {
	if s.route.Log != nil {
		return s.route.Log
	}
	return w.engine.sessionLog
}

func (w *worker) complain(s *session, message string, fields ...zap.Field) {
	s.route.journal().complain(w, s, zapcore.ErrorLevel, message, fields...)
}

// inQuotes puts quotes around an outsider's text, printable already, that it cannot
// close: what follows them in nginx's lines, such as the client, is what filters of
// logs go by.
func inQuotes(printable string) string {
	return `"` + strings.ReplaceAll(printable, `"`, `\x22`) + `"`
}

// sessionLevel is written as [info]; see package errorlog.
const sessionLevel = zapcore.DebugLevel

type ownJournal struct{}

func (ownJournal) began(*worker, *session)   {}
func (ownJournal) reached(*worker, *session) {}

func (ownJournal) ended(w *worker, s *session) {
	entry := w.logOf(s).Check(sessionLevel, "session ended")
	if entry == nil {
		return
	}
	fields := append(w.fields(s),
		zap.String("upstream", s.groupName()),
		zap.String("peer", peerName(s.last)),
		zap.Int64("from_client", s.up.in),
		zap.Int64("to_server", s.up.out),
		zap.Int64("from_server", s.down.in),
		zap.Int64("to_client", s.down.out),
		zap.Duration("took", time.Duration(w.loop.Now()-s.started)*time.Millisecond),
		zap.Stringer("end", s.cause))
	if s.waited > 0 {
		fields = append(fields, zap.Duration("in_queue", time.Duration(s.waited)*time.Millisecond))
	}
	entry.Write(fields...)
}

func (j ownJournal) failed(w *worker, s *session, o upstream.Outcome, what string, errno syscall.Errno) {
	fields := [...]zap.Field{
		zap.String("upstream", s.groupName()),
		zap.String("peer", s.peer.Name()),
		zap.Stringer("outcome", o),
		zap.Skip(),
	}
	if errno != 0 {
		fields[3] = zap.Error(errno)
	}
	j.complain(w, s, zapcore.ErrorLevel, what+" failed", fields[:]...)
}

// complain writes one line a second at most to a log, with the number of those
// left out.
func (ownJournal) complain(w *worker, s *session, level zapcore.Level, message string, fields ...zap.Field) {
	log := w.logOf(s)
	entry := log.Check(level, message)
	if entry == nil {
		return
	}
	ok, skipped := log.complaints.allow()
	if !ok {
		return
	}
	fields = append(w.fields(s), fields...)
	if skipped > 0 {
		fields = append(fields, zap.Int64("similar_lines_left_out", skipped))
	}
	entry.Write(fields...)
}

// fields are what every line about a session begins with.
func (w *worker) fields(s *session) []zap.Field {
	return append(s.clientFields(), zap.String("listen", s.route.listen))
}

// clientFields say who the client is, and through whom it came.
func (s *session) clientFields() []zap.Field {
	fields := []zap.Field{zap.String("client", clientAddr(s.from))}
	if s.front != (netip.AddrPort{}) {
		fields = append(fields, zap.String("front", clientAddr(s.front)))
	}
	return fields
}

// clientAddr is how a client is written in logs.
func clientAddr(from netip.AddrPort) string {
	if !from.IsValid() {
		return "unix:"
	}
	return from.String()
}

// groupName is the group that the session goes to, or before it has one, the
// route's.
func (s *session) groupName() string {
	switch {
	case s.to != nil:
		return s.to.Group.Name()
	case s.route.Group != nil:
		return s.route.Group.Name()
	}
	return ""
}

func peerName(p *upstream.Peer) string {
	if p == nil {
		return ""
	}
	return p.Name()
}
