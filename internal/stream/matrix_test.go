package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
)

const (
	matrixTimeout = 8 * time.Second // of the sessions that only a timer can end
	matrixRounds  = 10              // sessions of each cell
)

// TestCloseMatrix is T14: one peer, the actor, ends its side in some way while
// nothing is under way, while the pipe towards the other is full, or while the
// other does not read at all. What the actor sent must arrive, or after a reset
// what the kernel had received of it; the session must be gone soon after its
// last sign of life, or when its timer says so; and nothing may spin in
// the meantime.
//
// It fails if pump takes a hang-up for the end before what the half holds is
// out (fin full), if an error event ends the session before the socket is read
// to its end (rst full), if passEnd does not shut the other side down (fin
// empty), if enter does not arm the timer (idle), and, as a spin, if
// reactor.Stream is level-triggered.
func TestCloseMatrix(t *testing.T) {
	var cells []*cell
	for _, side := range []string{"client", "server"} {
		for _, event := range []string{"fin", "rst", "half", "data+fin", "idle"} {
			for _, state := range []string{"empty", "full", "blocked"} {
				cells = append(cells, newCell(t, side, event, state))
			}
		}
	}
	begin := time.Now()
	everyMatch(t, cells, (*match).begin)
	begun := time.Now()
	const look = 2 * time.Second
	require.Less(t, begun.Sub(begin), matrixTimeout-look, "no time left to look at the clock")
	idle(t, look, "sessions that have ended on one side")
	everyMatch(t, cells, (*match).verify)
	for _, c := range cells {
		if c.state != "blocked" {
			c.rig.gone(shortly)
		}
	}
	idle(t, time.Second, "sessions that linger")
	for _, c := range cells {
		c.rig.gone(time.Until(begun.Add(matrixTimeout + lingerTimeout*time.Millisecond + shortly)))
		c.compare(t)
	}
}

// cell is a rig and the sessions of one cell of the matrix.
type cell struct {
	side, event, state string

	rig     *rig
	matches []*match
}

// match is one session: the peer that acts and the one that it acts upon.
type match struct {
	*cell
	actor, other net.Conn
	sent         int64 // by the actor
	safe         int64 // of these, acknowledged by our kernel
	got          int64 // by the other
}

func (c *cell) String() string { return c.side + " " + c.event + " " + c.state }

func newCell(t *testing.T, side, event, state string) *cell {
	l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
	c := &cell{side: side, event: event, state: state}
	c.rig = newRig(t, []string{l.Addr().String()}, func(p *plan) {
		if event == "idle" || state == "blocked" {
			p.Timeout = matrixTimeout
		}
		p.prepare = func(w *worker) { w.engine.onEvent = func(*session) { matrixEvents.Add(1) } }
	})
	for range matrixRounds {
		m := &match{cell: c}
		m.actor, m.other = c.rig.pair(l, smtptest.RcvBuf(16<<10))
		if side == "server" {
			m.actor, m.other = m.other, m.actor
		}
		c.matches = append(c.matches, m)
	}
	c.rig.each(narrow)
	return c
}

// everyMatch runs a step of all sessions at the same time.
func everyMatch(t *testing.T, cells []*cell, step func(*match) error) {
	t.Helper()
	var all []*match
	for _, c := range cells {
		all = append(all, c.matches...)
	}
	parallel(t, len(all), len(all), func(i int) error {
		if err := step(all[i]); err != nil {
			return fmt.Errorf("%v: %w", all[i].cell, err)
		}
		return nil
	})
}

// begin brings the session into its state and lets the actor act.
func (m *match) begin() error {
	if err := m.pass(1); err != nil {
		return err
	}
	if m.state != "empty" {
		if err := m.fill(); err != nil {
			return err
		}
	}
	switch m.event {
	case "fin":
		return m.actor.Close()
	case "rst":
		m.safe = m.sent - int64(unsent(m.actor))
		return smtptest.Abort(m.actor)
	case "half":
		if err := smtptest.CloseWrite(m.actor); err != nil {
			return err
		}
		return m.answer()
	case "data+fin":
		thaw := freeze(m.rig.workers...)
		defer thaw()
		if m.state == "empty" {
			n, _ := m.actor.Write(make([]byte, 1000))
			m.sent += int64(n)
		}
		return m.actor.Close()
	}
	return nil
}

// pass sends n bytes to the other, which reads them.
func (m *match) pass(n int) error {
	if _, err := m.actor.Write(make([]byte, n)); err != nil {
		return err
	}
	m.sent += int64(n)
	_, err := io.ReadFull(m.other, make([]byte, n))
	m.got += int64(n)
	return err
}

// fill writes until nobody takes anything any more.
func (m *match) fill() error {
	if err := m.actor.(*net.TCPConn).SetWriteBuffer(32 << 10); err != nil {
		return err
	}
	if err := m.actor.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	for chunk := make([]byte, 64<<10); ; {
		n, err := m.actor.Write(chunk)
		m.sent += int64(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return m.actor.SetWriteDeadline(time.Time{})
		}
		if err != nil {
			return err
		}
	}
}

// unsent is what our kernel has not acknowledged of what c wrote.
func unsent(c net.Conn) (n int) {
	raw, _ := c.(*net.TCPConn).SyscallConn()
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n
}

// verify lets the other find out what happened, and shows that it is right.
func (m *match) verify() error {
	if m.state == "blocked" {
		return nil
	}
	n, err := io.Copy(io.Discard, m.other)
	m.got += n
	switch m.event {
	case "fin", "half", "data+fin":
		if err != nil || m.got != m.sent {
			return fmt.Errorf("%d bytes sent, %d received: %w", m.sent, m.got, err)
		}
	case "rst":
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || m.got < m.safe {
			return fmt.Errorf("%d bytes acknowledged, %d received: %w", m.safe, m.got, err)
		}
	case "idle":
		if err != nil {
			return err
		}
		m.actor.Close()
	}
	return m.other.Close()
}

// answer sends something to an actor that has ended its own stream, which must
// get it whether or not the other has read anything.
func (m *match) answer() error {
	const size = 1000
	if _, err := m.other.Write(make([]byte, size)); err != nil {
		return err
	}
	if _, err := io.ReadFull(m.actor, make([]byte, size)); err != nil {
		return fmt.Errorf("answer after half-close: %w", err)
	}
	return nil
}

// compare shows that the accounts of the sessions say what the peers saw.
func (c *cell) compare(t *testing.T) {
	t.Helper()
	var sent, got, in, out int64
	for _, m := range c.matches {
		sent += m.sent
		got += m.got
	}
	all := c.rig.accounts()
	require.Len(t, all, matrixRounds, c)
	for _, a := range all {
		if c.side == "client" {
			in, out = in+a.fromClient, out+a.toServer
		} else {
			in, out = in+a.fromServer, out+a.toClient
		}
	}
	switch {
	case c.state == "blocked":
		require.LessOrEqual(t, out, in, c)
	case c.event == "idle":
		require.Equal(t, got, out, c)
	case c.event == "rst":
		require.Equal(t, got, out, c)
		require.Equal(t, in, out, c)
	default:
		require.Equal(t, sent, in, c)
		require.Equal(t, sent, out, c)
	}
}

// idle shows that next to nothing happens for a while: fewer events than there
// are sessions, and hardly any use of the processor. A second is too short to read less than 3 % from the clock;
// a loop that spins takes all of it.
func idle(t *testing.T, d time.Duration, what string) {
	t.Helper()
	runtime.GC() // none while we look
	events, used := matrixEvents.Load(), smtptest.CPU(t, os.Getpid())
	time.Sleep(d)
	events, used = matrixEvents.Load()-events, smtptest.CPU(t, os.Getpid())-used
	t.Logf("%d events and %v of processor time in %v: %s", events, used, d, what)
	require.Less(t, events, int64(300), what)
	require.Less(t, used, d*3/100, what)
}

// matrixEvents counts the events of all sessions of the matrix.
var matrixEvents atomic.Int64
