package errorlog

import (
	"bufio"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// fifo is a FIFO with a reader that has not begun to read.
func fifo(t *testing.T) (path string, reader *os.File) {
	t.Helper()
	path = t.TempDir() + "/fifo"
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { reader.Close() })
	return path, reader
}

// closeForAll closes what nobody is to have open any more: a process just started
// by another test has a copy of every descriptor, until it execs.
func closeForAll(t *testing.T, c io.Closer) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, c.Close())
}

var lostPattern = regexp.MustCompile(`\[warn\] errorlog: log lines dropped {"lines": (\d+)}\n$`)

// readAll reads until all lines that were logged have come or are told lost, in
// whatever order, and returns how many of each there are.
func readAll(t *testing.T, reader *os.File, logged int) (read, lost int) {
	t.Helper()
	require.NoError(t, reader.SetReadDeadline(time.Now().Add(patience)))
	for r := bufio.NewReader(reader); read+lost < logged; {
		line, err := r.ReadString('\n')
		require.NoError(t, err, "after %d lines, and %d lost", read, lost)
		if m := lostPattern.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			lost += n
		} else {
			read++
		}
	}
	return read, lost
}

// TestBlockedSink logs into a FIFO that nobody reads. No call waits; afterwards
// lines read and lines told lost are all there were. Fails if add waits for
// room (the deadline of the test binary), does not bound the queue (nothing is
// ever dropped), or if lost is not told.
func TestBlockedSink(t *testing.T) {
	t.Parallel()
	path, reader := fifo(t)
	log := mustOpen(t, path, Notice)
	logger := log.Logger().With(zap.String("padding", strings.Repeat("x", 1000)))
	logged := 0
	for ; log.Dropped() < 100; logged++ {
		require.Less(t, logged, 1<<20, "nothing is dropped")
		logger.Info("line")
	}
	require.Error(t, log.Sync(time.Millisecond), "the sink is blocked")

	read, lost := readAll(t, reader, logged)
	require.Equal(t, logged, read+lost)
	require.Equal(t, uint64(lost), log.Dropped())
	require.NoError(t, log.Sync(patience))
}

// TestReconfigureFromBlockedSink: what blocks is left behind, and its
// goroutine ends when its time is over. Fails if Reconfigure waits for the old
// sink without end, or, at the last line, if Close sets no deadline.
func TestReconfigureFromBlockedSink(t *testing.T) {
	t.Parallel()
	path, _ := fifo(t)
	log := mustOpen(t, path, Notice)
	for log.Dropped() == 0 {
		log.Logger().Info("line")
	}
	blocked := queueOf(log)

	file := t.TempDir() + "/log"
	require.NoError(t, log.Reconfigure(Target{file, Notice}))
	log.Logger().Info("goes on")
	require.NoError(t, log.Sync(patience))
	require.Equal(t, []string{"goes on"}, lines(t, file))
	require.True(t, blocked.Wait(patience), "the old sink's goroutine stays")
}

// TestClosedSink: the reader goes away, which is EPIPE, and comes back. Fails
// if a write error ends the goroutine, or if the lines that failed are not
// counted and told.
func TestClosedSink(t *testing.T) {
	t.Parallel()
	path, reader := fifo(t)
	log := mustOpen(t, path, Notice)
	closeForAll(t, reader)
	for range 3 {
		log.Logger().Info("nobody reads this")
		require.NoError(t, log.Sync(patience))
	}
	require.Equal(t, uint64(3), log.Dropped())

	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer reader.Close()
	log.Logger().Info("back")
	read, lost := readAll(t, reader, 4)
	require.Equal(t, 1, read)
	require.Equal(t, 3, lost)
}

// TestFullDisk: a device without room. Fails if a failed write counts nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	log := mustOpen(t, "/dev/full", Notice)
	log.Logger().Info("no room")
	require.NoError(t, log.Sync(patience))
	require.Equal(t, uint64(1), log.Dropped())
}

// TestSinkClosed fails if a closed queue takes a record, which nobody would
// write: a logger may have looked the sink up just before Reopen.
func TestSinkClosed(t *testing.T) {
	t.Parallel()
	log := mustOpen(t, t.TempDir()+"/log", Notice)
	old := queueOf(log)
	require.NoError(t, log.Reopen())
	require.False(t, old.Add([]byte("line\n")))
	require.True(t, old.Sync(patience))
}
