package stream

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// A server that breaks off at once may do so before the loop has heard of the
// connection: that is no failure to reach it, and so one client alone cannot
// make it count. Fails if judge leaves the outcome as it is.
func TestResetBehindTheConnect(t *testing.T) {
	t.Parallel()
	aborted := make(chan struct{}, 1)
	rude := newWitness(t, func(v *visit) bool {
		_ = smtptest.Abort(v.Conn)
		aborted <- struct{}{}
		return false
	})
	g := newRig(t, []string{rude.addr, newWitness(t, good).addr}, gated, tell(HeaderV1), backups, func(p *plan) {
		p.prepare = func(w *worker) {
			accept := w.calls.accept
			w.calls.accept = func(from *reactor.Sockaddr, l int) (int, syscall.Errno) {
				fd, errno := accept(from, l)
				if errno == 0 {
					w.loop.Post(func() { <-aborted }) // runs when the connect is under way
				}
				return fd, errno
			}
		}
	})
	saw, _, err := readUntil(g.dial(), goodGreeting, false)
	require.NoError(t, err)
	require.Equal(t, goodGreeting, saw)
	require.NotZero(t, g.logs.FilterFieldKey("outcome").Len(), "the reset came too late")
	require.Zero(t, g.group.Snapshot(g.Seconds())[0].Fails)
}

// An early talker whose words are held sees nothing of the server that will
// not have it, and no server sees the words before it has greeted. It fails if
// PregreetHold commits, or loses what was held.
func TestPregreetHold(t *testing.T) {
	t.Parallel()
	greetNow := make(chan struct{})
	busy := newWitness(t, greet("421 4.3.2 busy\r\n"))
	slow := newWitness(t, after(func(*visit) bool { <-greetNow; return true }, good))
	g := newRig(t, []string{busy.addr, slow.addr}, gated, tell(HeaderV2), pregreet(PregreetHold), backups)
	c := g.dial()
	_, err := io.WriteString(c, early+quit)
	require.NoError(t, err)
	header := headerOf(HeaderV2, addrPort(c.LocalAddr()), netip.MustParseAddrPort(g.port.name))
	require.True(t, g.comes(of(c, func(s *session) bool { return s.state == stateGreeting && s.client.readable && s.attempt == 2 })))
	close(greetNow)
	saw, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, goodGreeting+goodAnswer+goodbye, string(saw))
	require.Equal(t, header+quit, last(busy.seen()).got())
	require.Equal(t, header+early+quit, last(slow.seen()).got())
}

// A client that is reset has left, whatever it had said before: what is held
// of it must not hide that. Fails if clientSpoke and waiting ask for no error of
// the socket.
func TestResetBehindHeldWords(t *testing.T) {
	t.Parallel()
	dropped := smtptest.NewServer(t, smtptest.Script{})
	require.NoError(t, dropped.Blackhole(true))
	for name, addr := range map[string]string{"greeting": newWitness(t, silent).addr, "connecting": dropped.Addr()} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, []string{addr}, gated, pregreet(PregreetHold))
			c := g.dial()
			_, err := io.WriteString(c, early)
			require.NoError(t, err)
			require.True(t, g.comes(of(c, func(s *session) bool { return s.client.readable && s.state >= stateConnecting })))
			require.NoError(t, smtptest.Abort(c))
			g.gone(shortly)
			require.Equal(t, "client reset", g.accounts()[0].end)
			require.Zero(t, g.group.Snapshot(g.Seconds())[0].Fails)
		})
	}
}

// Fails if PregreetReject lets a byte through, or says nothing.
func TestPregreetReject(t *testing.T) {
	t.Parallel()
	w := newWitness(t, silent)
	g := newRig(t, []string{w.addr}, gated, pregreet(PregreetReject))
	c := g.dial()
	_, err := io.WriteString(c, early)
	require.NoError(t, err)
	saw, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, pregreetReply, string(saw))
	c.Close()
	g.gone(patience)
	require.Empty(t, last(w.seen()).got())
	require.Zero(t, g.group.Snapshot(g.Seconds())[0].Fails)
}

// A client that begins with a TLS handshake speaks no SMTP yet: it is relayed
// whatever Pregreet says, and never gets a line of ours. Fails if clientSpoke
// does not look for the handshake, or turnAway does not.
func TestTLSIsOpaque(t *testing.T) {
	t.Parallel()
	const hello, answer = "\x16\x03\x01\x00\x05hello", "\x16\x03\x03\x00\x02ok"
	tls := newWitness(t, func(v *visit) bool {
		return v.await(func(got string) bool { return strings.HasSuffix(got, hello) }) && v.say(answer) && smtptest.CloseWrite(v.Conn) == nil
	})
	for _, what := range []Pregreet{PregreetPass, PregreetHold, PregreetReject} {
		g := newRig(t, []string{tls.addr}, gated, pregreet(what))
		c := g.dial()
		_, err := io.WriteString(c, hello)
		require.NoError(t, err)
		saw, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, answer, string(saw))

		dropped := smtptest.NewServer(t, smtptest.Script{})
		require.NoError(t, dropped.Blackhole(true))
		g = newRig(t, []string{dropped.Addr()}, hasty, pregreet(what))
		c = g.dial()
		_, err = io.WriteString(c, hello)
		require.NoError(t, err)
		saw, err = io.ReadAll(c)
		require.NoError(t, err)
		require.Empty(t, string(saw))
	}
}

// The last server's own refusal is passed on: it says more than we could. It
// fails if the reply is ours, and if the first server's is passed on.
func TestLastRefusalIsRelayed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"421 4.3.2 second\r\n", "450 second\r\n", "421 4.7.0 second\r\n", "554-second\r\n554 5.7.1 of two lines\r\n"} {
		w := newWitness(t, greet(text))
		g := newRig(t, []string{newWitness(t, greet("421 4.3.2 first\r\n")).addr, w.addr}, gated, backups)
		c := g.dial()
		saw, _, err := readUntil(c, text, false)
		require.NoError(t, err)
		require.Equal(t, text, saw)
		_, err = io.WriteString(c, quit)
		require.NoError(t, err)
		rest, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, goodbye, string(rest))
		require.Equal(t, quit, last(w.seen()).got())
	}
}

// When all servers hang, each is left in time for the next, the last has what
// is left, and the client is told within the budget. Fails if the last server
// is left after Gate.Timeout, if within does not bound the wait, and if a
// server is blamed that had less than its time.
func TestAllServersHang(t *testing.T) {
	t.Parallel()
	const budget = 3 * time.Second
	for _, c := range []struct {
		name    string
		servers int
		budget  time.Duration
		fails   []int
		option  func(*plan)
	}{
		{"each has its time", 3, budget, []int{1, 1, 1}, nil},
		{"one server", 1, budget, []int{0}, nil}, // an only server's failures are not kept
		{"no further server allowed", 2, budget, []int{1, 0}, func(p *plan) { p.NextUpstream = false }},
		{"two tries", 3, budget, []int{1, 1, 0}, func(p *plan) { p.Tries = 2 }},
		{"the last one's time is cut", 3, 2500 * time.Millisecond, []int{1, 1, 0}, func(p *plan) { p.Gate.Timeout = time.Second }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var addrs []string
			for range c.servers {
				addrs = append(addrs, newWitness(t, silent).addr)
			}
			g := newRig(t, addrs, hasty, func(p *plan) {
				p.NextTimeout = c.budget
				for i := range p.servers {
					p.servers[i].MaxFails = 0
				}
				if c.option != nil {
					c.option(p)
				}
			})
			began := time.Now()
			saw, err := io.ReadAll(g.dial())
			took := time.Since(began)
			require.NoError(t, err)
			require.Equal(t, unavailableReply, string(saw))
			require.GreaterOrEqual(t, took, c.budget-100*time.Millisecond)
			require.Less(t, took, c.budget+patience)
			for i, s := range g.group.Snapshot(g.Seconds()) {
				require.Equal(t, c.fails[i], s.Fails, "server %d", i)
			}
		})
	}
}

// T9: one client that every server refuses, or hangs up on, puts no server out
// and takes no session from others. Fails if any of that is judged as fail.
func TestOneBadClientHarmsNobody(t *testing.T) {
	t.Parallel()
	const bad, sessions = "127.0.66.6", 2000
	picky := func(v *visit) bool {
		if !v.await(func(got string) bool { return strings.Contains(got, "\r\n") }) {
			return false
		}
		if !strings.Contains(v.got(), " "+bad+" ") {
			return good(v)
		}
		port := addrPort(v.RemoteAddr()).Port()
		switch port % 4 {
		case 0:
			return v.say("554 5.7.1 go away\r\n")
		case 1:
			return v.say("421 4.7.0 too many\r\n")
		case 2:
			_ = smtptest.Abort(v.Conn)
		}
		return false
	}
	g := newRig(t, []string{newWitness(t, picky).addr, newWitness(t, picky).addr, newWitness(t, picky).addr},
		gated, tell(HeaderV1), func(p *plan) {
			for i := range p.servers {
				p.servers[i].MaxFails = 1
			}
		})
	parallel(t, sessions+sessions/10, 16, func(i int) error {
		from := bad
		if i%11 == 0 {
			from = fmt.Sprintf("127.0.1.%d", 1+i/11%250)
		}
		c, err := g.connectFrom(from)
		if err != nil {
			return err
		}
		defer c.Close()
		if from == bad {
			b := make([]byte, 64)
			if n, _ := c.Read(b); strings.HasPrefix(string(b[:n]), "2") {
				return fmt.Errorf("the bad client was greeted")
			}
			return nil
		}
		saw, _, err := readUntil(c, goodGreeting, false)
		if err != nil || saw != goodGreeting {
			return fmt.Errorf("a good client got %q (%w)", saw, err)
		}
		_, err = io.WriteString(c, quit)
		return err
	})
	for _, s := range g.group.Snapshot(g.Seconds()) {
		require.Equal(t, upstream.StateUp, s.State, s.Name)
		require.Zero(t, s.Fails, s.Name)
	}
}

// connectFrom connects a client from an address of the loopback network.
func (g *rig) connectFrom(ip string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", g.port.name)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(6 * patience))
}
