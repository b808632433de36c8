package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the kernel may say of a thread that is not what was asked for. That
// Become itself changes every thread is tested with the program, which has no
// cgo: with it, as under the race detector, Go refuses.
//
// Fails if one of the lines is not looked at.
func TestVerifyThread(t *testing.T) {
	t.Parallel()
	id := Identity{UID: 33, GID: 4, Groups: []int{33, 4}}
	const good = "Name:\tx\nUid:\t33\t33\t33\t33\nGid:\t4\t4\t4\t4\nGroups:\t4 33 \n" +
		"CapInh:\t0000000000000000\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000400\n" +
		"CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	const mask = 1 << BindService
	require.NoError(t, id.verifyThread(good, mask))
	require.NoError(t, id.verifyThread(strings.Replace(good, "CapAmb:\t0000000000000000\n", "", 1), mask))
	for old, wrong := range map[string]string{
		"Uid:\t33\t33\t33\t33":     "Uid:\t33\t33\t0\t33",
		"Gid:\t4\t4\t4\t4":         "Gid:\t0\t4\t4\t4",
		"Groups:\t4 33 ":           "Groups:\t0 4 33 ",
		"CapInh:\t00":              "CapInh:\t01",
		"CapPrm:\t0000000000000":   "CapPrm:\t0000000000001",
		"CapEff:\t0000000000000":   "CapEff:\t0000000000001",
		"CapAmb:\t000000000000000": "CapAmb:\t000000000000040",
		"NoNewPrivs:\t1":           "NoNewPrivs:\t0",
		"Groups:":                  "Grups:",
		"NoNewPrivs:":              "NoPrivs:",
	} {
		require.Contains(t, good, old)
		require.Error(t, id.verifyThread(strings.Replace(good, old, wrong, 1), mask), wrong)
	}
}

// Fails if a group of the user's is forgotten, or if a number stands for a user
// that has no name and needs no group.
func TestLookupIdentity(t *testing.T) {
	t.Parallel()
	id, err := LookupIdentity("root", "")
	require.NoError(t, err)
	require.Contains(t, id.Groups, 0)
	id, err = LookupIdentity("root", "daemon")
	require.NoError(t, err)
	require.Zero(t, id.UID)
	require.Equal(t, 1, id.GID)
	require.Subset(t, id.Groups, []int{0, 1})
	id, err = LookupIdentity("64123", "64124")
	require.NoError(t, err)
	require.Equal(t, Identity{64123, 64124, []int{64124}}, id)
	for _, bad := range [][3]string{
		{"no-such-user", "", `getpwnam("no-such-user") failed`},
		{"root", "no-such-group", `getgrnam("no-such-group") failed`},
		{"64123", "", `getpwnam("64123") failed`},
		{"-1", "0", `getpwnam("-1") failed`},
		{"4294967295", "0", `getpwnam("4294967295") failed`},
	} {
		_, err := LookupIdentity(bad[0], bad[1])
		require.ErrorContains(t, err, bad[2])
	}
}

// The kernel is asked in the user's name, on one thread.
//
// Fails if the asking thread keeps root's rights, or if another loses them.
func TestRefused(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can ask for others")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	open, shut := file("open", 0o666), file("shut", 0o600)
	group := file("group", 0o640)
	require.NoError(t, os.Chown(group, 0, 64125))
	id := Identity{UID: 64123, GID: 64124, Groups: []int{64124, 64125}}
	got, err := id.Refused(Files{Read: []string{open, shut, group}, Append: []string{open, shut, dir + "/none"}, Create: []string{open}})
	require.NoError(t, err)
	sentence := func(path, rest string) string { return path + ": permission denied: " + rest }
	const rename = "a log that was renamed is written on unless whoever renames it also makes the new one (logrotate: create)"
	require.Equal(t, []string{
		sentence(shut, "a reload cannot read it"),
		sentence(shut, "the log cannot be opened again (SIGUSR1)"),
		sentence(dir, rename),
	}, got)
	require.Eventually(t, func() bool {
		threads, err := filepath.Glob("/proc/self/task/*/status")
		require.NoError(t, err)
		return !slices.ContainsFunc(threads, func(path string) bool {
			status, _ := os.ReadFile(path) // nothing if the thread has ended
			return strings.Contains(string(status), "\nUid:\t64123")
		})
	}, 10*time.Second, 10*time.Millisecond, "threads that belong to somebody else")
}
