package errorlog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Stderr is the path that stands for the process's standard error.
const Stderr = "stderr"

// fileMode is for a file that does not exist yet: the log names who sends mail
// to whom. One that exists keeps its mode and owner, as logrotate made it.
const fileMode = 0o640

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
	s, err := l.open(path)
	if err != nil {
		return nil, err
	}
	l.target.current.Store(s)
	l.logger = zap.New(zapcore.NewCore(newEncoder(), &l.target, l.level),
		zap.ErrorOutput(&l.target),
		// zap's own threshold lies below Crit; each record would pay for a
		// stack that no line shows.
		zap.AddStacktrace(zap.LevelEnablerFunc(func(zapcore.Level) bool { return false })))
	return l, nil
}

// Logger is the logger that writes here, the same before and after Reopen and
// Reconfigure.
func (l *Log) Logger() *zap.Logger { return l.logger }

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
	s, err := l.open(path)
	if err != nil {
		return err
	}
	// The new one first: a record that finds the old one closed looks again.
	old := l.target.current.Swap(s)
	old.close(handover)
	wait(old.done, handover)
	return nil
}

// Sync waits until all records logged so far are written or dropped, at most
// for timeout.
func (l *Log) Sync(timeout time.Duration) error {
	s := l.target.current.Load()
	if s == nil || wait(s.flushed(), timeout) {
		return nil
	}
	return fmt.Errorf("write error log %s: not done after %s", s.file.Name(), timeout)
}

// Close is Sync, and then the file is closed; what is logged later is dropped.
// After an error the writing goroutine still waits for the file, which does
// not keep the process from exiting.
func (l *Log) Close(timeout time.Duration) error {
	s := l.target.current.Swap(nil)
	if s == nil {
		return nil
	}
	s.close(timeout)
	if !wait(s.done, timeout) {
		return fmt.Errorf("close error log %s: not all written after %s", s.file.Name(), timeout)
	}
	return nil
}

func wait(done <-chan struct{}, timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (l *Log) open(path string) (*sink, error) {
	if IsStderr(path) {
		return newSink(os.Stderr, &l.target.dropped), nil
	}
	if parameters, ok := syslogParameters(path); ok {
		s, err := openSyslog(parameters)
		if err != nil {
			return nil, err
		}
		return newSink(s, &l.target.dropped), nil
	}
	// O_NONBLOCK is for a FIFO: without it open would wait for a reader. On a
	// file it means nothing.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open error log: %w", hint(err))
	}
	if l.crashes {
		takeCrashes(f)
	}
	return newSink(f, &l.target.dropped), nil
}

// hint adds what the operator can do to an error of open.
func hint(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w: create the directory first", err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: give the user of this process write permission", err)
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%w: name a file in it", err)
	case errors.Is(err, syscall.ENXIO):
		return fmt.Errorf(`%w: a FIFO without a reader, or a socket, cannot be opened; for standard error write "stderr"`, err)
	}
	return err
}

// target is the sink of the moment, as the WriteSyncer of a zapcore.Core. A
// nil current means that the log is closed.
type target struct {
	current atomic.Pointer[sink]
	dropped atomic.Uint64
}

// Write takes one whole record.
func (t *target) Write(record []byte) (int, error) {
	for {
		s := t.current.Load()
		if s == nil {
			t.dropped.Add(1)
			break
		}
		if s.add(record) {
			break
		}
	}
	return len(record), nil
}

// Sync does nothing: zap calls it after each record above Error, on whatever
// goroutine logs, and none of them may wait for a disk.
func (t *target) Sync() error { return nil }
