package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"smtplb/internal/sink"
)

const (
	// maxFiles bounds the files a log with variables in its path holds open.
	maxFiles = 64
	// fileValid is how long one stays open: afterwards its path is looked up
	// again, so that a file renamed or deleted is let go even without a signal.
	fileValid = 10 * time.Second
	// maxPath is Linux's PATH_MAX, which counts the NUL.
	maxPath = 4096
)

// files is the device of a path with variables. What it is given are lines
// "path NUL line"; it writes each line to its path's file. A file that takes
// nothing holds up those of this log.
type files struct {
	name string
	lost func(lines uint64, reason error)
	text []byte // the lines for one file, reused

	mu       sync.Mutex // protects below; never held over a system call that may wait
	open     map[string]*file
	deadline time.Time // of all writing, once the log is to end
}

type file struct {
	sink.Device
	writer sink.Writer
	opened time.Time
	used   time.Time
}

func newFiles(name string, lost func(uint64, error)) *files {
	return &files{name: name, lost: lost, open: make(map[string]*file)}
}

func (f *files) Name() string { return f.name }

// Write returns no error: what one file does not take is no reason to lose what
// is for another, so losses are told line by line.
func (f *files) Write(p []byte) (int, error) {
	now := time.Now()
	f.closeIf(func(open *file) bool { return now.Sub(open.opened) >= fileValid })
	for rest := p; len(rest) > 0; {
		var path []byte
		path, rest = f.nextRun(rest)
		if err := f.writeTo(path, now); err != nil {
			f.lost(uint64(bytes.Count(f.text, lineEnd)), err)
		}
	}
	return len(p), nil
}

// nextRun collects the first lines of p that have one path into text.
func (f *files) nextRun(p []byte) (path, rest []byte) {
	f.text = f.text[:0]
	for {
		before, after, _ := bytes.Cut(p, pathEnd)
		if len(p) == 0 || len(f.text) > 0 && !bytes.Equal(before, path) {
			return path, p
		}
		path = before
		end := bytes.IndexByte(after, '\n') + 1
		f.text = append(f.text, after[:end]...)
		p = after[end:]
	}
}

// writeTo writes text. It returns an error if all of it is lost, and tells of
// less itself.
func (f *files) writeTo(path []byte, now time.Time) error {
	file, err := f.file(path, now)
	if err != nil {
		return err
	}
	if failed, err := file.writer.Write(f.text); failed > 0 {
		f.lost(failed, err)
	}
	return nil
}

// file returns the open file of a path.
func (f *files) file(path []byte, now time.Time) (*file, error) {
	open := f.open[string(path)] // only Write, which we are part of, and Close change it
	if open == nil {
		d, err := sink.OpenFile(string(path))
		if err != nil {
			return nil, fmt.Errorf("open access log: %w", err)
		}
		open = &file{Device: d, writer: sink.Writer{To: d}, opened: now}
		f.add(string(path), open)
	}
	open.used = time.Now()
	return open, nil
}

// add makes room by closing the file that was used the longest ago.
func (f *files) add(path string, fresh *file) {
	if len(f.open) >= maxFiles {
		var oldest *file
		for _, open := range f.open {
			if oldest == nil || open.used.Before(oldest.used) {
				oldest = open
			}
		}
		f.closeIf(func(open *file) bool { return open == oldest })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[path] = fresh
	if !f.deadline.IsZero() {
		_ = fresh.SetWriteDeadline(f.deadline)
	}
}

func (f *files) closeIf(match func(*file) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, open := range f.open {
		if match(open) {
			delete(f.open, path)
			_ = open.Close()
		}
	}
}

// SetWriteDeadline bounds all writing from now on, one under way included.
func (f *files) SetWriteDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadline = t
	for _, open := range f.open {
		_ = open.SetWriteDeadline(t)
	}
	return nil
}

// Close closes the files.
func (f *files) Close() error {
	f.closeIf(func(*file) bool { return true })
	return nil
}

// checkPath refuses what variables, which outsiders may have a part in, must
// not make of a path: one that is relative, has an element "..", or bytes that
// no sane file name has. nginx refuses nothing.
func checkPath(path []byte) error {
	reason := ""
	switch {
	case len(path) == 0:
		return errors.New("open access log: the path is empty")
	case path[0] != '/':
		reason = "is not absolute"
	case len(path) >= maxPath:
		return fmt.Errorf("open access log: a path of %d bytes is too long", len(path))
	case path[len(path)-1] == '/':
		reason = "names a directory"
	case bytes.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		reason = "has control characters"
	}
	for rest, more := path, true; more && reason == ""; {
		var element []byte
		if element, rest, more = bytes.Cut(rest, []byte{'/'}); string(element) == ".." {
			reason = `has an element ".."`
		}
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("open access log: the path %q %s", path, reason)
}
