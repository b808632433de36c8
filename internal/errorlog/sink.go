package errorlog

import (
	"bytes"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// queueSize bounds the bytes that wait for the file: some thousand lines.
	queueSize = 1 << 20
	// keepSize is the memory a buffer keeps after a burst.
	keepSize = 64 << 10
	// handover is how long a file that is replaced may take for the rest.
	handover = time.Second
)

// device is what takes the lines: an *os.File, or a connection to syslog.
type device interface {
	io.WriteCloser
	// SetWriteDeadline bounds a write under way, too. Files have no deadlines.
	SetWriteDeadline(time.Time) error
	Name() string
}

// sink is one open file, its queue, and the goroutine (run) that writes the one
// to the other; run alone touches the file until the sink is closed. A file
// that blocks holds up its own sink only: after Reopen or Reconfigure the log
// goes on in another one.
type sink struct {
	file    device
	dropped *atomic.Uint64 // the log's
	wake    chan struct{}  // holds one token while there may be work
	done    chan struct{}  // closed when run has ended

	mu      sync.Mutex // protects below; nobody waits for anything holding it
	queue   []byte     // whole lines
	lost    uint64     // lines dropped and not yet told
	waiting []chan struct{}
	closed  bool
}

func newSink(file device, dropped *atomic.Uint64) *sink {
	s := &sink{
		file:    file,
		dropped: dropped,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	go s.run()
	return s
}

// add queues a record, or drops it if there is no room. It reports false if
// the sink is closed, and has then done nothing.
func (s *sink) add(record []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	before := len(s.queue)
	if s.queue = appendLine(s.queue, record); len(s.queue) > queueSize {
		s.queue = s.queue[:before]
		s.dropLocked(1)
	}
	s.signal()
	return true
}

func (s *sink) dropLocked(lines uint64) {
	s.lost += lines
	s.dropped.Add(lines)
}

func (s *sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default: // run has a token to take and will see our change too
	}
}

// flushed is closed when all that is queued now is written or dropped.
func (s *sink) flushed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.done
	}
	c := make(chan struct{})
	s.waiting = append(s.waiting, c)
	s.signal()
	return c
}

// close ends the sink when the queue is written; it does not wait. A FIFO that
// takes nothing for that long loses the rest; a file that hangs keeps run for
// as long as it does, since files have no deadlines. Stderr is not given one: it
// belongs to the process, and the next sink may write to it.
func (s *sink) close(timeout time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.file != device(os.Stderr) {
		_ = s.file.SetWriteDeadline(time.Now().Add(timeout))
	}
	s.signal()
}

// run writes until the sink is closed. Stderr stays open for those who come
// after: another sink, and the Go runtime's last words.
func (s *sink) run() {
	defer close(s.done)
	if s.file != device(os.Stderr) {
		defer s.file.Close()
	}
	w := writer{file: s.file}
	var spare []byte
	for range s.wake {
		s.mu.Lock()
		batch, lost, waiting, closed := s.queue, s.lost, s.waiting, s.closed
		s.queue, s.lost, s.waiting = spare, 0, nil
		s.mu.Unlock()

		failed := w.write(batch)
		if lost > 0 && w.write(lostLine(lost)) > 0 {
			s.tellAgain(lost)
		}
		if failed > 0 {
			s.drop(failed)
		}
		for _, c := range waiting {
			close(c)
		}
		if closed { // before the queue was taken, so nothing came since
			return
		}
		if spare = batch[:0]; cap(spare) > keepSize {
			spare = nil
		}
	}
}

func (s *sink) drop(lines uint64) {
	s.mu.Lock()
	s.dropLocked(lines)
	s.mu.Unlock()
}

// tellAgain takes back a lost that could not be told.
func (s *sink) tellAgain(lost uint64) {
	s.mu.Lock()
	s.lost += lost
	s.mu.Unlock()
}

// lostLine is the line that tells of lost ones, whatever the log's level.
func lostLine(lost uint64) []byte {
	entry := zapcore.Entry{Time: time.Now(), Level: Warn, LoggerName: "errorlog", Message: "log lines dropped"}
	buf, err := newEncoder().EncodeEntry(entry, []zapcore.Field{zap.Uint64("lines", lost)})
	if err != nil {
		panic("errorlog: BUG: encode: " + err.Error())
	}
	defer buf.Free()
	return appendLine(nil, buf.Bytes())
}

// writer writes whole lines, on a new line even after a write that broke off
// inside one.
type writer struct {
	file io.Writer
	torn bool
}

// write returns how many lines of p were not written whole.
func (w *writer) write(p []byte) (failed uint64) {
	if len(p) == 0 {
		return 0
	}
	if w.torn {
		if _, err := w.file.Write([]byte{'\n'}); err != nil {
			return uint64(bytes.Count(p, []byte{'\n'}))
		}
		w.torn = false
	}
	n, err := w.file.Write(p)
	if err == nil {
		return 0
	}
	w.torn = n > 0 && p[n-1] != '\n'
	return uint64(bytes.Count(p[n:], []byte{'\n'}))
}
