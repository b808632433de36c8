package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PidFile is a file that holds this process's pid and a newline. It stays open:
// the process may have lost the right to open it by the time it ends.
type PidFile struct {
	path string
	pid  int
	file *os.File
}

// WritePidFile makes path a file with our pid. It replaces what is there in
// one step, so that a reader finds an old pid or the new one, never half of
// one, and a symbolic link is replaced, never followed. Call it once the
// listeners are open: a second instance then fails on its ports, before it
// could take over the first one's pid file.
//
// A directory in which everybody may replace files is refused, since scripts
// send signals to the pid that they read. One with the sticky bit, as /tmp,
// is taken.
func WritePidFile(path string) (*PidFile, error) {
	p := &PidFile{path: path, pid: os.Getpid()}
	if err := p.write(); err != nil {
		return nil, fmt.Errorf("write pid file %s: %w", path, err)
	}
	return p, nil
}

func (p *PidFile) write() error {
	dir, name := filepath.Split(p.path)
	if dir == "" {
		dir = "."
	}
	if err := checkDir(dir); err != nil {
		return err
	}
	// CreateTemp opens with O_EXCL, which follows no link either.
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return hint(err)
	}
	if err := p.fill(f); err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return hint(err)
	}
	p.file = f
	return nil
}

// fill writes and renames f. On an error f may still be there under its
// temporary name.
func (p *PidFile) fill(f *os.File) error {
	if _, err := fmt.Fprintln(f, p.pid); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), p.path)
}

// CheckPidFile tells whether WritePidFile would do, as far as its directory goes.
func CheckPidFile(path string) error {
	dir := filepath.Dir(path)
	err := checkDir(dir)
	if err == nil {
		if errno := unix.Access(dir, unix.W_OK|unix.X_OK); errno != nil {
			err = hint(&fs.PathError{Op: "open", Path: path, Err: errno})
		}
	}
	if err != nil {
		return fmt.Errorf("write pid file %s: %w", path, err)
	}
	return nil
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return hint(err)
	}
	if mode := info.Mode(); mode&0o002 != 0 && mode&os.ModeSticky == 0 {
		return fmt.Errorf("everybody may replace files in %s: take its write permission from others (chmod o-w), or choose another directory", dir)
	}
	return nil
}

// hint adds what the operator can do to a file error.
func hint(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: create the directory first (in a systemd unit: RuntimeDirectory=)", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: give the user of this process write permission in the directory, or choose another", err)
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: the path is a directory; choose another", err)
	}
	return err
}

// Remove deletes the file if it still holds our pid, or empties it where the
// directory permits no more. Whatever else somebody has put there since
// (another pid, a symbolic link: ELOOP) stays, which is no error. A nil PidFile
// has nothing to remove.
func (p *PidFile) Remove() error {
	if p == nil {
		return nil
	}
	defer p.file.Close()
	pid, err := readPid(p.path)
	if err == nil && pid == p.pid {
		err = os.Remove(p.path)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			err = p.file.Truncate(0)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("remove pid file %s: %w", p.path, err)
	}
	return nil
}

// readPid is 0 where the file holds no number. O_NONBLOCK, in case somebody
// put a FIFO there.
func readPid(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, nil
	}
	return pid, nil
}
