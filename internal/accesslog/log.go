package accesslog

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"

	"smtplb/internal/sink"
)

const (
	// MaxLine is the longest line, in bytes without its end. It fits into a
	// datagram of UDP together with syslog's header.
	MaxLine = 63 << 10
	// room bounds the bytes that wait for a device, beside its buffer: a second of
	// twenty thousand sessions, so that a disk may pause.
	room = 4 << 20
)

var errClosed = errors.New("log is closed")

// Log is one open log of a Set.
type Log struct {
	set     *Set
	target  Target
	uses    int // protected by the set's mu
	current atomic.Pointer[sink.Queue]
	dropped atomic.Uint64
}

// Write queues one line, given without its end, or loses it if too many are
// waiting. It copies the line, never waits, and may be called by any goroutine
// at any time.
func (l *Log) Write(line []byte) {
	line, buf := oneLine(line)
	l.add(line, lineEnd)
	if buf != nil {
		bytebufferpool.Put(buf)
	}
}

// WriteTo is Write to the file path of a log whose Target is Variable. It loses
// the line if the path is not absolute, or could lead out of its directory; see
// checkPath.
func (l *Log) WriteTo(path, line []byte) {
	if err := checkPath(path); err != nil {
		l.lost(1, err)
		return
	}
	line, buf := oneLine(line)
	l.add(path, pathEnd, line, lineEnd)
	if buf != nil {
		bytebufferpool.Put(buf)
	}
}

var lineEnd, pathEnd = []byte{'\n'}, []byte{0}

func (l *Log) add(parts ...[]byte) {
	for {
		q := l.current.Load()
		if q == nil {
			l.lost(1, errClosed)
			return
		}
		if q.Add(parts...) {
			return
		}
	}
}

// oneLine is line without line feeds and not too long. If that takes a copy, it
// is in buf, which the caller gives back.
func oneLine(line []byte) (_ []byte, buf *bytebufferpool.ByteBuffer) {
	line = line[:min(len(line), MaxLine)]
	if bytes.IndexByte(line, '\n') < 0 {
		return line, nil
	}
	buf = bytebufferpool.Get()
	for _, b := range line {
		if b == '\n' {
			buf.B = append(buf.B, `\x0A`...)
		} else {
			buf.B = append(buf.B, b)
		}
	}
	return buf.B[:min(len(buf.B), MaxLine)], buf
}

// Dropped is how many lines were lost so far.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

func (l *Log) lost(lines uint64, reason error) {
	l.dropped.Add(lines)
	l.set.losses.add(l.target.Path, lines, reason)
}

// Release ends one use. With the last one the log is closed: what it holds is
// still written, but Release does not wait for that.
func (l *Log) Release() { l.set.release(l) }

// open makes a queue that follows after, which is nil at first.
func (l *Log) open(after *sink.Queue) (*sink.Queue, error) {
	d, err := l.device()
	if err != nil {
		return nil, l.target.hint(err)
	}
	o := sink.Options{Buffer: l.target.Buffer, Flush: l.target.Flush, Lost: l.lost, After: after}
	if o.Buffer == 0 {
		o.Buffer, o.Flush = together, soon
	}
	o.Room = room + o.Buffer
	return sink.NewQueue(d, o), nil
}

// A log without a buffer has its lines written soon, not each by itself: to wake
// the goroutine that writes costs more than a line does.
const (
	together = 16 << 10
	soon     = 10 * time.Millisecond
)

func (l *Log) device() (sink.Device, error) {
	if l.target.Variable {
		return newFiles(l.target.Path, l.lost), nil
	}
	d, err := sink.Open(l.target.Path, sink.Format{Longest: MaxLine})
	if err != nil || l.target.Gzip == 0 {
		return d, err
	}
	return compress(d, l.target.Gzip), nil
}
