package errorlog

import (
	"fmt"
	"os"
	"runtime/debug"

	"smtplb/internal/sink"
)

// Stderr is the path that stands for the process's standard error.
const Stderr = sink.Stderr

// Check tells whether Open would do, without making a file.
func Check(path string) error {
	err := sink.Check(path)
	if err != nil && IsFile(path) {
		return fmt.Errorf("open error log: %w", err)
	}
	return err
}

// IsFile tells whether path stands for a file.
func IsFile(path string) bool { return sink.IsFile(path) }

// IsStderr tells whether path stands for standard error, or leads to what it is.
func IsStderr(path string) bool { return sink.IsStderr(path) }

// TakeCrashes makes the first file of the process's log, that of the moment and
// those to come, take what the Go runtime writes when the process crashes, beside
// standard error. It is the process's, so only main calls it.
func (s *Set) TakeCrashes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashes = true
	s.takeCrashesLocked()
}

// takeCrashesLocked gives the runtime a descriptor of its own, of a file. Without
// one, a crash shows on standard error alone.
func (s *Set) takeCrashesLocked() {
	if !s.crashes {
		return
	}
	for _, to := range s.own.outlets.Load().all {
		q := to.queue.Load()
		if q == nil {
			continue
		}
		if f, ok := q.Device().(*os.File); ok {
			_ = debug.SetCrashOutput(f, debug.CrashOptions{})
			return
		}
	}
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{})
}
