package listener

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPathMode fails without the chmod: bind makes the file with 0777 less
// the umask.
func TestPathMode(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, path(t.TempDir()+"/s"))
	info, err := os.Lstat(s.Addr().Path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o666, info.Mode())
}

// abandon makes a socket file without a listener, as a killed process leaves.
func abandon(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	require.NoError(t, unix.Close(fd))
}

// TestStalePath fails if a bind over an existing file is not tried again.
func TestStalePath(t *testing.T) {
	t.Parallel()
	stale := t.TempDir() + "/s"
	abandon(t, stale)
	s := mustOpen(t, path(stale))
	dial(t, s)
	accept(t, s)
}

// TestLivePath fails if removeStale takes any failed connect for a stale file:
// the live socket's queue is full, so that connect gives EAGAIN. (That one
// with room in its queue is left alone is in TestOpenErrors.)
func TestLivePath(t *testing.T) {
	t.Parallel()
	o := path(t.TempDir() + "/s")
	o.Backlog = 1
	s := mustOpen(t, o)
	fillUnix(t, s)

	_, err := Open(o)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.Len(t, acceptAll(t, s), 2)
	dial(t, s)
}

// TestStaleLinkStays: a symbolic link is not a socket, wherever it leads.
// Fails if the path's kind is asked by stat instead of lstat.
func TestStaleLinkStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	abandon(t, dir+"/target")
	require.NoError(t, os.Symlink(dir+"/target", dir+"/link"))

	_, err := Open(path(dir + "/link"))
	require.ErrorIs(t, err, errNotSocket)
	_, err = os.Lstat(dir + "/link")
	require.NoError(t, err)
}

// TestCloseRemovesPath fails if Close leaves the file.
func TestCloseRemovesPath(t *testing.T) {
	t.Parallel()
	s, err := Open(path(t.TempDir() + "/s"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = os.Lstat(s.Addr().Path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestCloseKeepsForeignPath fails if Close unlinks by name alone.
func TestCloseKeepsForeignPath(t *testing.T) {
	t.Parallel()
	s, err := Open(path(t.TempDir() + "/s"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(s.Addr().Path))
	other := mustOpen(t, path(s.Addr().Path))

	require.NoError(t, s.Close())
	dial(t, other)
	accept(t, other)
}

func TestCloseAfterPathIsGone(t *testing.T) {
	t.Parallel()
	s, err := Open(path(t.TempDir() + "/s"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(s.Addr().Path))
	require.NoError(t, s.Close())
}
