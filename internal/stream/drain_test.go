package stream

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// TestCloseServesTheBacklog closes a port behind which clients wait that the
// kernel has accepted and nobody else has, more than the session limit leaves
// room for. All are served in their turn, sessions go on, and only then is the
// port closed. It fails if drainPort closes without accepting, or without
// waiting for room.
func TestCloseServesTheBacklog(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, []string{serve(t, smtptest.Echo)}, func(p *plan) {
				p.Workers, p.MaxSessions = 2, 30
				if network == "unix" {
					p.listen = "unix:" + t.TempDir() + "/port"
				}
			})
			clients := []net.Conn{g.dial()}
			require.NoError(t, ping(clients[0]))
			thaw := freeze(g.workers...)
			for range 100 {
				clients = append(clients, g.dial())
			}
			closed := g.Close(g.port)
			thaw()
			smtptest.Eventually(t, patience, "there is no room", func() bool { return g.full() })
			_, err := g.connect()
			require.Error(t, err, "a new client while the port is closing")
			for _, c := range clients {
				require.NoError(t, ping(c))
				require.NoError(t, c.Close())
			}
			await(t, patience, closed, "the port did not close")
		})
	}
}

// talks are sessions at the moments at which a stop may find them.
type talks struct {
	*rig
	l net.Listener
}

func newTalks(t *testing.T, options ...func(*plan)) *talks {
	l := listen(t, "tcp")
	return &talks{newRig(t, []string{l.Addr().String()}, options...), l}
}

// serverSpoke is a session in which the client is to speak next.
func (k *talks) serverSpoke() (client, server net.Conn) {
	client, server = k.pair(k.l)
	require.NoError(k.t, (&match{actor: client, other: server}).pass(10))
	require.NoError(k.t, (&match{actor: server, other: client}).pass(10))
	return client, server
}

// clientSpoke is a session in which the server owes an answer.
func (k *talks) clientSpoke() (client, server net.Conn) {
	client, server = k.serverSpoke()
	require.NoError(k.t, (&match{actor: client, other: server}).pass(10))
	return client, server
}

// ended shows that a peer gets the end of its stream, and nothing before.
func ended(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		n, err := c.Read(make([]byte, 1))
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)
	}
}

// owed shows that a server that was told the end of the stream can still answer,
// and that its client gets the answer and then the end.
func owed(t *testing.T, client, server net.Conn) {
	t.Helper()
	ended(t, server)
	require.NoError(t, (&match{actor: server, other: client}).pass(10))
	require.NoError(t, server.Close())
	ended(t, client)
	require.NoError(t, client.Close())
}

// TestCutIdle ends the sessions that nobody owes anything, and lets the others
// have their answer. It fails if cut does not look at downLast, or if relay does
// not keep it.
func TestCutIdle(t *testing.T) {
	t.Parallel()
	k := newTalks(t)
	idleClient, idleServer := k.serverSpoke()
	client, server := k.clientSpoke()
	require.Equal(t, Cut{Idle: 1, InGap: 1}, k.CutIdle())
	ended(t, idleClient, idleServer)
	require.NoError(t, idleClient.Close())
	require.NoError(t, idleServer.Close())
	smtptest.Eventually(t, shortly, "one session left", func() bool { return k.Sessions() == 1 })
	owed(t, client, server)
	k.gone(shortly)
}

// TestCutIdleWithoutServer: a session whose server is not connected yet is owed
// nothing, and its server not blamed. It fails if cut half-closes it.
func TestCutIdleWithoutServer(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{hole(t), hole(t)})
	c := g.dial()
	require.True(t, g.comes(connecting))
	require.Equal(t, Cut{Idle: 1}, g.CutIdle())
	ended(t, c)
	require.NoError(t, c.Close())
	g.gone(shortly)
	for _, s := range g.status() {
		require.Zero(t, s.Fails, s.Name)
	}
}

// TestHalfClose tells every server that nothing more comes, also where the route
// has half-close off, and reads no client any more. It fails if passEnd does not
// look at draining, or halfClose does not set eof.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]bool{"on": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalks(t, func(p *plan) { p.HalfClose = on })
			idleClient, idleServer := k.serverSpoke()
			client, server := k.clientSpoke()
			require.Equal(t, Cut{InGap: 2}, k.HalfClose())
			for _, c := range []net.Conn{idleClient, client} {
				_, err := c.Write([]byte("too late"))
				require.NoError(t, err)
			}
			owed(t, idleClient, idleServer)
			owed(t, client, server)
			k.gone(shortly)
			for _, a := range k.accounts() {
				require.Equal(t, causeShutdown.String(), a.end)
				require.Equal(t, a.fromClient, a.toServer)
			}
		})
	}
}

// TestHalfCloseDeliversWhatWasRead stops in the middle of a message, with a full
// pipe: the server gets every byte that was read from the client, then the end.
// It fails if halfClose drops what the half holds.
func TestHalfCloseDeliversWhatWasRead(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
	g := newRig(t, []string{l.Addr().String()})
	client, server := g.pair(l)
	m := &match{actor: client, other: server}
	require.NoError(t, m.pass(1))
	g.each(narrow)
	require.NoError(t, m.fill())
	var read int64
	g.each(func(s *session) { read = s.up.in })
	require.Equal(t, Cut{InGap: 1}, g.CutIdle())
	d, err := smtptest.Sink(server)
	require.NoError(t, err)
	require.Equal(t, read, m.got+d.N)
	require.NoError(t, server.Close())
	require.NoError(t, client.Close())
	g.gone(shortly)
	require.Equal(t, read, g.accounts()[0].toServer)
}

// TestEndDeliversTheLastReply ends everything while a reply is on its way to a
// client that reads slowly, and what the client has sent is not read any more.
// It fails if part closes instead of lingering.
func TestEndDeliversTheLastReply(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
	g := newRig(t, []string{l.Addr().String()})
	client, server := g.pair(l, smtptest.RcvBuf(16<<10))
	m := &match{actor: client, other: server}
	require.NoError(t, m.pass(1))
	g.each(narrow)
	err := m.lastReply(g, func(net.Conn) error {
		if !g.comes(func(s *session) bool { return s.down.in > 0 && !s.down.holds() }) {
			return errors.New("the reply is not out")
		}
		require.Equal(t, 1, g.End())
		require.Zero(t, g.End(), "it has ended already")
		return nil
	})
	require.NoError(t, err)
}

// TestDrained: the channel closes when the last session is gone, and at once if
// there is none, for whoever asks and however often. It fails if leave does not
// close it, or if who asks later takes the place of who asked before.
func TestDrained(t *testing.T) {
	t.Parallel()
	k := newTalks(t)
	await(t, shortly, k.Drained(), "nobody was there")
	client, server := k.serverSpoke()
	first, second := k.Drained(), k.Drained()
	select {
	case <-first:
		require.Fail(t, "drained with a session")
	case <-second:
		require.Fail(t, "drained with a session")
	case <-time.After(50 * time.Millisecond):
	}
	client.Close()
	server.Close()
	await(t, shortly, first, "the first to ask was not told")
	await(t, shortly, second, "the second to ask was not told")
}
