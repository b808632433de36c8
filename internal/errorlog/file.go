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

// GiveTo makes the user uid the owner of the log file; see sink.GiveTo.
func (l *Log) GiveTo(uid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sink.GiveTo(l.target.current.Load().Device(), uid)
}

// TakeCrashes makes the log file, that of the moment and those to come, take
// what the Go runtime writes when the process crashes, beside standard error.
// It is the process's, so only main calls it.
func (l *Log) TakeCrashes() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crashes = true
	takeCrashes(l.target.current.Load().Device())
}

// takeCrashes gives the runtime a descriptor of its own, of a file. Without, a
// crash shows on standard error alone.
func takeCrashes(d sink.Device) {
	if f, ok := d.(*os.File); ok {
		_ = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
}
