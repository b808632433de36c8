package errorlog

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/sink"
)

const (
	// room bounds the bytes that wait for the file: some thousand lines.
	room = 1 << 20
	// longestSyslog bounds the text of one datagram, as nginx does. Over UDP a
	// longer one would be cut to pieces, or lost.
	longestSyslog = 2048
)

// Log is an open log. Its logger and its methods may be used by any goroutine
// at any time, a logger also after Close.
type Log struct {
	level  zap.AtomicLevel
	logger *zap.Logger
	target target

	mu      sync.Mutex // protects below, and lets one change of the file happen at a time
	path    string
	crashes bool // the file takes what the runtime says when it crashes
}

// Open opens path, standard error for "stderr", or a connection to a log server
// for "syslog:server=…" (see package comment). A file is created if there
// is none, appended to if there is, and a symbolic link is followed: containers
// lead a log to /dev/stdout by one. Records below level are not written.
func Open(path string, level zapcore.Level) (*Log, error) {
	l := &Log{path: path, level: zap.NewAtomicLevelAt(level)}
	q, err := l.open(path, nil)
	if err != nil {
		return nil, err
	}
	l.target.current.Store(q)
	l.logger = zap.New(zapcore.NewCore(newEncoder(l.target.processName), &l.target, l.level),
		zap.ErrorOutput(&l.target),
		// zap's own threshold lies below Crit; each record would pay for a
		// stack that no line shows.
		zap.AddStacktrace(zap.LevelEnablerFunc(func(zapcore.Level) bool { return false })))
	return l, nil
}

// Logger is the logger that writes here, the same before and after Reopen and
// Reconfigure.
func (l *Log) Logger() *zap.Logger { return l.logger }

// NameProcess has the lines from now on name this process behind their level, as
// nginx's do: "[notice] 4711#4711: ". The second number is a thread's in nginx; a
// worker has one, and it is the process's own.
func (l *Log) NameProcess() {
	name := fmt.Sprintf(" %[1]d#%[1]d:", os.Getpid())
	l.target.process.Store(&name)
}

// Dropped is how many records were lost since Open.
func (l *Log) Dropped() uint64 { return l.target.dropped.Load() }

// SetLevel changes the level for the records to come.
func (l *Log) SetLevel(level zapcore.Level) { l.level.SetLevel(level) }

// Reopen opens the path anew, after logrotate has renamed the file. When it
// returns, the old file is complete and closed, unless it blocks for longer
// than a second, and what is logged from then on goes to the new one. If that
// cannot be opened, the old file stays in use.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reopenLocked(l.path)
}

// Reconfigure is for a reload: another path, another level, or the same; the
// path is opened anew even then, since a reload often follows a rotation. On
// an error all stays as it was. In a reload it is the last step that may fail,
// so that a reload refused for another reason leaves the log alone.
func (l *Log) Reconfigure(path string, level zapcore.Level) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.reopenLocked(path); err != nil {
		return err
	}
	l.path = path
	l.SetLevel(level)
	return nil
}

func (l *Log) reopenLocked(path string) error {
	if path == Stderr && l.path == Stderr {
		return nil
	}
	old := l.target.current.Load()
	q, err := l.open(path, old)
	if err != nil {
		return err
	}
	// The new one first: a record that finds the old one closed looks again.
	l.target.current.Store(q)
	old.Close(sink.Handover)
	old.Wait(sink.Handover)
	return nil
}

// Sync waits until all records logged so far are written or dropped, at most
// for timeout.
func (l *Log) Sync(timeout time.Duration) error {
	q := l.target.current.Load()
	if q == nil || q.Sync(timeout) {
		return nil
	}
	return fmt.Errorf("write error log %s: not done after %s", q.Device().Name(), timeout)
}

// Close is Sync, and then the file is closed; what is logged later is dropped.
// After an error the writing goroutine still waits for the file, which does
// not keep the process from exiting.
func (l *Log) Close(timeout time.Duration) error {
	q := l.target.current.Swap(nil)
	if q == nil {
		return nil
	}
	q.Close(timeout)
	if !q.Wait(timeout) {
		return fmt.Errorf("close error log %s: not all written after %s", q.Device().Name(), timeout)
	}
	return nil
}

// open makes a queue that follows after, which is nil at first.
func (l *Log) open(path string, after *sink.Queue) (*sink.Queue, error) {
	d, err := sink.Open(path, sink.Format{Severity: severityOf, Longest: longestSyslog})
	if err != nil {
		if IsFile(path) {
			err = fmt.Errorf("open error log: %w", err)
		}
		return nil, err
	}
	if l.crashes {
		takeCrashes(d)
	}
	return sink.NewQueue(d, sink.Options{
		Room:  room,
		Lost:  func(lines uint64, _ error) { l.target.dropped.Add(lines) },
		Tell:  l.target.lostLine,
		After: after,
	}), nil
}

// target is the queue of the moment, as the WriteSyncer of a zapcore.Core. A
// nil current means that the log is closed.
type target struct {
	current atomic.Pointer[sink.Queue]
	dropped atomic.Uint64
	process atomic.Pointer[string] // " pid#tid:"; nil: lines do not name it
}

// Write takes one whole record.
func (t *target) Write(record []byte) (int, error) {
	line := bytebufferpool.Get()
	defer bytebufferpool.Put(line)
	line.B = appendLine(line.B, record)
	for {
		q := t.current.Load()
		if q == nil {
			t.dropped.Add(1)
			break
		}
		if q.Add(line.B) {
			break
		}
	}
	return len(record), nil
}

func (t *target) processName() string {
	if name := t.process.Load(); name != nil {
		return *name
	}
	return ""
}

// Sync does nothing: zap calls it after each record above Error, on whatever
// goroutine logs, and none of them may wait for a disk.
func (t *target) Sync() error { return nil }
