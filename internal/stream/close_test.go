package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
)

// TestHalfCloseOff ends the stream of one side while the other is not reading
// and a pipe is full: everything sent is still delivered, then both sides are
// closed although the other has not closed. It fails if passEnd does not look at
// Route.HalfClose (the actor gets no end of stream).
func TestHalfCloseOff(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
			g := newRig(t, []string{l.Addr().String()}, func(p *plan) { p.HalfClose = false })
			actor, other := g.pair(l, smtptest.RcvBuf(16<<10))
			if side == "server" {
				actor, other = other, actor
			}
			m := &match{actor: actor, other: other}
			require.NoError(t, m.pass(1))
			g.each(narrow)
			require.NoError(t, m.fill())
			require.NoError(t, smtptest.CloseWrite(actor))
			d, err := smtptest.Sink(other)
			require.NoError(t, err)
			require.Equal(t, m.sent-1, d.N)
			n, err := actor.Read(make([]byte, 1))
			require.Zero(t, n)
			require.Equal(t, io.EOF, err)
			require.NoError(t, other.Close())
			g.gone(time.Second)
		})
	}
}

// TestClientLeavesWhileItsServerIsConnecting: a client that closes, or resets,
// before its server has answered is gone at once, and that counts against
// nobody. It fails if waiting does not finish the session, or if account books
// anything but OutcomeClientGone.
func TestClientLeavesWhileItsServerIsConnecting(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(net.Conn) error{"fin": net.Conn.Close, "rst": smtptest.Abort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hole := smtptest.NewServer(t, smtptest.Script{})
			require.NoError(t, hole.Blackhole(true))
			g := newRig(t, []string{hole.Addr(), smtptest.Refused(t)}, func(p *plan) { p.servers[1].Backup = true })
			c := g.dial()
			require.True(t, g.comes(connecting))
			require.NoError(t, leave(c))
			g.gone(time.Second)
			for _, s := range g.group.Snapshot(g.Seconds()) {
				require.Zero(t, s.Fails, s.Name)
				require.Zero(t, s.Conns, s.Name)
			}
			require.Equal(t, uint64(1), g.Stats().Attempts)
		})
	}
}

// TestClientThatHasSaidAllItWants is printf 'QUIT' | nc: bytes and the end of
// the stream are there before the server is connected, and the client still gets
// the whole answer. It fails if waiting takes the end of a stream with bytes in
// it for a client that has left, or if passEnd closes both sides.
func TestClientThatHasSaidAllItWants(t *testing.T) {
	t.Parallel()
	srv := smtptest.NewServer(t, smtptest.Script{Name: "mx"})
	require.NoError(t, srv.Blackhole(true))
	g := newRig(t, []string{srv.Addr()})
	c := g.dial()
	_, err := c.Write([]byte("NOOP\r\nQUIT\r\n"))
	require.NoError(t, err)
	require.NoError(t, smtptest.CloseWrite(c))
	require.True(t, g.comes(func(s *session) bool { return s.state == stateConnecting && s.client.hup }))
	require.NoError(t, srv.Blackhole(false)) // the SYN is repeated after a second
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Regexp(t, `^220 .*\r\n250 .*\r\n221 .*\r\n$`, string(answer))
	g.gone(time.Second)
}

// TestResetIsMirrored: a peer whose counterpart was reset is reset, too, and not
// told that all is well; but not before it has everything that was sent before
// the reset. It fails if part does not abort.
func TestResetIsMirrored(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	g := newRig(t, []string{l.Addr().String()})
	for _, side := range []string{"client", "server"} {
		actor, other := g.pair(l)
		if side == "server" {
			actor, other = other, actor
		}
		m := &match{actor: actor, other: other}
		require.NoError(t, m.pass(1000))
		require.True(t, g.comes(func(s *session) bool {
			return reactor.Unsent(int(s.client.fd)) == 0 && reactor.Unsent(int(s.server.fd)) == 0
		}))
		require.NoError(t, smtptest.Abort(actor))
		_, err := other.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET, side)
		g.gone(time.Second)
	}
	require.Equal(t, causeClientReset.String(), g.accounts()[0].end)
	require.Equal(t, causeServerReset.String(), g.accounts()[1].end)
}

// TestWordsThatComeTooLate: a peer says its last and closes, as a server does
// with 421, and the other's words, on their way by then, are answered by a reset.
// The stream had come to its end before: the other gets the last words and that
// end, and is not reset while it still speaks. It fails if lost takes every failed
// write for a reset unless the end was read.
func TestWordsThatComeTooLate(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp")
			g := newRig(t, []string{l.Addr().String()})
			actor, other := g.pair(l)
			if side == "server" {
				actor, other = other, actor
			}
			m := &match{actor: actor, other: other}
			require.NoError(t, m.pass(1))
			thaw := freeze(g.workers...)
			_, err := other.Write(make([]byte, 100<<10)) // first: a loop reads it first, and has more than one write of it
			require.NoError(t, err)
			_, err = io.WriteString(actor, goodbye)
			require.NoError(t, err)
			require.NoError(t, actor.Close())
			thaw()
			got, err := io.ReadAll(other)
			require.NoError(t, err)
			require.Equal(t, goodbye, string(got))
			require.NoError(t, other.Close())
			g.gone(patience)
			require.Equal(t, side+" closed", g.accounts()[0].end)
		})
	}
}

// TestLastReplyIsDelivered is T15 without the distance: the server sends its
// last reply and ends, while the client has sent what nobody reads any more.
// Closing a socket with unread bytes makes the kernel send a reset and throw
// away the reply (RFC 2525 section 2.17). It fails if part closes instead of
// lingering.
func TestLastReplyIsDelivered(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		halfClose bool
		end       func(net.Conn) error
	}{
		"closed":      {true, net.Conn.Close}, // a reset, as it has not read all
		"half-closed": {false, smtptest.CloseWrite},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
			g := newRig(t, []string{l.Addr().String()}, func(p *plan) { p.HalfClose = row.halfClose })
			var sessions []*match
			for range 50 {
				m := &match{}
				m.actor, m.other = g.pair(l, smtptest.RcvBuf(16<<10))
				sessions = append(sessions, m)
			}
			g.each(narrow)
			parallel(t, len(sessions), len(sessions), func(i int) error {
				return sessions[i].lastReply(g, row.end)
			})
		})
	}
}

// lastReply is a session of TestLastReplyIsDelivered. The reply is more than
// the client's kernel takes before the client reads.
func (m *match) lastReply(g *rig, end func(net.Conn) error) error {
	// What the server's socket, ours and a pipe take, and then some that stays
	// unread at our door; less than is discarded before the session gives up.
	if _, err := m.actor.Write(make([]byte, 200<<10)); err != nil {
		return err
	}
	if !g.comes(of(m.actor, func(s *session) bool { return s.up.holds() && s.client.readable })) {
		return errors.New("everything sent was read")
	}
	reply := bytes.Repeat([]byte("221 2.0.0 Bye\r\n"), 40<<10/15)
	if _, err := m.other.Write(reply); err != nil {
		return err
	}
	if err := end(m.other); err != nil {
		return err
	}
	if !soon(func() bool { return !g.any(of(m.actor, relaying)) }) {
		return errors.New("the session goes on")
	}
	got, err := io.ReadAll(m.actor)
	if !bytes.Equal(reply, got) {
		return fmt.Errorf("want a reply of %d bytes, got %d: %w", len(reply), len(got), err)
	}
	return err
}

// TestIdleTimeoutCountsFromTheLastByte keeps a session alive with a byte now and
// then, either way, for longer than its time-out. It fails if relay does not
// note progress.
func TestIdleTimeoutCountsFromTheLastByte(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	const timeout = 2 * time.Second
	g := newRig(t, []string{l.Addr().String()}, func(p *plan) { p.Timeout = timeout })
	client, server := g.pair(l)
	var last time.Time
	begin := time.Now()
	for tick := time.NewTicker(timeout / 4); time.Since(begin) < 3*timeout; <-tick.C {
		m := &match{actor: client, other: server}
		require.NoError(t, m.pass(1))
		last = time.Now()
		client, server = server, client
	}
	_, err := client.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.GreaterOrEqual(t, time.Since(last), timeout-timeout/4)
	require.Less(t, time.Since(last), timeout+patience)
	require.Equal(t, causeIdle.String(), g.accounts()[0].end)
}
