package stream

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// queueing has sessions wait for servers that each take one at a time.
func queueing(p *plan) {
	p.queue, p.QueueTimeout = 100, patience
	for i := range p.servers {
		p.servers[i].MaxConns = 1
	}
}

func waitsInQueue(s *session) bool { return s.state == stateQueue }

// The only server is full. A session waits for it, and is told nothing; it gets
// the server when the other one ends, leaves unnoticed if its client does, and
// is refused when its time is up.
//
// Fails if it is refused at once, is not woken, is not let go with its client, or
// is never refused.
func TestQueue(t *testing.T) {
	t.Parallel()
	const queueTimeout = 1500 * time.Millisecond
	for name, test := range map[string]struct {
		option func(*plan)
		then   func(t *testing.T, g *rig, c net.Conn, release func())
	}{
		"gets the server": {nil, func(t *testing.T, g *rig, c net.Conn, release func()) {
			release()
			requireGreeted(t, c)
			require.Zero(t, g.group.Waiting())
		}},
		"client leaves": {nil, func(t *testing.T, g *rig, c net.Conn, _ func()) {
			require.NoError(t, smtptest.Abort(c))
			g.gone(patience)
			require.Equal(t, "client reset", g.accounts()[0].end)
			require.Zero(t, g.group.Waiting())
		}},
		"client leaves as it gets the server": {nil, func(t *testing.T, g *rig, c net.Conn, release func()) {
			thaw := freeze(g.workers...)
			release()
			require.NoError(t, smtptest.Abort(c))
			thaw()
			g.gone(patience)
			require.Zero(t, g.group.Snapshot(g.Seconds())[0].Conns)
		}},
		"time is up": {func(p *plan) { p.QueueTimeout = queueTimeout }, func(t *testing.T, g *rig, c net.Conn, _ func()) {
			begun := time.Now()
			saw, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, limitReply, string(saw))
			require.Greater(t, time.Since(begun), queueTimeout/2)
			require.Equal(t, "queue time-out", g.accounts()[0].end)
		}},
		"time is up as it gets the server": {func(p *plan) { p.QueueTimeout = queueTimeout }, func(t *testing.T, g *rig, c net.Conn, release func()) {
			thaw := freeze(g.workers...)
			time.Sleep(queueTimeout)
			release()
			thaw()
			requireGreeted(t, c)
		}},
		"stop": {nil, func(t *testing.T, g *rig, c net.Conn, _ func()) {
			g.CutIdle()
			saw, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, shutdownReply, string(saw))
			require.Zero(t, g.group.Waiting())
		}},
		"early talker is passed on": {nil, func(t *testing.T, g *rig, c net.Conn, release func()) {
			say(t, c, early)
			require.True(t, g.comes(of(c, func(s *session) bool { return s.client.readable && waitsInQueue(s) })))
			release()
			requireGreeted(t, c)
		}},
		"early talker is refused": {pregreet(PregreetReject), func(t *testing.T, _ *rig, c net.Conn, _ func()) {
			say(t, c, early)
			saw, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, pregreetReply, string(saw))
		}},
		"TLS is no early talker": {pregreet(PregreetReject), func(t *testing.T, g *rig, c net.Conn, release func()) {
			say(t, c, "\x16\x03\x01")
			require.True(t, g.comes(of(c, func(s *session) bool { return s.client.readable && waitsInQueue(s) })))
			release()
			requireGreeted(t, c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := []func(*plan){gated, queueing, func(p *plan) { p.Workers = 2 }}
			if test.option != nil {
				options = append(options, test.option)
			}
			g := newRig(t, []string{newWitness(t, good).addr}, options...)
			release := g.hold()
			defer release()
			c := g.dial()
			require.True(t, g.comes(of(c, waitsInQueue)))
			test.then(t, g, c, release)
		})
	}
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(t, err)
}

func requireGreeted(t *testing.T, c net.Conn) {
	t.Helper()
	saw, _, err := readUntil(c, goodGreeting, false)
	require.NoError(t, err)
	require.Equal(t, goodGreeting, saw[:min(len(saw), len(goodGreeting))])
}

// A session finds its first server dead, or too busy, and the other one full: it
// waits for that.
//
// Fails if it is refused, or is passed the first one's refusal.
func TestQueueForAnotherServer(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(t *testing.T) string{
		"dead": func(t *testing.T) string { return smtptest.Refused(t) },
		"busy": func(t *testing.T) string { return newWitness(t, greet("421 4.3.2 too busy\r\n")).addr },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := newWitness(t, good).addr
			g := newRig(t, []string{other, first(t)}, gated, queueing, func(p *plan) { p.Workers = 2 })
			release := g.hold()
			require.Equal(t, 1, g.status()[other].Conns)
			c := g.dial()
			require.True(t, g.comes(of(c, waitsInQueue)))
			release()
			requireGreeted(t, c)
		})
	}
}

// A session has waited for longer than it may try servers. It is given a dead one
// then, waits for the other, and has time for its greeting. Its time in the queue
// goes on where it was.
//
// Fails if time in the queue counts as trying, for a further server (timeLeft) or
// for the one that is tried (within), or if each wait has a time-out of its own.
func TestQueueIsNotTrying(t *testing.T) {
	t.Parallel()
	const nextTimeout = 3 * time.Second
	for _, queueTimeout := range []time.Duration{4 * nextTimeout, nextTimeout + nextTimeout/2} {
		slow := newWitness(t, after(func(*visit) bool { time.Sleep(200 * time.Millisecond); return true }, good)).addr
		g := newRig(t, []string{smtptest.Refused(t), slow}, gated, queueing, func(p *plan) {
			p.NextTimeout, p.QueueTimeout = nextTimeout, queueTimeout
		})
		giveDead, giveSlow := g.hold(), g.hold()
		c := g.dial()
		require.True(t, g.comes(of(c, waitsInQueue)))
		time.Sleep(nextTimeout + 100*time.Millisecond)
		giveDead()
		require.True(t, g.comes(of(c, func(s *session) bool { return s.waited > 0 && waitsInQueue(s) })))
		if queueTimeout > 2*nextTimeout {
			giveSlow()
			requireGreeted(t, c)
			continue
		}
		begun := time.Now()
		saw, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, limitReply, string(saw))
		require.Less(t, time.Since(begun), nextTimeout)
		giveSlow()
	}
}

// One server is full, the other one was out for a failure, and nothing happens
// but that its time is over: the session that waits gets it.
//
// Fails if sessions in the queue do not have the group look at the clock.
func TestQueueByTheClock(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{newWitness(t, good).addr, newWitness(t, good).addr}, gated, queueing, func(p *plan) {
		p.servers[1].FailTimeout = 1
	})
	defer g.hold()()
	var turn upstream.Turn
	g.group.Begin(&turn)
	g.group.Next(&turn, g.Seconds()).Release(&turn, upstream.OutcomeRefused, g.Seconds())
	c := g.dial()
	require.True(t, g.comes(of(c, waitsInQueue)))
	requireGreeted(t, c)
}

// Clients come, wait, leave and are served on two loops, faster than there are
// places. All who stay are greeted, and no server sees two at a time.
//
// Fails if a wake that comes late is taken for another session, or a place is
// lost on the way between loops.
func TestQueueBetweenLoops(t *testing.T) {
	t.Parallel()
	a, b := newWitness(t, good), newWitness(t, good)
	g := newRig(t, []string{a.addr, b.addr}, gated, queueing, func(p *plan) { p.Workers = 2 })
	parallel(t, 300, 30, func(i int) error {
		c, err := g.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		if i%3 == 0 {
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			return smtptest.Abort(c)
		}
		saw, _, err := readUntil(c, goodGreeting, false)
		if err == nil && saw != goodGreeting {
			err = fmt.Errorf("got %q", saw)
		}
		return err
	})
	g.gone(patience)
	require.Zero(t, g.group.Waiting())
	for _, s := range g.group.Snapshot(g.Seconds()) {
		require.Equal(t, upstream.StateUp, s.State)
	}
}

// The queue is full: the next client is told at once, in the log's words of either
// kind.
//
// Fails if it waits, or the log does not say why.
func TestQueueIsFull(t *testing.T) {
	t.Parallel()
	for _, nginx := range []bool{false, true} {
		g := newRig(t, []string{newWitness(t, good).addr}, gated, queueing, func(p *plan) { p.queue, p.NginxLog = 1, nginx })
		release := g.hold()
		first := g.dial()
		require.True(t, g.comes(of(first, waitsInQueue)))
		saw, err := io.ReadAll(g.dial())
		require.NoError(t, err)
		require.Equal(t, limitReply, string(saw))
		said := "queue is full"
		if nginx {
			said = "*2 queue is full while connecting to upstream, client: 127.0.0.1, server: " + g.port.name +
				`, upstream: "test", bytes from/to client:0/0, bytes from/to upstream:0/0`
		}
		require.Equal(t, 1, g.logs.FilterMessage(said).Len(), "%v", g.logs.All())
		release()
		requireGreeted(t, first)
	}
}

// The queue is full of one client's sessions, and another client comes: the latest
// of them is told what the other one would have been told, and the other one gets
// a server. They are on two loops.
//
// Fails if the session that gives way is not told, is told to wait, or is logged
// as anything else.
func TestQueueGivesWay(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{newWitness(t, good).addr}, gated, queueing, func(p *plan) { p.queue, p.Workers = 2, 2 })
	release := g.hold()
	first := g.dial()
	require.True(t, g.comes(of(first, waitsInQueue)))
	latest := g.dial()
	require.True(t, g.comes(of(latest, waitsInQueue)))
	other := g.dialFrom("127.0.0.2")
	saw, err := io.ReadAll(latest)
	require.NoError(t, err)
	require.Equal(t, limitReply, string(saw))
	require.Equal(t, "queue full", g.accounts()[0].end)
	require.True(t, g.any(of(first, waitsInQueue)))
	release()
	requireGreeted(t, first)
	require.NoError(t, smtptest.Abort(first))
	requireGreeted(t, other)
	require.Zero(t, g.group.Waiting())
}
