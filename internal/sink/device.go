package sink

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Stderr is the path that stands for the process's standard error.
const Stderr = "stderr"

// fileMode is for a file that does not exist yet: a log names who sends mail to
// whom. One that exists keeps its mode and owner, as logrotate made it.
const fileMode = 0o640

// Device is what takes lines: an *os.File, a standard stream, or a connection
// to syslog. Write may be given many whole lines at once; Name is for errors.
type Device interface {
	io.WriteCloser
	// SetWriteDeadline bounds a write under way, too, and may be called by
	// another goroutine than Write. Files have no deadlines.
	SetWriteDeadline(time.Time) error
	Name() string
}

// standard is a standard stream. It belongs to the process: it stays open for
// those who come after, another log or the Go runtime's last words.
type standard struct{ *os.File }

func (standard) Close() error                     { return nil }
func (standard) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// Open opens a path: standard error for "stderr", a connection to a log server
// for "syslog:server=…", otherwise a file, which is created if there is none,
// appended to if there is, and followed to where a symbolic link leads.
func Open(path string, format Format) (Device, error) {
	if parameters, ok := syslogParameters(path); ok {
		return openSyslog(parameters, format)
	}
	if IsStderr(path) {
		return standard{os.Stderr}, nil
	}
	if isStream(path, os.Stdout) {
		return standard{os.Stdout}, nil
	}
	return OpenFile(path)
}

// OpenFile is Open where the path is a file's whatever it looks like.
func OpenFile(path string) (Device, error) {
	// O_NONBLOCK is for a FIFO: without it open would wait for a reader. On a
	// file it means nothing.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, hint(err)
	}
	return f, nil
}

// Check tells whether Open would do, without making a file: a new one is only
// looked for room in its directory.
func Check(path string) error {
	if parameters, ok := syslogParameters(path); ok {
		_, err := openSyslog(parameters, Format{}) // which opens nothing yet
		return err
	}
	if IsStderr(path) || isStream(path, os.Stdout) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, syscall.ENOENT) {
		dir := filepath.Dir(path)
		const writeAndSearch = 2 | 1 // W_OK|X_OK of access(2)
		errno := syscall.Access(dir, writeAndSearch)
		if errno == nil {
			return nil
		}
		err = &os.PathError{Op: "open", Path: path, Err: errno}
	}
	return hint(err)
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
	return path == Stderr || isStream(path, os.Stderr)
}

func isStream(path string, stream *os.File) bool {
	named, err := os.Stat(path)
	if err != nil || named.Mode().IsRegular() {
		return false
	}
	opened, err := stream.Stat()
	return err == nil && os.SameFile(named, opened)
}

// GiveTo makes the user uid the owner of a log file, so that to open it anew
// goes on working after the process has become that user. Only where nobody but
// root can change the directory: elsewhere the name might lead to any file,
// which would be given away. It needs root. Other devices stay as they are.
func GiveTo(d Device, uid int) error {
	f, ok := d.(*os.File)
	if !ok {
		return nil
	}
	named, err := os.Lstat(f.Name())
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	dir, err := os.Stat(filepath.Dir(f.Name()))
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
