package errorlog

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Check makes no file, and says what Open would.
//
// Fails if it creates the log, as Open does.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	require.NoError(t, Check(path))
	require.NoFileExists(t, path)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, Check(path))
	require.NoError(t, Check(Stderr))
	for _, bad := range []string{dir, filepath.Join(dir, "none", "log")} {
		_, err := Open(Target{bad, Info})
		require.Error(t, err)
		require.EqualError(t, Check(bad), err.Error())
	}
}

// The log file gets another owner only where its name cannot have been made to
// lead elsewhere.
//
// Fails if a file in a directory that others may write to changes hands, or one
// behind a symbolic link.
func TestGiveTo(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 65534
	owner := func(path string) int {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return int(info.Sys().(*syscall.Stat_t).Uid)
	}
	for _, test := range []struct {
		name string
		dir  os.FileMode
		link bool
		want int
	}{
		{"root's directory", 0o755, false, somebody},
		{"everybody's directory", 0o777, false, 0},
		{"the group's directory", 0o775, false, 0},
		{"/tmp", 0o777 | os.ModeSticky, false, 0},
		{"link", 0o755, true, 0},
	} {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, test.dir))
		path := filepath.Join(dir, "log")
		if test.link {
			require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path))
		}
		log := mustOpen(t, path, Info)
		require.NoError(t, log.GiveTo(somebody))
		require.Equal(t, test.want, owner(path), test.name)
	}
	require.NoError(t, mustOpen(t, Stderr, Info).GiveTo(somebody))
}
