package accesslog

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

const patience = 10 * time.Second

// TestMain holds that no goroutine of ours outlives the tests, all of which
// close their sets.
func TestMain(m *testing.M) {
	code := m.Run()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); code == 0; time.Sleep(time.Millisecond) {
		left := stacks[:runtime.Stack(stacks, true)]
		if !bytes.Contains(left, []byte(").run(")) {
			break
		}
		if time.Now().After(deadline) {
			fmt.Printf("goroutines are left:\n%s", left)
			code = 1
		}
	}
	os.Exit(code)
}

// newSet is a set whose reports the test can read.
func newSet(t *testing.T) (*Set, *observer.ObservedLogs) {
	t.Helper()
	core, reports := observer.New(zapcore.DebugLevel)
	s := NewSet(zap.New(core))
	t.Cleanup(func() { require.NoError(t, s.Close(patience)) })
	return s, reports
}

func mustOpen(t *testing.T, s *Set, target Target) *Log {
	t.Helper()
	l, err := s.Open(target)
	require.NoError(t, err)
	return l
}

func content(t *testing.T, path string) string {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(p)
}

// writeAll writes "WRITER/NUMBER …" from several goroutines; one of them, the
// caller's, runs between ten times in between.
func writeAll(l *Log, writers, each int, between func()) {
	write := func(w, i int) { l.Write(fmt.Appendf(nil, "%d/%d %s", w, i, strings.Repeat("x", i%50))) }
	var all sync.WaitGroup
	for w := 1; w < writers; w++ {
		all.Go(func() {
			for i := range each {
				write(w, i)
			}
		})
	}
	for i := range each {
		if i%(each/10) == each/20 {
			between()
		}
		write(0, i)
	}
	all.Wait()
}

// requireAll holds that text has every line of writeAll once, each writer's in
// their order.
func requireAll(t *testing.T, text string, writers, each int) {
	t.Helper()
	next := make([]int, writers)
	for line := range strings.Lines(text) {
		writer, _, _ := strings.Cut(line, "/")
		w, err := strconv.Atoi(writer)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%d/%d %s\n", w, next[w], strings.Repeat("x", next[w]%50)), line)
		next[w]++
	}
	for w := range writers {
		require.Equal(t, each, next[w], "writer %d", w)
	}
}

// With room nothing is lost, whoever else writes and however lines are held
// back.
//
// Fails if Queue.Add appends outside its lock, or run reuses a batch too early.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 2000
	for _, target := range []Target{{}, {Buffer: 1 << 10}, {Buffer: 32 << 10, Flush: time.Millisecond}} {
		s, reports := newSet(t)
		target.Path = filepath.Join(t.TempDir(), "log")
		l := mustOpen(t, s, target)
		writeAll(l, writers, each, func() {})
		require.NoError(t, s.Close(patience))
		requireAll(t, content(t, target.Path), writers, each)
		require.Zero(t, l.Dropped())
		require.Zero(t, reports.Len())
	}
}

// A record is one line whatever is in it, T28, with every other byte as it
// came, and with a bound.
//
// Fails if a line feed is written as it is, or MaxLine does not hold for a line
// that grows by its escapes.
func TestOneLine(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	path := filepath.Join(t.TempDir(), "log")
	l := mustOpen(t, s, Target{Path: path})
	var want strings.Builder
	for b := range 256 {
		l.Write([]byte{'<', byte(b), '>'})
		if b == '\n' {
			want.WriteString("<\\x0A>\n")
		} else {
			want.WriteString("<" + string([]byte{byte(b)}) + ">\n")
		}
	}
	l.Write(nil)
	want.WriteByte('\n')
	l.Write([]byte(strings.Repeat("a", 2*MaxLine)))
	want.WriteString(strings.Repeat("a", MaxLine) + "\n")
	l.Write([]byte(strings.Repeat("\n", MaxLine)))
	want.WriteString(strings.Repeat(`\x0A`, MaxLine/4) + "\n")
	require.NoError(t, s.Close(patience))
	require.Equal(t, want.String(), content(t, path))
}

func fifo(t *testing.T) (path string, reader *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { reader.Close() })
	return path, reader
}

// A FIFO whose reader sleeps: nobody waits, lines are lost, counted and told
// while it sleeps; what was not lost is all there when it wakes.
//
// Fails if Add waits, if the room has no bound, or if losses are told only when
// the device takes a line again.
func TestBlocked(t *testing.T) {
	t.Parallel()
	s, reports := newSet(t)
	path, reader := fifo(t)
	l := mustOpen(t, s, Target{Path: path})
	written := 0
	for ; l.Dropped() < 100; written++ {
		require.Less(t, written, 1<<20, "nothing is lost")
		l.Write(fmt.Appendf(nil, "%d %s", written, strings.Repeat("x", 1000)))
	}
	require.Eventually(t, func() bool { return reports.Len() > 0 }, patience, time.Millisecond)
	report := reports.All()[0]
	require.Equal(t, path, report.ContextMap()["path"])
	require.Equal(t, "too many lines are waiting to be written", report.ContextMap()["reason"])

	require.NoError(t, reader.SetReadDeadline(time.Now().Add(patience)))
	r := bufio.NewReader(reader)
	for read := 0; uint64(read)+l.Dropped() < uint64(written); read++ {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%d %s\n", read, strings.Repeat("x", 1000)), line)
	}
	l.Write([]byte("awake"))
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "awake\n", line)
}

// The exit waits for a reader that sleeps as long as it was told to, the writing
// goroutine not much longer.
//
// Fails (TestMain at the end, or the deadline of the test binary) if Close sets no
// deadline, or waits without one.
func TestCloseBlocked(t *testing.T) {
	t.Parallel()
	core, reports := observer.New(zapcore.DebugLevel)
	s := NewSet(zap.New(core))
	path, _ := fifo(t)
	l := mustOpen(t, s, Target{Path: path})
	for range 200 {
		l.Write(make([]byte, 1000))
	}
	q := l.current.Load()
	if err := s.Close(100 * time.Millisecond); err != nil { // both end at one time
		require.EqualError(t, err, "close access log "+path+": not all written after 100ms")
	}
	require.True(t, q.Wait(patience))
	require.NotZero(t, l.Dropped())
	// One at the end, and one before if the writing goroutine came so late that
	// lines had no room.
	require.LessOrEqual(t, reports.Len(), 2)
	l.Write([]byte("late"))
	l.Release()
	_, err := s.Open(Target{Path: path})
	require.ErrorIs(t, err, errClosed)
}

// A FIFO without a reader is refused; one whose reader goes away loses lines
// and takes them again when it comes back.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	s, reports := newSet(t)
	path, reader := fifo(t)
	l := mustOpen(t, s, Target{Path: path})
	require.NoError(t, reader.Close())
	_, err := s.Open(Target{Path: path, Buffer: 1})
	require.ErrorContains(t, err, "open access log: open "+path+": no such device or address")
	l.Write([]byte("nobody reads this"))
	require.True(t, l.current.Load().Sync(patience))
	require.EqualValues(t, 1, l.Dropped())
	require.Eventually(t, func() bool { return reports.Len() == 1 }, patience, time.Millisecond)
	require.Contains(t, reports.All()[0].ContextMap()["reason"], "broken pipe")

	reader, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer reader.Close()
	l.Write([]byte("back"))
	require.True(t, l.current.Load().Sync(patience))
	p := make([]byte, 100)
	n, err := reader.Read(p)
	require.NoError(t, err)
	require.Equal(t, "back\n", string(p[:n]))
}

// Fails if a failed write counts nothing or is not told with its reason.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, reports := newSet(t)
	for i, target := range []Target{{}, {Buffer: 100}, {Gzip: 1}} {
		target.Path = "/dev/full"
		l := mustOpen(t, s, target)
		l.Write([]byte("no room"))
		l.Write([]byte("no room"))
		require.True(t, l.current.Load().Sync(patience))
		require.EqualValues(t, 2, l.Dropped(), i)
	}
	require.NoError(t, s.Close(patience))
	told := 0
	for _, report := range reports.All() {
		require.Equal(t, "write /dev/full: no space left on device", report.ContextMap()["reason"])
		told += int(report.ContextMap()["lines"].(uint64))
	}
	require.Equal(t, 6, told)
}

// Losses are told at once and then once a second, and none twice.
//
// Fails if each is told, if the last ones are forgotten, or if the interval is
// another.
func TestLosses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, reports := observer.New(zapcore.DebugLevel)
		start := time.Now()
		var at []time.Duration
		l := newLosses(zap.New(core, zap.Hooks(func(zapcore.Entry) error {
			at = append(at, time.Since(start))
			return nil
		})))
		synctest.Wait()
		for range 35 {
			l.add("/log", 2, os.ErrClosed)
			time.Sleep(100 * time.Millisecond)
		}
		l.stop()
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 3500 * time.Millisecond}, at)
		told := uint64(0)
		for _, report := range reports.All() {
			told += report.ContextMap()["lines"].(uint64)
		}
		require.EqualValues(t, 70, told)
	})
}

// In the steady state a line costs no memory, whether its path is the log's or
// its own. (Not parallel: all allocations of the process count.)
//
// Fails if a part of Add escapes, or if run makes its buffers anew.
func TestNoAllocations(t *testing.T) {
	s, _ := newSet(t)
	fixed := mustOpen(t, s, Target{Path: "/dev/null", Buffer: 4 << 10})
	variable := mustOpen(t, s, Target{Path: "v", Variable: true})
	line, path := []byte(strings.Repeat("x", 200)), []byte("/dev/null")
	for name, write := range map[string]func(){
		"Write":   func() { fixed.Write(line) },
		"WriteTo": func() { variable.WriteTo(path, line) },
	} {
		// AllocsPerRun would round down what a batch costs.
		mallocs := func(lines int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range lines {
				write()
				runtime.Gosched()
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		mallocs(10_000)                                     // buffers grow
		require.Less(t, mallocs(10_000), uint64(500), name) // a larger batch than before may come
	}
	require.Zero(t, fixed.Dropped()+variable.Dropped())
}

// BenchmarkWrite is a line until it is in the file: what the session's loop pays
// and what the writing goroutine does.
func BenchmarkWrite(b *testing.B) {
	line := []byte(strings.Repeat("x", 200))
	for name, target := range map[string]Target{
		"file":     {},
		"buffered": {Buffer: 64 << 10, Flush: time.Second},
		"gzip":     {Gzip: 1},
	} {
		b.Run(name, func(b *testing.B) {
			s := NewSet(zap.NewNop())
			target.Path = filepath.Join(b.TempDir(), "log")
			l, err := s.Open(target)
			require.NoError(b, err)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				l.Write(line)
				if n++; n%1000 == 0 {
					l.current.Load().Sync(patience)
				}
			}
			require.NoError(b, s.Close(patience))
			require.Zero(b, l.Dropped())
		})
	}
}

// BenchmarkWriteBlocked is a line lost, by one loop and by several at a time.
func BenchmarkWriteBlocked(b *testing.B) {
	path := filepath.Join(b.TempDir(), "fifo")
	require.NoError(b, syscall.Mkfifo(path, 0o600))
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(b, err)
	defer reader.Close()
	s := NewSet(zap.NewNop())
	l, err := s.Open(Target{Path: path})
	require.NoError(b, err)
	line := []byte(strings.Repeat("x", 200))
	for l.Dropped() == 0 {
		l.Write(line)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Write(line)
		}
	})
	_ = s.Close(time.Millisecond)
}
