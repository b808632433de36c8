package accesslog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"smtplb/internal/sink"
)

// Set holds the open logs of a process. Its methods may be called by any
// goroutine.
type Set struct {
	losses *losses

	mu     sync.Mutex // protects below; not needed to write, nor held to wait for writing
	logs   map[Target]*Log
	ending map[*sink.Queue]struct{} // released, perhaps still writing
	closed bool
}

// NewSet returns a set without logs. The logger is told of lost lines; it must
// not wait for a log of the set. Close ends the set.
func NewSet(logger *zap.Logger) *Set {
	return &Set{
		losses: newLosses(logger),
		logs:   make(map[Target]*Log),
		ending: make(map[*sink.Queue]struct{}),
	}
}

// Open returns the log of a target, which it opens unless the set has it. Each
// Open needs a Release, after which its caller writes no more.
func (s *Set) Open(t Target) (*Log, error) {
	t = t.withDefaults()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if l := s.logs[t]; l != nil {
		l.uses++
		return l, nil
	}
	if err := t.checkParameters(); err != nil {
		return nil, err
	}
	l := &Log{set: s, target: t, uses: 1}
	q, err := l.open(nil)
	if err != nil {
		return nil, err
	}
	l.current.Store(q)
	s.logs[t] = l
	return l, nil
}

func (s *Set) release(l *Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.uses--; l.uses > 0 || s.closed {
		return
	}
	delete(s.logs, l.target)
	s.endLocked(l.current.Swap(nil))
}

func (s *Set) endLocked(q *sink.Queue) {
	q.Close(sink.Handover)
	for old := range s.ending {
		if old.Wait(0) {
			delete(s.ending, old)
		}
	}
	s.ending[q] = struct{}{}
}

// Reopen opens all files anew, after logrotate has renamed them. When it
// returns, the old ones are complete and closed, except for those that block
// for longer than a second. Where one cannot be opened, the old file stays in
// use, and the error names it.
func (s *Set) Reopen() error {
	old, err := s.reopen()
	sink.WaitAll(old, sink.Handover)
	return err
}

func (s *Set) reopen() (old []*sink.Queue, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	var errs []error
	for _, l := range s.logs {
		before := l.current.Load()
		q, err := l.open(before)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		// The new one first: a line that finds the old one closed looks again.
		l.current.Store(q)
		s.endLocked(before)
		old = append(old, before)
	}
	return old, errors.Join(errs...)
}

// GiveTo makes the user uid the owner of the log files, so that Reopen goes on
// working after the process has become that user; see sink.GiveTo.
func (s *Set) GiveTo(uid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	var errs []error
	for _, l := range s.logs {
		d := l.current.Load().Device()
		if c, ok := d.(*compressor); ok {
			d = c.Device
		}
		errs = append(errs, sink.GiveTo(d, uid))
	}
	return errors.Join(errs...)
}

// Close writes what waits, for at most timeout, closes all logs, and tells of
// the last lost lines. What is written later is lost. After an error a
// goroutine still waits for each file named in it, which does not keep the
// process from exiting.
func (s *Set) Close(timeout time.Duration) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := slices.Collect(maps.Keys(s.ending))
	for _, l := range s.logs {
		q := l.current.Swap(nil)
		q.Close(timeout)
		all = append(all, q)
	}
	s.mu.Unlock()

	var errs []error
	for _, q := range sink.WaitAll(all, timeout) {
		errs = append(errs, fmt.Errorf("close access log %s: not all written after %s", q.Device().Name(), timeout))
	}
	s.losses.stop()
	return errors.Join(errs...)
}
