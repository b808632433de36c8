package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/smtptest"
)

// TestPanicEndsOneSession is the first part of T24: the handler of one of 1,000
// live sessions panics, with bytes in its pipe. That session is gone with
// everything it held, and nothing else has noticed.
//
// It fails if event has no guard (the process dies), if guard does not drop the
// halves (a pipe is not back), does not hang up (descriptors are left) or does
// not account (its server still has the session).
func TestPanicEndsOneSession(t *testing.T) {
	const sessions = 1000
	var victim atomic.Uint32 // its port
	l := listen(t, "tcp", smtptest.RcvBuf(16<<10))
	g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
		p.noise = true
		p.Workers = 2
		p.prepare = func(w *worker) {
			w.engine.onEvent = func(s *session) {
				if uint32(s.from.Port()) == victim.Load() {
					panic("injected")
				}
			}
		}
	})
	before := len(smtptest.FDs(t, os.Getpid()))
	matches := make([]match, sessions)
	for i := range matches {
		matches[i].actor, matches[i].other = g.pair(l)
		require.NoError(t, matches[i].pass(10))
	}
	each := (len(smtptest.FDs(t, os.Getpid())) - before) / sessions
	require.Equal(t, 4, each, "descriptors of a session and of its peers")

	lost := &matches[sessions/2]
	g.each(narrow)
	require.NoError(t, lost.fill())
	require.True(t, g.any(func(s *session) bool { return s.up.piped > 0 }))
	victim.Store(uint32(lost.actor.LocalAddr().(*net.TCPAddr).Port))
	_, err := lost.other.Write([]byte("x"))
	require.NoError(t, err)
	for _, c := range []net.Conn{lost.actor, lost.other} {
		_, err := io.Copy(io.Discard, c)
		require.True(t, err == nil || errors.Is(err, syscall.ECONNRESET), err)
	}
	smtptest.Eventually(t, shortly, "one session is gone", func() bool { return g.Sessions() == sessions-1 })
	require.Equal(t, sessions-1, g.group.Snapshot(g.Seconds())[0].Conns)
	require.Equal(t, 1, g.logs.FilterMessageSnippet("panicked").Len())
	require.Contains(t, g.logs.FilterMessageSnippet("panicked").All()[0].ContextMap()["stack"], "TestPanicEndsOneSession")
	require.Equal(t, causeInternal.String(), g.accounts()[0].end)

	for i := range matches {
		m := &matches[i]
		if m == lost {
			continue
		}
		require.NoError(t, m.pass(10))
		m.actor, m.other = m.other, m.actor
		require.NoError(t, m.pass(10))
		require.NoError(t, m.actor.Close())
		_, err := io.Copy(io.Discard, m.other)
		require.NoError(t, err)
		require.NoError(t, m.other.Close())
	}
	g.gone(shortly)
	lost.actor.Close()
	lost.other.Close()
	smtptest.Eventually(t, shortly, "no descriptor left but pipes", func() bool {
		pipes := 0
		g.ask(func(w *worker) { pipes += 2 * w.loop.Pipes.Open() })
		return len(smtptest.FDs(t, os.Getpid())) <= before+pipes
	})
}

// TestPanicWhileConnectingEndsOneSession has nothing to relay yet, and a server
// that must be given back. It fails if guard does not account.
func TestPanicWhileConnectingEndsOneSession(t *testing.T) {
	t.Parallel()
	hole := smtptest.NewServer(t, smtptest.Script{})
	require.NoError(t, hole.Blackhole(true))
	g := newRig(t, []string{hole.Addr()}, func(p *plan) {
		p.noise = true
		p.prepare = func(w *worker) {
			w.engine.onEvent = func(s *session) {
				if s.state == stateConnecting && s.client.readable {
					panic("injected")
				}
			}
		}
	})
	c := g.dial()
	require.True(t, g.comes(connecting))
	for range 2 { // the first is noted after the hook has looked
		_, _ = c.Write([]byte("x"))
		require.True(t, soon(func() bool { return g.Sessions() == 0 || g.any(func(s *session) bool { return s.client.readable }) }))
	}
	g.gone(shortly)
	require.Zero(t, g.group.Snapshot(g.Seconds())[0].Conns)
}

// TestPanicBetweenTwoServersEndsOneSession: the session still has a server that
// does not greet, and has the next one already. It fails if account gives back
// only the first.
func TestPanicBetweenTwoServersEndsOneSession(t *testing.T) {
	t.Parallel()
	hung, next := newWitness(t, silent), newWitness(t, good)
	g := newRig(t, []string{hung.addr, next.addr}, gated, backups, func(p *plan) {
		p.noise = true
		p.Logger = p.Logger.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if strings.HasSuffix(e.Message, "asking another server") {
				panic("injected")
			}
			return nil
		}))
	})
	c := g.dial()
	_, _ = io.Copy(io.Discard, c)
	g.gone(patience)
	require.Equal(t, 1, g.logs.FilterMessageSnippet("panicked").Len())
	for _, s := range g.group.Snapshot(g.Seconds()) {
		require.Zero(t, s.Conns, s.Name)
	}
}

// TestSpinningSessionIsEnded makes a loop come back to a session again and again
// without a byte moving, as a mistake of ours or an oddity of a kernel would. It
// fails if relay does not ask spins.
func TestSpinningSessionIsEnded(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	var spinning atomic.Uint32 // its port
	g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
		p.noise = true
		p.prepare = func(w *worker) {
			w.engine.onEvent = func(s *session) {
				if uint32(s.from.Port()) == spinning.Load() {
					w.loop.Again(s.clientToken())
				}
			}
		}
	})
	bad, _ := g.pair(l)
	client, server := g.pair(l)
	good := &match{actor: client, other: server}
	require.NoError(t, good.pass(1))
	spinning.Store(uint32(bad.LocalAddr().(*net.TCPAddr).Port))
	_, err := bad.Write([]byte("x"))
	require.NoError(t, err)
	_, err = bad.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.NoError(t, good.pass(1))
	messages := g.logs.FilterMessageSnippet("spins").All()
	require.Len(t, messages, 1)
	require.True(t, strings.HasPrefix(messages[0].ContextMap()["client"].(string), "127.0.0.1:"))
}
