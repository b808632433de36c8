package listener

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pathMode lets every local user connect, as nginx's chmod in
// ngx_open_listening_sockets does. Who may reach the socket is decided by the
// permissions of its directory.
const pathMode = 0o666

// fileID names a file for as long as something keeps its inode alive.
type fileID struct{ dev, ino uint64 }

func lstat(path string) (id fileID, isSocket bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, false, os.NewSyscallError("lstat", err)
	}
	return fileID{st.Dev, st.Ino}, st.Mode&unix.S_IFMT == unix.S_IFSOCK, nil
}

var (
	errNotSocket = errors.New("the file there is not a socket and is left alone: remove it, or choose another path")
	errLive      = errors.New("another process (or another address of this configuration) listens there")
)

// bindPath binds the socket to its path, over the file that a process which
// is gone may have left there, and remembers the file it made.
func (s *Socket) bindPath(sa unix.Sockaddr) error {
	err := unix.Bind(s.fd, sa)
	if err == unix.EADDRINUSE {
		if err := removeStale(s.addr.Path, sa); err != nil {
			return err
		}
		err = unix.Bind(s.fd, sa)
	}
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	if s.file, _, err = lstat(s.addr.Path); err != nil {
		return err
	}
	return os.NewSyscallError("chmod", unix.Chmod(s.addr.Path, pathMode))
}

// removeStale removes a socket file that nobody listens on. It asks by
// connecting, of which a live owner sees a connection that ends at once. Two
// processes that start on one stale path in the same instant may still remove
// each other's; the kernel has no call that would prevent it.
func removeStale(path string, sa unix.Sockaddr) error {
	_, isSocket, err := lstat(path)
	if err != nil {
		return err
	}
	if !isSocket {
		return fmt.Errorf("%w: %w", unix.EADDRINUSE, errNotSocket)
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(probe)
	// ECONNREFUSED alone proves that nobody is there: EAGAIN is a full accept
	// queue, EPROTOTYPE a live socket of another type, EACCES says nothing.
	if err := unix.Connect(probe, sa); err != unix.ECONNREFUSED {
		return fmt.Errorf("%w: %w", unix.EADDRINUSE, errLive)
	}
	return os.NewSyscallError("unlink", unix.Unlink(path))
}

// removePath unlinks the path if it still is the file that bindPath made: an
// operator, or a process started since, may have put another one there.
func (s *Socket) removePath() error {
	if s.file == (fileID{}) {
		return nil
	}
	id, _, err := lstat(s.addr.Path)
	if err == nil && id == s.file {
		err = os.NewSyscallError("unlink", unix.Unlink(s.addr.Path))
	}
	s.file = fileID{}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
