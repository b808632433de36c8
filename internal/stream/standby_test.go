package stream

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// checked has the servers of a rig probed by the test, and each take one
// connect at a time while it recovers.
func checked(p *plan) {
	p.checked = true
	for i := range p.servers {
		p.servers[i].MaxPending, p.servers[i].SlowStart = 1, 3600
	}
}

// recover takes the rig's servers out and back again.
func (g *rig) recover() {
	for _, s := range g.group.Snapshot(g.Seconds()) {
		s.Peer.Probed(upstream.Probe{State: upstream.StateUnhealthy}, g.Seconds())
		s.Peer.Probed(upstream.Probe{Good: true, State: upstream.StateUp}, g.Seconds())
	}
}

// hold is a connect to the rig's server that is under way until it is released.
func (g *rig) hold() (release func()) {
	turn := new(upstream.Turn)
	g.group.Begin(turn)
	p := g.group.Next(turn, g.Seconds())
	require.NotNil(g.t, p)
	return sync.OnceFunc(func() { p.Release(turn, upstream.OutcomeUnjudged, g.Seconds()) })
}

// The only server recovers, and a connect to it is under way. A session waits
// for it, and is told nothing; it gets the server when that is over, leaves
// unnoticed if its client does, and is refused when its time is up.
//
// Fails if a session on standby is refused at once, is not woken, is not let go
// with its client, or is never refused.
func TestStandby(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(t *testing.T, g *rig, c net.Conn, release func()){
		"gets the server": func(t *testing.T, _ *rig, c net.Conn, release func()) {
			release()
			saw, _, err := readUntil(c, goodGreeting, false)
			require.NoError(t, err)
			require.Equal(t, goodGreeting, saw)
		},
		"client leaves": func(t *testing.T, g *rig, c net.Conn, _ func()) {
			require.NoError(t, smtptest.Abort(c))
			g.gone(patience)
			require.Equal(t, "client reset", g.accounts()[0].end)
		},
		"time is up": func(t *testing.T, _ *rig, c net.Conn, _ func()) {
			saw, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, unavailableReply, string(saw))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, []string{newWitness(t, good).addr}, gated, checked, func(p *plan) { p.NextTimeout = 4 * time.Second })
			g.recover()
			release := g.hold()
			defer release()
			c := g.dial()
			require.True(t, g.comes(of(c, func(s *session) bool { return s.state == stateStandby })))
			then(t, g, c, release)
		})
	}
}

// A slow server is all there is beside one that is out by its checks: the
// session stays with it, and gets its greeting however late, or its refusal.
//
// Fails if the server that is out is tried instead.
func TestPatienceBesideAServerThatIsOut(t *testing.T) {
	t.Parallel()
	for want, script := range map[string]func(*visit) bool{
		goodGreeting:                     after(func(*visit) bool { time.Sleep(300 * time.Millisecond); return true }, good),
		"421 4.3.2 slow is too busy\r\n": greet("421 4.3.2 slow is too busy\r\n"),
	} {
		t.Run(want[:3], func(t *testing.T) {
			t.Parallel()
			g := newRig(t, []string{newWitness(t, script).addr, smtptest.Refused(t)}, gated, checked, func(p *plan) {
				p.Gate.Timeout = 100 * time.Millisecond
			})
			g.group.Snapshot(0)[1].Peer.Probed(upstream.Probe{State: upstream.StateUnhealthy}, g.Seconds())
			saw, _, err := readUntil(g.dial(), want, false)
			require.NoError(t, err)
			require.Equal(t, want, saw)
		})
	}
}

// A server that lets a session wait for its greeting is suspect while the
// session still waits for it, and is left for another one in its time only.
//
// Fails if the group is not told, or the session ends then.
func TestLongWaitRaisesSuspicion(t *testing.T) {
	t.Parallel()
	mute := newWitness(t, silent)
	g := newRig(t, []string{mute.addr, newWitness(t, good).addr}, gated, checked, func(p *plan) {
		p.prepare = func(w *worker) { w.doubtAfter = 100 }
		p.Gate.Timeout = patience
	})
	c := g.dial()
	smtptest.Eventually(t, patience, "the server is a suspect", func() bool {
		return g.status()[mute.addr].State == upstream.StateSuspect
	})
	require.True(t, g.comes(of(c, func(s *session) bool { return s.state == stateGreeting })))
	saw, _, err := readUntil(g.dial(), goodGreeting, false)
	require.NoError(t, err)
	require.Equal(t, goodGreeting, saw, "others avoid it")
}
