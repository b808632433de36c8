package sink

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// keepSize is the memory a buffer may keep for ever.
	keepSize = 64 << 10
	// keepBatches is how many batches that need a fraction of it a larger buffer
	// survives: bursts come in a row, and each would pay for its growth.
	keepBatches = 100
)

// ErrFull is the reason for a line lost because the device takes none in time.
var ErrFull = errors.New("too many lines are waiting to be written")

// Options of a Queue.
type Options struct {
	// Room bounds the bytes that wait; a line that finds none is lost. As much
	// again may be in the course of being written.
	Room int
	// Buffer is how many bytes are to wait before they are written; 0 writes at
	// once. It is less than Room.
	Buffer int
	// Flush is how long a line may wait for Buffer to fill; 0 is for ever.
	Flush time.Duration
	// Lost is told of each loss and its reason. It is called by who adds a line
	// and by the goroutine that writes, perhaps with the queue locked: it does
	// not wait, and it does not call the queue.
	Lost func(lines uint64, reason error)
	// Tell, unless nil, makes the line that tells the log's reader of lost
	// lines, to be written as soon as the device takes one again.
	Tell func(lost uint64) []byte
	// After is the queue that this one follows on the same target, if any: its
	// lines come first, unless that takes longer than Handover.
	After *Queue
}

// Handover is how long a device that is replaced may take for the rest.
const Handover = time.Second

// Queue is one open device, the lines that wait for it, and the goroutine (run)
// that writes the ones to the other; run alone touches the device until the
// queue is closed. A device that blocks holds up its own queue only.
//
// All methods may be called by any goroutine.
type Queue struct {
	device  Device
	options Options
	wake    chan struct{} // holds one token while there may be work
	done    chan struct{} // closed when run has ended

	mu      sync.Mutex  // protects below; nobody waits for anything holding it
	timer   *time.Timer // runs since the first of lines came, or for nothing
	lines   []byte      // whole lines
	lost    uint64      // lines lost and not yet told
	waiting []chan struct{}
	closed  bool
}

// NewQueue takes ownership of the device. Close ends the queue.
func NewQueue(device Device, options Options) *Queue {
	q := &Queue{
		device:  device,
		options: options,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	q.options.After = nil // else each queue would keep all before it
	q.timer = time.AfterFunc(time.Hour, q.signal)
	q.timer.Stop()
	go q.run(options.After)
	return q
}

// Device is what the queue writes to.
func (q *Queue) Device() Device { return q.device }

// Add queues a line given in parts, the last of which ends with the line's only
// line feed, or loses it if there is no room. The parts are copied. Add reports
// false if the queue is closed, and has then done nothing.
func (q *Queue) Add(parts ...[]byte) bool {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if len(q.lines)+size > q.options.Room {
		q.loseLocked(1, ErrFull)
		q.signal()
		return true
	}
	if len(q.lines) == 0 && q.options.Flush > 0 {
		q.timer.Reset(q.options.Flush)
	}
	for _, p := range parts {
		q.lines = append(q.lines, p...)
	}
	if len(q.lines) >= q.options.Buffer {
		q.signal()
	}
	return true
}

func (q *Queue) loseLocked(lines uint64, reason error) {
	q.lost += lines
	q.options.Lost(lines, reason)
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // run has a token to take and will see our change too
	}
}

// Sync waits until all that is queued now is written or lost, at most for
// timeout, and reports whether it is.
func (q *Queue) Sync(timeout time.Duration) bool {
	return wait(q.flushed(), timeout)
}

func (q *Queue) flushed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return q.done
	}
	c := make(chan struct{})
	q.waiting = append(q.waiting, c)
	q.signal()
	return c
}

// Close ends the queue when all is written; Wait waits for that. A FIFO that
// takes nothing for timeout loses the rest; a file that hangs keeps run for as
// long as it does, since files have no deadlines.
func (q *Queue) Close(timeout time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	_ = q.device.SetWriteDeadline(time.Now().Add(timeout))
	q.signal()
}

// Wait waits until a closed queue's device is closed, at most for timeout, and
// reports whether it is.
func (q *Queue) Wait(timeout time.Duration) bool { return wait(q.done, timeout) }

// WaitAll waits for closed queues, at most for timeout together, and returns
// those whose device is not closed then.
func WaitAll(queues []*Queue, timeout time.Duration) (late []*Queue) {
	deadline := time.Now().Add(timeout)
	for _, q := range queues {
		if !q.Wait(time.Until(deadline)) {
			late = append(late, q)
		}
	}
	return late
}

func wait(done <-chan struct{}, timeout time.Duration) bool {
	select {
	case <-done: // even if there is no time left
		return true
	default:
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// run writes until the queue is closed, once the queue before has ended.
func (q *Queue) run(after *Queue) {
	defer close(q.done)
	defer q.device.Close()
	defer q.timer.Stop()
	if after != nil {
		after.Wait(Handover)
	}
	w := Writer{To: q.device}
	var spare []byte
	small := 0 // batches in a row that needed little of a large buffer
	for range q.wake {
		q.mu.Lock()
		batch, lost, waiting, closed := q.lines, q.lost, q.waiting, q.closed
		q.lines, q.lost, q.waiting = spare, 0, nil
		q.mu.Unlock()

		failed, err := w.Write(batch)
		if lost > 0 && q.options.Tell != nil {
			if n, _ := w.Write(q.options.Tell(lost)); n > 0 {
				q.tellAgain(lost)
			}
		}
		if failed > 0 {
			q.lose(failed, err)
		}
		for _, c := range waiting {
			close(c)
		}
		if closed { // before the queue was taken, so nothing came since
			return
		}
		spare = batch[:0]
		if small++; cap(spare) <= keepSize || len(batch) >= cap(spare)/4 {
			small = 0
		} else if small > keepBatches {
			spare = nil
		}
	}
}

func (q *Queue) lose(lines uint64, reason error) {
	q.mu.Lock()
	q.loseLocked(lines, reason)
	q.mu.Unlock()
}

// tellAgain takes back a lost that could not be told.
func (q *Queue) tellAgain(lost uint64) {
	q.mu.Lock()
	q.lost += lost
	q.mu.Unlock()
}

// Writer writes whole lines, on a new line even after a write that broke off
// inside one.
type Writer struct {
	To   io.Writer
	torn bool
}

// Write returns how many lines of p were not written whole, and why.
func (w *Writer) Write(p []byte) (failed uint64, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if w.torn {
		if _, err := w.To.Write([]byte{'\n'}); err != nil {
			return uint64(bytes.Count(p, []byte{'\n'})), err
		}
		w.torn = false
	}
	n, err := w.To.Write(p)
	if err == nil {
		return 0, nil
	}
	w.torn = n > 0 && p[n-1] != '\n'
	return uint64(bytes.Count(p[n:], []byte{'\n'})), err
}
