package sink

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// tape is a device that keeps what it is given and when.
type tape struct {
	start time.Time
	gate  chan struct{} // unless nil, each write waits for it

	mu     sync.Mutex
	writes []string
	closed bool
}

func (d *tape) Write(p []byte) (int, error) {
	if d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes = append(d.writes, fmt.Sprintf("%s %s", time.Since(d.start), strings.ReplaceAll(string(p), "\n", "|")))
	return len(p), nil
}

func (d *tape) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *tape) SetWriteDeadline(time.Time) error { return nil }
func (d *tape) Name() string                     { return "tape" }

// Lines are held back until the buffer is full, the first of them has waited
// for Flush, somebody asks, or the queue ends.
//
// Fails if Buffer or Flush is ignored, or if the time runs from the last line,
// or from one that a full buffer has taken along (26 s would be 24).
func TestBuffer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &tape{start: time.Now()}
		q := NewQueue(d, Options{Room: 100, Buffer: 10, Flush: 5 * time.Second, Lost: func(uint64, error) { t.Error("lost") }})
		at := func(s int, line string) {
			time.Sleep(time.Until(d.start.Add(time.Duration(s) * time.Second)))
			q.Add([]byte(line), []byte("\n"))
		}
		at(1, "a")
		at(4, "b")
		at(10, "12345678")
		at(11, "9") // full
		at(19, "123456789")
		at(21, "c")
		at(22, "d")
		time.Sleep(10 * time.Second)
		q.Add([]byte("asked\n"))
		require.True(t, q.Sync(time.Second))
		time.Sleep(time.Second)
		q.Add([]byte("end\n"))
		q.Close(time.Second)
		require.True(t, q.Wait(time.Second))
		require.Equal(t, []string{"6s a|b|", "11s 12345678|9|", "19s 123456789|", "26s c|d|", "32s asked|", "33s end|"}, d.writes)
		require.True(t, d.closed)
		require.False(t, q.Add([]byte("late\n")))
	})
}

// Without Flush a buffer waits for ever, as nginx's does.
//
// Fails if the timer runs at zero.
func TestBufferWithoutFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &tape{start: time.Now()}
		q := NewQueue(d, Options{Room: 100, Buffer: 10, Lost: func(uint64, error) { t.Error("lost") }})
		q.Add([]byte("a\n"))
		time.Sleep(24 * time.Hour)
		q.Close(time.Second)
		require.True(t, q.Wait(time.Second))
		require.Equal(t, []string{"24h0m0s a|"}, d.writes)
	})
}

// What waits is bounded to the byte, and each line that finds no room is told
// with the reason.
//
// Fails if the room is larger or smaller, or if a lost line leaves a part.
func TestRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lost []string
		d := &tape{start: time.Now(), gate: make(chan struct{})}
		q := NewQueue(d, Options{Room: 6, Lost: func(n uint64, reason error) { lost = append(lost, fmt.Sprint(n, " ", errors.Is(reason, ErrFull))) }})
		q.Add([]byte("0\n"))
		synctest.Wait() // it is being written
		for _, line := range []string{"12\n", "34\n", "5\n", "\n"} {
			require.True(t, q.Add([]byte(line)))
		}
		require.Equal(t, []string{"1 true", "1 true"}, lost)
		close(d.gate)
		q.Close(time.Second)
		require.True(t, q.Wait(time.Second))
		require.Equal(t, []string{"0s 0|", "0s 12|34|"}, d.writes)
	})
}

// A queue that follows another writes after it, but does not wait for ever.
//
// Fails if After is ignored, or waited for without a bound.
func TestAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lost := func(uint64, error) { t.Error("lost") }
		for _, test := range []struct {
			blocked time.Duration
			want    []string
		}{
			{500 * time.Millisecond, []string{"500ms old|", "500ms new|"}},
			{time.Minute, []string{"1s new|", "1m0s old|"}},
		} {
			d := &tape{start: time.Now()}
			slow := &slowTape{tape: d, takes: test.blocked}
			before := NewQueue(slow, Options{Room: 100, Lost: lost})
			before.Add([]byte("old\n"))
			q := NewQueue(d, Options{Room: 100, Lost: lost, After: before})
			before.Close(Handover)
			q.Add([]byte("new\n"))
			q.Close(Handover)
			require.True(t, q.Wait(time.Hour))
			require.True(t, before.Wait(time.Hour))
			require.Equal(t, test.want, d.writes)
		}
	})
}

type slowTape struct {
	*tape
	takes time.Duration
}

func (d *slowTape) Write(p []byte) (int, error) {
	time.Sleep(d.takes)
	return d.tape.Write(p)
}
