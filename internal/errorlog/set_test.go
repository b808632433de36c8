package errorlog

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// open opens the process's own log.
func open(t *testing.T, targets ...Target) *Set {
	t.Helper()
	s, err := Open(targets...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(patience)) })
	return s
}

// requireLines asserts what files hold, after all is written.
func requireLines(t *testing.T, s *Set, want map[string][]string) {
	t.Helper()
	require.NoError(t, s.Sync(patience))
	for path, messages := range want {
		require.Equal(t, messages, lines(t, path), path)
	}
}

// descriptors counts the open descriptors of a file.
func descriptors(t *testing.T, path string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}

// Logs are the same only if all their targets are, whatever the paths look like.
//
// Fails if the targets are told apart by their text without quotes.
func TestOddPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/"
	require.NoError(t, os.MkdirAll(dir+"a info} {"+dir, 0o755))
	s := open(t)
	one, err := s.Log(Target{dir + "a info} {" + dir + "b", Warn})
	require.NoError(t, err)
	two, err := s.Log(Target{dir + "a", Notice}, Target{dir + "b", Warn})
	require.NoError(t, err)
	require.NotSame(t, one, two)
}

// Every target of a log gets what its own level lets through, one that is given
// twice gets it twice, and logs that name a file share it.
//
// Fails if the lowest level is that of all targets, if the first target takes the
// record from the others, or if a file is opened for each log.
func TestTargets(t *testing.T) {
	t.Parallel()
	a, b, c := t.TempDir()+"/a", t.TempDir()+"/b", t.TempDir()+"/c"
	s := open(t, Target{a, Error}, Target{b, Info}, Target{b, Alert})
	log, err := s.Log(Target{b, Notice}, Target{c, Debug})
	require.NoError(t, err)
	for _, l := range []*zap.Logger{s.Logger(), log.Logger().With(zap.Int("n", 1)).Named("part")} {
		l.Log(Debug, "debug")
		l.Debug("info")
		l.Info("notice")
		l.Error("error")
		l.Log(Alert, "alert")
	}
	own := func(message string) string { return "part: " + message + ` {"n": 1}` }
	requireLines(t, s, map[string][]string{
		a: {"error", "alert"},
		b: {"info", "notice", "error", "alert", "alert", own("notice"), own("error"), own("alert")},
		c: {own("debug"), own("info"), own("notice"), own("error"), own("alert")},
	})
	require.Equal(t, 1, descriptors(t, b))
	require.Nil(t, s.Logger().Check(Debug, ""))
	require.NotNil(t, log.Logger().Check(Debug, ""))
}

// A log with the targets of another one is that one, and its files are open for
// as long as somebody names them.
//
// Fails if the first Release closes, if the last one does not, or if a file that
// another log has is closed.
func TestRelease(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir()+"/a", t.TempDir()+"/b"
	s := open(t, Target{a, Info})
	log, err := s.Log(Target{a, Info}, Target{b, Info})
	require.NoError(t, err)
	again, err := s.Log(Target{a, Info}, Target{b, Info})
	require.NoError(t, err)
	require.Same(t, log, again)

	log.Release()
	log.Logger().Info("one")
	again.Release()
	log.Logger().Info("too late") // a still takes it: the process's log has it
	s.Logger().Info("own")
	requireLines(t, s, map[string][]string{a: {"one", "too late", "own"}, b: {"one"}})
	require.Zero(t, descriptors(t, b))
	require.EqualValues(t, 1, s.Dropped())

	log, err = s.Log(Target{b, Info})
	require.NoError(t, err)
	defer log.Release()
	log.Logger().Info("two")
	requireLines(t, s, map[string][]string{b: {"one", "two"}})
}

// A log of which one target cannot be opened is not there, nor are its files.
//
// Fails if what was opened for it stays open, or if the error is about another
// target.
func TestTargetError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, Target{dir + "/own", Info})
	bad := []Target{{dir + "/a", Info}, {dir + "/none/b", Info}}
	_, err := s.Log(bad...)
	var about *TargetError
	require.ErrorAs(t, err, &about)
	require.Equal(t, 1, about.Target)
	require.ErrorIs(t, err, syscall.ENOENT)
	require.Zero(t, descriptors(t, dir+"/a"))
	require.ErrorAs(t, s.Reconfigure(bad...), &about)
	s.Logger().Info("goes on")
	requireLines(t, s, map[string][]string{dir + "/own": {"goes on"}})
}

// SIGUSR1 opens the files of all logs anew; the one that cannot be is written on.
//
// Fails if only the process's own log is opened anew, if the first error ends it
// all, or if a file is closed before its successor is open.
func TestReopenAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"/a", "/x"} {
		require.NoError(t, os.Mkdir(dir+name, 0o700))
	}
	s := open(t, Target{dir + "/a/log", Info}, Target{dir + "/b", Info})
	log, err := s.Log(Target{dir + "/c", Info}, Target{dir + "/a/log", Info})
	require.NoError(t, err)
	defer log.Release()
	require.NoError(t, os.Rename(dir+"/a", dir+"/old"))
	for _, name := range []string{"/b", "/c"} {
		require.NoError(t, os.Rename(dir+name, dir+"/x"+name))
	}
	require.ErrorContains(t, s.Reopen(), "open error log: open "+dir+"/a/log: no such file or directory")
	s.Logger().Info("own")
	log.Logger().Info("other")
	requireLines(t, s, map[string][]string{
		dir + "/old/log": {"own", "other"},
		dir + "/b":       {"own"}, dir + "/x/b": nil,
		dir + "/c": {"other"}, dir + "/x/c": nil,
	})
}

// A target that takes nothing loses its own lines, no others, and nobody waits.
//
// Fails if a log's targets share a queue.
func TestBlockedTarget(t *testing.T) {
	t.Parallel()
	path, reader := fifo(t)
	file := t.TempDir() + "/log"
	s, err := Open(Target{path, Info}, Target{file, Info})
	require.NoError(t, err)
	logger := s.Logger().With(zap.String("padding", strings.Repeat("x", 1000)))
	logged := 0
	for ; s.Dropped() < 100; logged++ {
		logger.Info("line")
		if logged%100 == 0 { // so that the file's queue is never full
			q := s.own.outlets.Load().all[1].queue.Load()
			require.True(t, q.Sync(patience))
		}
	}
	require.NoError(t, reader.Close())
	require.NoError(t, s.Close(patience))
	require.Len(t, lines(t, file), logged)
}

// A reload that gives the process's log other files loses no line, and neither
// does one that gives it those it has.
//
// Fails if a record that finds all its files closed is dropped.
func TestReconfigureLosesNothing(t *testing.T) {
	t.Parallel()
	const writers, each, changes = 4, 2000, 400
	dir := t.TempDir()
	s := open(t, Target{dir + "/0", Info})
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				s.Logger().Info("line")
			}
		})
	}
	for i := range changes {
		require.NoError(t, s.Reconfigure(Target{fmt.Sprint(dir, "/", i/2%2), Info}))
	}
	all.Wait()
	require.NoError(t, s.Sync(patience))
	require.Zero(t, s.Dropped())
	require.Equal(t, writers*each, len(lines(t, dir+"/0"))+len(lines(t, dir+"/1")))
}

// What is not to be logged costs no memory, however many targets there are.
//
// Fails if a level is looked up in a list that is made for it.
func TestNothingToLogAllocatesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Target{dir + "/a", Notice}, Target{dir + "/b", Error})
	logger := s.Logger().Named("stream")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if entry := logger.Check(Info, "session ended"); entry != nil {
			entry.Write(zap.String("a", "b"))
		}
	}))
}
