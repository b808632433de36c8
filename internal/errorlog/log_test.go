package errorlog

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/sink"
)

const patience = 10 * time.Second

func mustOpen(t *testing.T, path string, level zapcore.Level) *Set {
	t.Helper()
	log, err := Open(Target{path, level})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close(patience)) })
	return log
}

// queueOf is where the lines of a process's log wait whose one target is open.
func queueOf(s *Set) *sink.Queue { return s.own.outlets.Load().all[0].queue.Load() }

// lines are the messages of a file, without time and level.
func lines(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	var messages []string
	for line := range strings.Lines(string(content)) {
		require.Regexp(t, recordPattern, line)
		messages = append(messages, recordPattern.FindStringSubmatch(line)[1])
	}
	return messages
}

var recordPattern = regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[[a-z]+\] (.*)\n$`)

// TestLevels fails if a level of ours ends the program, as zap's own above
// Error do, or if the threshold is not nginx's.
func TestLevels(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/log"
	log := mustOpen(t, path, Debug)
	all := []string{"debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"}
	var want []string
	for i, threshold := range all {
		level, err := ParseLevel(threshold)
		require.NoError(t, err)
		require.NoError(t, log.Reconfigure(Target{path, level}))
		for _, name := range all {
			level, err := ParseLevel(name)
			require.NoError(t, err)
			log.Logger().Log(level, name)
		}
		want = append(want, all[i:]...)
	}
	require.NoError(t, log.Sync(patience))
	require.Equal(t, want, lines(t, path))
}

func TestMethodsAndTheirLevels(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/log"
	log := mustOpen(t, path, Debug)
	logger := log.Logger()
	logger.Log(Debug, "one")
	logger.Debug("two")
	logger.Info("three")
	logger.Warn("four")
	logger.Error("five")
	require.NoError(t, log.Sync(patience))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for i, want := range []string{"[debug] one", "[info] two", "[notice] three", "[warn] four", "[error] five"} {
		require.True(t, strings.HasSuffix(strings.Split(string(content), "\n")[i], want), "%s in %s", want, content)
	}
}

// TestNoStack: by itself zap would take a stack for each record above Error.
// Fails without AddStacktrace.
func TestNoStack(t *testing.T) {
	t.Parallel()
	log := mustOpen(t, t.TempDir()+"/log", Notice)
	entry := log.Logger().Check(Emerg, "")
	require.NotNil(t, entry)
	require.Empty(t, entry.Stack)
}

// TestOpenAppends also holds the mode of a new file, and that an existing one
// keeps its own. Fails with O_TRUNC or another mode.
func TestOpenAppends(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/log"
	log := mustOpen(t, path, Notice)
	log.Logger().Info("one")
	require.NoError(t, log.Close(patience))
	info, err := os.Stat(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path+".like", os.O_CREATE|os.O_WRONLY, 0o640)
	require.NoError(t, err)
	like, err := f.Stat()
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, like.Mode(), info.Mode())

	require.NoError(t, os.Chmod(path, 0o604))
	log = mustOpen(t, path, Notice)
	log.Logger().Info("two")
	require.NoError(t, log.Close(patience))
	require.Equal(t, []string{"one", "two"}, lines(t, path))
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o604), info.Mode())
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(dir+"/fifo", 0o600))
	for path, want := range map[string]string{
		dir + "/no/log": "no such file or directory: create the directory first",
		dir:             "is a directory: name a file in it",
		dir + "/fifo":   "no such device or address: a FIFO without a reader",
	} {
		log, err := Open(Target{path, Notice})
		require.Nil(t, log)
		require.ErrorContains(t, err, "open error log: open "+path+": "+want)
	}
}

// TestReopen is logrotate's rename and SIGUSR1, with lines logged by others
// all the time: each is in one file, once. Fails if Reopen keeps the file (no
// new one is made) or does not wait for the old one, and, with -race, if the
// queue and the batch being written share memory.
func TestReopen(t *testing.T) {
	t.Parallel()
	const (
		writers   = 4
		each      = 500
		rotations = 20
	)
	dir := t.TempDir()
	log := mustOpen(t, dir+"/log", Notice)

	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				log.Logger().Info(fmt.Sprint(w, "/", i))
			}
		})
	}
	for r := range rotations {
		require.NoError(t, os.Rename(dir+"/log", dir+"/log."+strconv.Itoa(r)))
		old := queueOf(log)
		require.NoError(t, log.Reopen())
		require.True(t, old.Wait(0), "the old file is not complete")
		log.Logger().Info(fmt.Sprint("rotation ", r))
		require.NoError(t, log.Sync(patience))
		require.Contains(t, lines(t, dir+"/log"), fmt.Sprint("rotation ", r))
	}
	all.Wait()
	require.NoError(t, log.Close(patience))
	require.Zero(t, log.Dropped())

	want := writers*each + rotations
	seen := make(map[string]int)
	files, err := filepath.Glob(dir + "/log*")
	require.NoError(t, err)
	for _, file := range files {
		for _, message := range lines(t, file) {
			seen[message]++
			require.Equal(t, 1, seen[message], message)
		}
	}
	require.Len(t, seen, want)
}

// TestReopenFails fails if the old file is closed before the new one is open.
func TestReopenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/a", 0o700))
	log := mustOpen(t, dir+"/a/log", Notice)
	require.NoError(t, os.Rename(dir+"/a", dir+"/b"))

	require.ErrorContains(t, log.Reopen(), "open error log: open "+dir+"/a/log: no such file or directory: ")
	log.Logger().Info("kept")
	require.NoError(t, log.Sync(patience))
	require.Equal(t, []string{"kept"}, lines(t, dir+"/b/log"))
}

// TestReconfigure fails if a refused change changes the level or the path that
// Reopen opens, or an accepted one does not.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := mustOpen(t, dir+"/a", Notice)

	require.Error(t, log.Reconfigure(Target{dir + "/no/b", Debug}))
	log.Logger().Debug("hidden")
	require.NoError(t, log.Reopen())
	log.Logger().Info("in a")

	require.NoError(t, log.Reconfigure(Target{dir + "/b", Info}))
	log.Logger().Debug("in b")
	require.NoError(t, log.Reopen())
	log.Logger().Debug("in b too")

	require.NoError(t, log.Close(patience))
	require.Equal(t, []string{"in a"}, lines(t, dir+"/a"))
	require.Equal(t, []string{"in b", "in b too"}, lines(t, dir+"/b"))
}

// TestReopenDuringReconfigure is a SIGUSR1 during a reload. Fails, with -race,
// without the mutex.
func TestReopenDuringReconfigure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := mustOpen(t, dir+"/a", Notice)
	var both sync.WaitGroup
	both.Go(func() {
		for range 20 {
			_ = log.Reopen()
		}
	})
	both.Go(func() {
		for i := range 20 {
			_ = log.Reconfigure(Target{dir + "/" + strconv.Itoa(i), Notice})
		}
	})
	both.Wait()
	log.Logger().Info("last")
	require.NoError(t, log.Sync(patience))
	require.Equal(t, []string{"last"}, lines(t, dir+"/19"))
}

// TestClose fails if Close leaves lines unwritten, and if a logger that
// outlives the log hangs or is not counted.
func TestClose(t *testing.T) {
	t.Parallel()
	const many = 1000
	path := t.TempDir() + "/log"
	log, err := Open(Target{path, Notice})
	require.NoError(t, err)
	for range many {
		log.Logger().Info("line")
	}
	require.NoError(t, log.Close(patience))
	require.Len(t, lines(t, path), many)

	log.Logger().Info("too late")
	require.Equal(t, uint64(1), log.Dropped())
	require.NoError(t, log.Sync(patience))
	require.NoError(t, log.Close(patience))
}

// It fails if the name stands in front of the level, or is a field.
func TestNameProcess(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/log"
	log := mustOpen(t, path, Info)
	log.Logger().Info("before")
	log.NameProcess()
	log.Logger().Debug("*1 client 127.0.0.1:5 connected to 0.0.0.0:25")
	require.NoError(t, log.Sync(patience))
	require.Equal(t, []string{"before", fmt.Sprintf("%[1]d#%[1]d: *1 client 127.0.0.1:5 connected to 0.0.0.0:25", os.Getpid())}, lines(t, path))
}
