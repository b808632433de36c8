package process

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

var ourPid = strconv.Itoa(os.Getpid()) + "\n"

// TestPidFile fails without the Chmod (a temporary file has 0600) and if the
// temporary file stays behind.
func TestPidFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := dir + "/smtplb.pid"
	mustWrite(t, path, "99999999\nof an earlier run\n")

	p, err := WritePidFile(path)
	require.NoError(t, err)
	require.Equal(t, ourPid, mustRead(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "temporary files stay")

	require.NoError(t, p.Remove())
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, p.Remove(), "somebody else removed it")
}

// TestPidFileReplacesLink fails if the file is opened and truncated in place:
// the link's target would be overwritten.
func TestPidFileReplacesLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustWrite(t, dir+"/precious", "precious")
	path := dir + "/pid"
	require.NoError(t, os.Symlink("precious", path))

	p, err := WritePidFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", mustRead(t, dir+"/precious"))
	require.Equal(t, ourPid, mustRead(t, path))
	require.NoError(t, p.Remove())
}

// TestPidFileIsReplacedWhole holds the old file open as a reader would. Fails
// if the old file is written to instead of replaced.
func TestPidFileIsReplacedWhole(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/pid"
	mustWrite(t, path, "1\n")
	reader, err := os.Open(path)
	require.NoError(t, err)
	defer reader.Close()

	_, err = WritePidFile(path)
	require.NoError(t, err)
	buf := make([]byte, 16)
	n, err := reader.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "1\n", string(buf[:n]))
}

// TestPidFileRemoveForeign fails if Remove unlinks by name alone.
func TestPidFileRemoveForeign(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(t *testing.T, path string){
		"another pid": func(t *testing.T, path string) { mustWrite(t, path, "1\n") },
		"no pid":      func(t *testing.T, path string) { mustWrite(t, path, "starting\n") },
		"link to our pid": func(t *testing.T, path string) {
			mustWrite(t, path+".target", ourPid)
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(path+".target", path))
		},
		"FIFO": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, unix.Mkfifo(path, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/pid"
			p, err := WritePidFile(path)
			require.NoError(t, err)
			replace(t, path)
			require.NoError(t, p.Remove())
			_, err = os.Lstat(path)
			require.NoError(t, err)
		})
	}
}

func TestNoPidFile(t *testing.T) {
	t.Parallel()
	var none *PidFile
	require.NoError(t, none.Remove())
}

func TestPidFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := dir + "/open"
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))

	for want, path := range map[string]string{
		"no such file or directory: create the directory first": dir + "/no/pid",
		"the path is a directory; choose another":               open,
		"everybody may replace files in " + open + "/: take its write permission from others (chmod o-w), or choose another directory": open + "/pid",
	} {
		p, err := WritePidFile(path)
		require.Nil(t, p)
		require.ErrorContains(t, err, "write pid file "+path+": ")
		require.ErrorContains(t, err, want)
	}
	left, err := filepath.Glob(dir + "/.*.*")
	require.NoError(t, err)
	require.Empty(t, left, "temporary files stay")

	require.NoError(t, os.Chmod(open, 0o777|os.ModeSticky))
	p, err := WritePidFile(open + "/pid")
	require.NoError(t, err, "a sticky directory, as /tmp")
	require.NoError(t, p.Remove())

	require.ErrorContains(t, hint(unix.EACCES), "permission denied: give the user of this process write permission")
}
