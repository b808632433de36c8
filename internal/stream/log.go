package stream

import (
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/upstream"
)

// sessionLevel is written as [info]; see package errorlog.
const sessionLevel = zapcore.DebugLevel

// logSession writes the one line of a session that has ended.
func (w *worker) logSession(s *session) {
	entry := w.log.Check(sessionLevel, "session ended")
	if entry == nil {
		return
	}
	entry.Write(append(w.fields(s),
		zap.String("upstream", s.route.Group.Name()),
		zap.String("peer", peerName(s.last)),
		zap.Int64("from_client", s.up.in),
		zap.Int64("to_server", s.up.out),
		zap.Int64("from_server", s.down.in),
		zap.Int64("to_client", s.down.out),
		zap.Duration("took", time.Duration(w.loop.Now()-s.started)*time.Millisecond),
		zap.Stringer("end", s.cause))...)
}

// logAttempt writes why a server could not be reached.
func (w *worker) logAttempt(s *session, o upstream.Outcome, what string, errno syscall.Errno) {
	fields := [...]zap.Field{
		zap.String("upstream", s.route.Group.Name()),
		zap.String("peer", s.peer.Name()),
		zap.Stringer("outcome", o),
		zap.Skip(),
	}
	if errno != 0 {
		fields[3] = zap.Error(errno)
	}
	w.complain(s, what, fields[:]...)
}

// complain writes an error that peers can cause as often as they like: one
// line a second at most, with the number of those left out.
func (w *worker) complain(s *session, message string, fields ...zap.Field) {
	entry := w.log.Check(zapcore.ErrorLevel, message)
	if entry == nil {
		return
	}
	ok, skipped := w.engine.complaints.allow()
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
	return append(s.clientFields(), zap.String("listen", s.port.name))
}

func peerName(p *upstream.Peer) string {
	if p == nil {
		return ""
	}
	return p.Name()
}
