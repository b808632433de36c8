package errorlog

import (
	"math"
	"sync/atomic"

	"github.com/valyala/bytebufferpool"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/sink"
)

const (
	// room bounds the bytes that wait for a file: some thousand lines.
	room = 1 << 20
	// longestSyslog bounds the text of one datagram, as nginx does. Over UDP a
	// longer one would be cut to pieces, or lost.
	longestSyslog = 2048
)

// never is above all levels.
const never zapcore.Level = math.MaxInt8

// Log takes records to its targets. Its logger may be used by any goroutine at
// any time, after the end of the log, too.
type Log struct {
	set     *Set
	key     string // in set.logs
	uses    int    // protected by set.mu
	logger  *zap.Logger
	outlets atomic.Pointer[outlets]
}

// outlets are the open targets of a log. They do not change, but for another
// file that one of theirs is led to.
type outlets struct {
	all    []outlet
	lowest zapcore.Level // of all
}

type outlet struct {
	*file
	level zapcore.Level
}

// file is an open file, for all logs that name it.
type file struct {
	path  string
	uses  int                        // protected by Set.mu
	queue atomic.Pointer[sink.Queue] // nil: closed
}

func newLog(s *Set) *Log {
	l := &Log{set: s}
	l.outlets.Store(&outlets{lowest: never})
	l.logger = zap.New(&core{l, newEncoder(s.processName)},
		zap.ErrorOutput(zapErrors{l}),
		// zap's own threshold lies below Crit; each record would pay for a
		// stack that no line shows.
		zap.AddStacktrace(zap.LevelEnablerFunc(func(zapcore.Level) bool { return false })))
	return l
}

// Logger is the logger that writes here.
func (l *Log) Logger() *zap.Logger { return l.logger }

// Release says that who has called Set.Log will log no more. The last one closes
// the files that no other log has.
func (l *Log) Release() {
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	if l.uses--; l.uses == 0 {
		delete(l.set.logs, l.key)
		l.set.releaseLocked(l.outlets.Load())
	}
}

// write takes a whole line to the targets that want its level. A target given
// twice gets it twice, as in nginx.
func (l *Log) write(level zapcore.Level, line []byte) {
	for {
		outlets := l.outlets.Load()
		taken, lost := 0, uint64(0)
		for _, to := range outlets.all {
			switch {
			case level < to.level:
			case to.add(line):
				taken++
			default:
				lost++
			}
		}
		if lost == 0 {
			return
		}
		if taken > 0 || outlets == l.outlets.Load() {
			l.set.dropped.Add(lost)
			return
		}
		// Reconfigure has closed all that was there just now.
	}
}

// add reports false if the file is closed. It waits for nothing.
func (f *file) add(line []byte) bool {
	for {
		q := f.queue.Load()
		if q == nil {
			return false
		}
		if q.Add(line) {
			return true
		}
		// Reopen has put another one there.
	}
}

// core makes lines of zap's records.
type core struct {
	log     *Log
	encoder zapcore.Encoder // has the fields of With
}

func (c *core) Enabled(level zapcore.Level) bool { return level >= c.log.outlets.Load().lowest }

func (c *core) With(fields []zap.Field) zapcore.Core {
	clone := &core{c.log, c.encoder.Clone()}
	for _, f := range fields {
		f.AddTo(clone.encoder)
	}
	return clone
}

func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *core) Write(e zapcore.Entry, fields []zap.Field) error {
	record, err := c.encoder.EncodeEntry(e, fields)
	if err != nil {
		return err
	}
	defer record.Free()
	line := bytebufferpool.Get()
	defer bytebufferpool.Put(line)
	line.B = appendLine(line.B, record.Bytes())
	c.log.write(e.Level, line.B)
	return nil
}

// Sync does nothing: nobody who logs may wait for a disk.
func (c *core) Sync() error { return nil }

// zapErrors takes what zap itself has to complain about.
type zapErrors struct{ log *Log }

func (z zapErrors) Write(p []byte) (int, error) {
	z.log.write(Error, appendLine(nil, p))
	return len(p), nil
}

func (z zapErrors) Sync() error { return nil }
