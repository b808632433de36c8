package accesslog

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// descriptors is how many descriptors of the process lead to path.
func descriptors(t *testing.T, path string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	n := 0
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, path) {
			n++
		}
	}
	return n
}

// One target is one log with one file, through any reload, until its last user
// has gone.
//
// Fails if Open ignores what the set has, if a part of the target is not of the
// key, if Release closes too early, or never.
func TestUses(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	path := filepath.Join(t.TempDir(), "log")
	first := mustOpen(t, s, Target{Path: path})
	require.Same(t, first, mustOpen(t, s, Target{Path: path}))
	require.Equal(t, 1, descriptors(t, path))
	for _, other := range []Target{{Path: path, Buffer: 1}, {Path: path, Buffer: 1, Flush: 1}, {Path: path, Gzip: 1}} {
		l := mustOpen(t, s, other)
		require.NotSame(t, first, l)
		l.Release()
	}
	require.Same(t, mustOpen(t, s, Target{Path: path, Gzip: 1}), mustOpen(t, s, Target{Path: path, Gzip: 1, Buffer: 64 << 10}))

	second := mustOpen(t, s, Target{Path: path + "2"})
	second.Write([]byte("one"))
	second.Release()
	require.Eventually(t, func() bool { return descriptors(t, path+"2") == 0 }, patience, time.Millisecond)
	require.Equal(t, "one\n", content(t, path+"2"))

	first.Release()
	first.Write([]byte("two"))
	require.True(t, first.current.Load().Sync(patience))
	require.Equal(t, "two\n", content(t, path))
	first.Release()
	require.NoError(t, s.Close(patience))
	require.Zero(t, descriptors(t, path))
}

// What is released just before the exit is still written.
//
// Fails if Close forgets the logs that were released.
func TestReleaseThenClose(t *testing.T) {
	t.Parallel()
	for range 10 {
		s, _ := newSet(t)
		path := filepath.Join(t.TempDir(), "log")
		l := mustOpen(t, s, Target{Path: path, Gzip: 9})
		for range 1000 {
			l.Write([]byte(strings.Repeat("x", 100)))
		}
		l.Release()
		require.NoError(t, s.Close(patience))
		require.Zero(t, descriptors(t, path))
		require.Len(t, unzip(t, path), 101_000)
	}
}

// TestReopen is logrotate's rename and SIGUSR1 while sessions write: every line
// is in one file, once, and the files in their order have them in theirs.
//
// Fails if Reopen keeps the file, or does not complete the old one.
func TestReopen(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 5_000
	for _, buffer := range []int{0, 1 << 10} {
		s, _ := newSet(t)
		path := filepath.Join(t.TempDir(), "log")
		l := mustOpen(t, s, Target{Path: path, Buffer: buffer})
		var text strings.Builder
		rotations := 0
		writeAll(l, writers, each, func() {
			rotated := path + "." + strconv.Itoa(rotations)
			require.NoError(t, os.Rename(path, rotated))
			require.NoError(t, s.Reopen())
			text.WriteString(content(t, rotated))
			require.Zero(t, descriptors(t, rotated))
			rotations++
		})
		require.NoError(t, s.Close(patience))
		text.WriteString(content(t, path))
		require.Zero(t, l.Dropped())
		requireAll(t, text.String(), writers, each)
		require.Equal(t, 10, rotations)
	}
}

// A signal without a rotation changes nothing, not even the order.
//
// Fails if the new queue does not wait for the old.
func TestReopenSameFile(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 20_000
	s, _ := newSet(t)
	path := filepath.Join(t.TempDir(), "log")
	l := mustOpen(t, s, Target{Path: path})
	writeAll(l, writers, each, func() { require.NoError(t, s.Reopen()) })
	require.NoError(t, s.Close(patience))
	requireAll(t, content(t, path), writers, each)
}

// Where the new file cannot be opened the old one stays, and others change.
//
// Fails if the old file is closed first, or the first error ends Reopen.
func TestReopenFails(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/a", 0o700))
	kept := mustOpen(t, s, Target{Path: dir + "/a/log"})
	for i := range 8 {
		mustOpen(t, s, Target{Path: dir + "/log", Buffer: i + 1})
	}
	changed := mustOpen(t, s, Target{Path: dir + "/log"})
	require.NoError(t, os.Rename(dir+"/a", dir+"/b"))
	require.NoError(t, os.Rename(dir+"/log", dir+"/log.1"))
	require.EqualError(t, s.Reopen(), "open access log: open "+dir+"/a/log: no such file or directory: create the directory first")
	kept.Write([]byte("kept"))
	changed.Write([]byte("changed"))
	require.Zero(t, descriptors(t, dir+"/log.1"))
	require.NoError(t, s.Close(patience))
	require.Equal(t, "kept\n", content(t, dir+"/b/log"))
	require.Equal(t, "changed\n", content(t, dir+"/log"))
}

// A log that blocks delays a signal for all others by no more than a second.
//
// Fails, with 10 FIFOs, if Reopen waits for one after the other.
func TestReopenBlocked(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	for range 10 {
		path, _ := fifo(t)
		l := mustOpen(t, s, Target{Path: path})
		for range 200 {
			l.Write(make([]byte, 1000))
		}
	}
	start := time.Now()
	require.NoError(t, s.Reopen())
	require.Less(t, time.Since(start), 8*time.Second)
}

// Fails if Check makes a file, or Open takes what it refuses.
func TestCheck(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	dir := t.TempDir()
	for want, target := range map[string]Target{
		"access log without a path":                                   {},
		"invalid buffer size -1":                                      {Path: "/x", Buffer: -1},
		"invalid buffer size 67108865: at most 67108864":              {Path: "/x", Buffer: MaxBuffer + 1},
		"invalid flush time -1ns":                                     {Path: "/x", Buffer: 1, Flush: -1},
		"invalid compression level 10":                                {Path: "/x", Gzip: 10},
		"invalid compression level -1":                                {Path: "/x", Gzip: -1},
		"logs to syslog cannot be buffered":                           {Path: "syslog:server=h", Buffer: 1},
		"no syslog server specified":                                  {Path: "syslog:tag=a"},
		"buffered logs cannot have variables in name":                 {Path: "/x$a", Variable: true, Gzip: 1},
		`no buffer is defined for access_log "/x"`:                    {Path: "/x", Flush: 1},
		"open access log: open " + dir + ": is a directory":           {Path: dir},
		"open access log: open " + dir + "/no/x: no such file or dir": {Path: dir + "/no/x"},
	} {
		require.ErrorContains(t, target.Check(), want)
		_, err := s.Open(target)
		require.ErrorContains(t, err, want)
	}
	for _, target := range []Target{{Path: dir + "/x", Gzip: 1, Flush: 1}, {Path: dir + "/$a", Variable: true}, {Path: "stderr"}} {
		require.NoError(t, target.Check())
	}
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, all)
}
