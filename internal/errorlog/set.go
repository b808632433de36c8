package errorlog

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/sink"
)

// Set holds the logs of a process: its own, and those of servers that have one
// of theirs. Its methods may be called by any goroutine at any time.
type Set struct {
	own     *Log
	dropped atomic.Uint64
	process atomic.Pointer[string] // " pid#tid:"; nil: lines do not name it

	mu      sync.Mutex       // protects below, and lets one change of the files happen at a time
	files   map[string]*file // by their paths
	logs    map[string]*Log  // by their targets, without own
	crashes bool             // the process's log takes what the runtime says when it crashes
}

// Target is one of the places where the records of a log go.
type Target struct {
	Path  string        // a file, "stderr", or "syslog:server=…"; see sink.Open
	Level zapcore.Level // those below are not written here
}

// TargetError says that a target of a log cannot be opened.
type TargetError struct {
	Target int // which one, from 0
	Err    error
}

func (e *TargetError) Error() string { return e.Err.Error() }
func (e *TargetError) Unwrap() error { return e.Err }

// Open opens the process's own log: all of its targets, or none and a
// *TargetError. Close ends the set.
func Open(targets ...Target) (*Set, error) {
	s := &Set{files: make(map[string]*file), logs: make(map[string]*Log)}
	s.own = newLog(s)
	if err := s.Reconfigure(targets...); err != nil {
		return nil, err
	}
	return s, nil
}

// Logger is the logger of the process's own log, the same before and after
// Reopen and Reconfigure.
func (s *Set) Logger() *zap.Logger { return s.own.logger }

// Log opens a log beside the process's own, or returns the one that has these
// targets, or a *TargetError. Each needs a Release.
func (s *Set) Log(targets ...Target) (*Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%q", targets) // quoted: a path may look like the end of one target and another
	if l := s.logs[key]; l != nil {
		l.uses++
		return l, nil
	}
	outlets, err := s.acquireLocked(targets)
	if err != nil {
		return nil, err
	}
	l := newLog(s)
	l.key, l.uses = key, 1
	l.outlets.Store(outlets)
	s.logs[key] = l
	return l, nil
}

// Reconfigure gives the process's own log other targets. On an error it keeps
// those it has. In a reload it is the last step that may fail, so that a reload
// refused for another reason leaves the log alone.
func (s *Set) Reconfigure(targets ...Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	outlets, err := s.acquireLocked(targets)
	if err != nil {
		return err
	}
	// The new ones first: a record that finds a closed file looks again.
	old := s.own.outlets.Swap(outlets)
	s.takeCrashesLocked()
	s.releaseLocked(old)
	return nil
}

// acquireLocked opens the files of a log; one that another log has is shared.
func (s *Set) acquireLocked(targets []Target) (*outlets, error) {
	o := &outlets{lowest: never}
	for i, t := range targets {
		f := s.files[t.Path]
		if f == nil {
			f = &file{path: t.Path}
			q, err := s.open(t.Path, nil)
			if err != nil {
				s.releaseLocked(o)
				return nil, &TargetError{i, err}
			}
			f.queue.Store(q)
			s.files[t.Path] = f
		}
		f.uses++
		o.all = append(o.all, outlet{f, t.Level})
		o.lowest = min(o.lowest, t.Level)
	}
	return o, nil
}

// releaseLocked closes the files that no log has any more, which have a moment
// to take what was logged.
func (s *Set) releaseLocked(o *outlets) {
	var old []*sink.Queue
	for _, to := range o.all {
		if to.uses--; to.uses > 0 {
			continue
		}
		if q := to.queue.Swap(nil); q != nil { // else the set is closed
			q.Close(sink.Handover)
			old = append(old, q)
		}
		delete(s.files, to.path)
	}
	sink.WaitAll(old, sink.Handover)
}

// open makes a queue that follows after, which is nil at first.
func (s *Set) open(path string, after *sink.Queue) (*sink.Queue, error) {
	d, err := sink.Open(path, sink.Format{Severity: severityOf, Longest: longestSyslog})
	if err != nil {
		if IsFile(path) {
			err = fmt.Errorf("open error log: %w", err)
		}
		return nil, err
	}
	return sink.NewQueue(d, sink.Options{
		Room:  room,
		Lost:  func(lines uint64, _ error) { s.dropped.Add(lines) },
		Tell:  s.lostLine,
		After: after,
	}), nil
}

// NameProcess has the lines from now on name this process behind their level, as
// nginx's do: "[notice] 4711#4711: ". The second number is a thread's in nginx; a
// worker has one, and it is the process's own.
func (s *Set) NameProcess() {
	name := fmt.Sprintf(" %[1]d#%[1]d:", os.Getpid())
	s.process.Store(&name)
}

func (s *Set) processName() string {
	if name := s.process.Load(); name != nil {
		return *name
	}
	return ""
}

// Dropped is how many lines were lost since Open.
func (s *Set) Dropped() uint64 { return s.dropped.Load() }

// Reopen opens all files anew, after logrotate has renamed them. When it
// returns, the old ones are complete and closed, unless they block for longer
// than a second, and what is logged from then on goes to the new ones. Where one
// cannot be opened, the old file stays in use, and the error names it.
func (s *Set) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	var old []*sink.Queue
	for _, f := range s.sortedLocked() {
		before := f.queue.Load()
		if f.path == Stderr || before == nil {
			continue
		}
		q, err := s.open(f.path, before)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.queue.Store(q)
		before.Close(sink.Handover)
		old = append(old, before)
	}
	s.takeCrashesLocked()
	sink.WaitAll(old, sink.Handover)
	return errors.Join(errs...)
}

// sortedLocked are the files in an order that is always the same.
func (s *Set) sortedLocked() []*file {
	var files []*file
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		files = append(files, s.files[path])
	}
	return files
}

// GiveTo makes the user uid the owner of the log files, so that Reopen goes on
// working after the process has become that user; see sink.GiveTo.
func (s *Set) GiveTo(uid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.sortedLocked() {
		if q := f.queue.Load(); q != nil {
			errs = append(errs, sink.GiveTo(q.Device(), uid))
		}
	}
	return errors.Join(errs...)
}

// Sync waits until all records logged so far are written or dropped, at most
// for timeout.
func (s *Set) Sync(timeout time.Duration) error {
	s.mu.Lock()
	files := s.sortedLocked()
	s.mu.Unlock()
	deadline := time.Now().Add(timeout)
	var errs []error
	for _, f := range files {
		if q := f.queue.Load(); q != nil && !q.Sync(time.Until(deadline)) {
			errs = append(errs, fmt.Errorf("write error log %s: not done after %s", q.Device().Name(), timeout))
		}
	}
	return errors.Join(errs...)
}

// Close is Sync, and then the files are closed; what is logged later is dropped.
// After an error a goroutine still waits for each file named in it, which does
// not keep the process from exiting.
func (s *Set) Close(timeout time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*sink.Queue
	for _, f := range s.sortedLocked() {
		if q := f.queue.Swap(nil); q != nil {
			q.Close(timeout)
			all = append(all, q)
		}
	}
	var errs []error
	for _, q := range sink.WaitAll(all, timeout) {
		errs = append(errs, fmt.Errorf("close error log %s: not all written after %s", q.Device().Name(), timeout))
	}
	return errors.Join(errs...)
}
