package errorlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
)

// Check tells whether Open would do, without making a file: a new one is only
// looked for room in its directory.
func Check(path string) error {
	if parameters, ok := syslogParameters(path); ok {
		_, err := parseSyslog(parameters)
		return err
	}
	if IsStderr(path) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, syscall.ENOENT) {
		dir := filepath.Dir(path)
		const writeAndSearch = 2 | 1 // W_OK|X_OK of access(2)
		if errno := syscall.Access(dir, writeAndSearch); errno != nil {
			err = &os.PathError{Op: "open", Path: path, Err: errno}
		} else {
			return nil
		}
	}
	return fmt.Errorf("open error log: %w", hint(err))
}

// IsFile tells whether path stands for a file.
func IsFile(path string) bool {
	_, ok := syslogParameters(path)
	return !ok && path != Stderr
}

// IsStderr tells whether path stands for standard error, or leads to the pipe,
// the socket or the terminal that it is: containers have a link to /dev/stderr
// for a log. To open that anew takes rights that the process may have given up,
// and a socket cannot be opened at all.
func IsStderr(path string) bool {
	if path == Stderr {
		return true
	}
	named, err := os.Stat(path)
	if err != nil || named.Mode().IsRegular() {
		return false
	}
	stderr, err := os.Stderr.Stat()
	return err == nil && os.SameFile(named, stderr)
}

// GiveTo makes the user uid the owner of the log file, so that Reopen goes on
// working after the process has become that user. Only where nobody but root
// can change the directory: elsewhere the name might lead to any file, which
// would be given away. It needs root.
func (l *Log) GiveTo(uid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.target.current.Load()
	f, ok := s.file.(*os.File)
	if !ok || l.path == Stderr {
		return nil
	}
	named, err := os.Lstat(l.path)
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	dir, err := os.Stat(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	owner := func(i os.FileInfo) int { return int(i.Sys().(*syscall.Stat_t).Uid) }
	if !opened.Mode().IsRegular() || !os.SameFile(named, opened) || owner(opened) == uid ||
		owner(dir) != 0 || dir.Mode().Perm()&0o022 != 0 {
		return nil
	}
	return f.Chown(uid, -1)
}

// TakeCrashes makes the log file, that of the moment and those to come, take
// what the Go runtime writes when the process crashes, beside standard error.
// It is the process's, so only main calls it.
func (l *Log) TakeCrashes() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crashes = true
	if f, ok := l.target.current.Load().file.(*os.File); ok && f != os.Stderr {
		takeCrashes(f)
	}
}

// takeCrashes gives the runtime a descriptor of its own. Without, a crash shows
// on standard error alone.
func takeCrashes(f *os.File) { _ = debug.SetCrashOutput(f, debug.CrashOptions{}) }
