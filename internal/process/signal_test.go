package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Fails if a sign, a blank or 0 is taken for a process: kill would signal a
// whole group.
func TestReadPidFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	_, err := ReadPidFile(path)
	require.EqualError(t, err, fmt.Sprintf("open() %q failed (2: No such file or directory)", path))
	for text, want := range map[string]string{
		"": "", "\n": "", "0\n": "0", "-1\n": "-1", "+5": "+5", " 5": " 5", "5 \n": "5 ", "5\n6": "5\n6", "12x": "12x",
		"1234567890123456789012345\n": "1234567890123456789012", "4294967297\n": "4294967297",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := ReadPidFile(path)
		require.EqualError(t, err, fmt.Sprintf(`invalid PID number "%s" in %q`, want, path))
	}
	require.NoError(t, os.WriteFile(path, []byte("4711\r\n\n"), 0o600))
	pid, err := ReadPidFile(path)
	require.NoError(t, err)
	require.Equal(t, 4711, pid)
}

func TestSignal(t *testing.T) {
	t.Parallel()
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	require.NoError(t, Signal(child.Process.Pid, syscall.SIGTERM))
	require.EqualError(t, child.Wait(), "signal: terminated")
	require.EqualError(t, Signal(1<<30, syscall.SIGHUP), "kill(1073741824, 1) failed (3: No such process)")
}

// Fails if a variable is kept that nobody named, or one that the runtime or the
// service manager needs is not.
func TestSetEnviron(t *testing.T) {
	for _, entry := range os.Environ() { // restored at the end
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	for _, name := range []string{"TZ", "GOMAXPROCS", "NOTIFY_SOCKET", "LISTEN_FDS", "KEPT", "LOST", "CHANGED"} {
		t.Setenv(name, "1")
	}
	before := os.Environ()
	require.NoError(t, SetEnviron(nil))
	require.Equal(t, before, os.Environ())
	require.NoError(t, SetEnviron([]string{"KEPT", "CHANGED=a=b", "NEW=", "ABSENT"}))
	for name, want := range map[string]string{"TZ": "1", "GOMAXPROCS": "1", "NOTIFY_SOCKET": "1", "LISTEN_FDS": "1", "KEPT": "1", "CHANGED": "a=b", "NEW": ""} {
		got, ok := os.LookupEnv(name)
		require.True(t, ok, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{"LOST", "ABSENT", "PATH", "HOME"} {
		_, ok := os.LookupEnv(name)
		require.False(t, ok, name)
	}
}
