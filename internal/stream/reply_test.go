package stream

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// told reads a reply of ours, says something more, as a client may that has not
// read yet, and wants the end of the stream and no reset.
func told(c net.Conn, want string) error {
	saw, _, err := readUntil(c, want, false)
	if err != nil || saw != want {
		return fmt.Errorf("want %q, got %q (%w)", want, saw, err)
	}
	if _, err := io.WriteString(c, quit); err != nil {
		return fmt.Errorf("write behind %q: %w", want, err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		return fmt.Errorf("want the end behind %q, got %q (%w)", want, rest, err)
	}
	return nil
}

// T8: while all servers are down, every client reads the whole reply and then
// the end of the stream, also one that talks all the time. It fails if finish
// closes at once instead of lingering: unread words are then answered by a
// reset, which destroys the reply.
func TestAllServersDown(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{smtptest.Refused(t), smtptest.Refused(t)}, gated)
	parallel(t, 1000, 32, func(i int) error {
		c, err := g.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := io.WriteString(c, early); err != nil {
				return err
			}
		}
		return told(c, unavailableReply)
	})
	g.gone(patience)
	for _, a := range g.accounts() {
		require.Equal(t, int64(len(unavailableReply)), a.toClient)
	}
}

// Above the session limit a client is told so, while there is room to tell it;
// all others wait in the backlog until there is. It fails if accept pauses at
// the limit, never does, or goes on only when there is room for a session.
func TestSessionLimitReply(t *testing.T) {
	t.Parallel()
	const limit = 2
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, func(p *plan) { p.MaxSessions = limit })
	var inside []net.Conn
	for range limit {
		c := g.dial()
		_, _, err := readUntil(c, goodGreeting, false)
		require.NoError(t, err)
		inside = append(inside, c)
	}
	for i := range 3 * refusals {
		c := g.dial()
		if i%2 == 0 {
			_, err := io.WriteString(c, early)
			require.NoError(t, err)
		}
		require.NoError(t, told(c, limitReply))
		c.Close()
		smtptest.Eventually(t, patience, "the refused client is gone", func() bool { return g.Sessions() == limit })
	}
	for range refusals { // they read their reply, and stay
		c := g.dial()
		_, _, err := readUntil(c, limitReply, false)
		require.NoError(t, err)
		inside = append(inside, c)
	}
	waiting := g.dial()
	smtptest.Eventually(t, patience, "accepting pauses", func() bool {
		paused := false
		g.ask(func(w *worker) { paused = w.paused })
		return paused
	})
	require.Equal(t, limit+refusals, g.Sessions())
	for _, c := range inside[limit:] { // those told have gone: there is room to tell
		c.Close()
	}
	require.NoError(t, told(waiting, limitReply))
	waiting.Close()
	for _, c := range inside[:limit] {
		c.Close()
	}
	g.gone(patience)
	_, _, err := readUntil(g.dial(), goodGreeting, false)
	require.NoError(t, err)
}

// At a stop, whoever has no server yet is told so; whoever has one sees nothing
// but its end. It fails if end says the reply to all, or to nobody.
func TestShutdownReply(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*rig){
		"cut idle": func(g *rig) { g.CutIdle() },
		"end":      func(g *rig) { g.End() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hung, works := newWitness(t, silent), newWitness(t, good)
			g := newRig(t, []string{works.addr, hung.addr}, gated, pregreet(PregreetHold), backups, func(p *plan) {
				p.servers[0].MaxConns = 1
			})
			has := g.dial()
			_, _, err := readUntil(has, goodGreeting, false)
			require.NoError(t, err)
			var waits []net.Conn
			for i := range 2 {
				c := g.dial()
				require.True(t, g.comes(of(c, func(s *session) bool { return s.state == stateGreeting })))
				if i == 1 {
					_, err := io.WriteString(c, early)
					require.NoError(t, err)
				}
				waits = append(waits, c)
			}
			stop(g)
			for _, c := range waits {
				require.NoError(t, told(c, shutdownReply))
				c.Close()
			}
			rest, err := io.ReadAll(has)
			require.NoError(t, err)
			require.Empty(t, string(rest))
			has.Close()
			g.gone(patience)
			for _, s := range g.group.Snapshot(g.Seconds()) {
				require.Zero(t, s.Fails)
			}
			require.Empty(t, last(hung.seen()).got())
		})
	}
}
