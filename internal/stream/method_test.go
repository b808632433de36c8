package stream

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// spy is a method that picks the first eligible server, and notes what it sees
// of the session and of the first server.
type spy struct {
	measure upstream.Measure

	mu      sync.Mutex
	keys    []string
	latency int64
}

func (m *spy) Measure() upstream.Measure { return m.measure }

func (m *spy) Pick(slots []upstream.Slot, s *upstream.Session) int {
	if len(slots) == 0 {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, string(s.Key))
	m.latency = slots[0].Latency
	for i := range slots {
		if slots[i].Eligible {
			return i
		}
	}
	return -1
}

// expected is the latency of the first server, as the next session's pick sees it.
func (m *spy) expected(g *rig) time.Duration {
	var turn upstream.Turn
	g.ask(func(w *worker) {
		g.group.Begin(&turn)
		turn.Now = w.loop.Now()
		g.group.Next(&turn, w.seconds()).Release(&turn, upstream.OutcomeLocalError, w.seconds())
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Duration(m.latency) * time.Millisecond
}

// goBy has the method's servers rest as long as they like: their latencies are
// not halved meanwhile.
func goBy(m *spy) func(*plan) {
	return func(p *plan) {
		p.method = m
		for i := range p.servers {
			p.servers[i].FailTimeout = 1 << 30
		}
	}
}

const slow = 100 * time.Millisecond

// The method learns how long the server took to the moment that it goes by, and
// does so while the session goes on, if it counts those in flight; by the last
// byte when it ends.
//
// Fails if a call of Reached is left out, or a turn does not know the time.
func TestTimesAreTaken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options []func(*plan)
	}{{"gate", []func(*plan){gated}}, {"any protocol", nil}} {
		t.Run(test.name+", first byte", func(t *testing.T) {
			t.Parallel()
			m := &spy{measure: upstream.Measure{Of: upstream.FirstByte, Inflight: true}}
			addr := serve(t, func(c net.Conn) {
				time.Sleep(slow) // it is as slow as that
				_, _ = io.WriteString(c, goodGreeting)
				_, _ = io.Copy(io.Discard, c)
			})
			g := newRig(t, []string{addr, noListener(t)}, append(test.options, goBy(m))...)
			_, _, err := readUntil(g.dial(), goodGreeting, false)
			require.NoError(t, err)
			require.GreaterOrEqual(t, m.expected(g), slow)
			booked := m.expected(g)
			time.Sleep(slow) // were it still in flight, this would count
			require.Equal(t, booked, m.expected(g))
		})
	}
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		m := &spy{measure: upstream.Measure{Of: upstream.Connect, Inflight: true}}
		srv := smtptest.NewServer(t, smtptest.Script{Name: "mx"})
		require.NoError(t, srv.Blackhole(true))
		g := newRig(t, []string{srv.Addr(), noListener(t)}, goBy(m))
		c := g.dial()
		require.True(t, g.comes(connecting))
		require.NoError(t, srv.Blackhole(false)) // the SYN is repeated after a second
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		booked := m.expected(g)
		require.GreaterOrEqual(t, booked, 900*time.Millisecond)
		time.Sleep(slow)
		require.Equal(t, booked, m.expected(g))
	})
	t.Run("last byte", func(t *testing.T) {
		t.Parallel()
		m := &spy{measure: upstream.Measure{Of: upstream.LastByte}}
		addr := serve(t, func(c net.Conn) {
			_, _ = io.WriteString(c, goodGreeting)
			_, _ = io.Copy(io.Discard, c)
		})
		g := newRig(t, []string{addr, noListener(t)}, goBy(m))
		c := g.dial()
		_, _, err := readUntil(c, goodGreeting, false)
		require.NoError(t, err)
		require.Zero(t, m.expected(g))
		time.Sleep(slow)
		c.Close()
		g.gone(patience)
		require.GreaterOrEqual(t, m.expected(g), slow)
	})
}

// A refusal that is passed to the client is no greeting, however soon it comes.
//
// Fails if it is booked like one.
func TestRefusalIsNotTimed(t *testing.T) {
	t.Parallel()
	m := &spy{measure: upstream.Measure{Of: upstream.FirstByte, Inflight: true}}
	busy := serve(t, func(c net.Conn) {
		time.Sleep(slow)
		_, _ = io.WriteString(c, "421 4.3.2 busy\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	g := newRig(t, []string{busy, noListener(t)}, gated, goBy(m), func(p *plan) {
		p.servers[0].MaxFails = 0
		p.Tries = 1
	})
	c := g.dial()
	_, _, err := readUntil(c, "421 4.3.2 busy\r\n", false)
	require.NoError(t, err)
	c.Close()
	g.gone(patience)
	require.Zero(t, m.expected(g))
}

// The key is the client's address alone, the same for each server tried, and
// nothing where the method hashes nothing.
//
// Fails if the port is part of it, or if a further server is asked for without.
func TestKey(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		key  Key
		want string
	}{{NoKey, ""}, {ClientAddress, "127.0.0.1"}} {
		m := &spy{}
		g := newRig(t, []string{noListener(t), newWitness(t, good).addr}, goBy(m), func(p *plan) { p.Key = test.key })
		_, _, err := readUntil(g.dial(), goodGreeting, false)
		require.NoError(t, err)
		m.mu.Lock()
		require.Equal(t, []string{test.want, test.want}, m.keys)
		m.mu.Unlock()
	}
}

// Fails if an address has another spelling than nginx's $remote_addr.
func TestKeySpelling(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"192.0.2.1:25":                "192.0.2.1",
		"[2001:db8::1]:25":            "2001:db8::1",
		"[2001:db8:0:1:0:0:0:1]:4":    "2001:db8:0:1::1",
		"[fe80::1%eth0]:25":           "fe80::1",
		"[::ffff:192.0.2.1]:25":       "::ffff:192.0.2.1", // from a PROXY header
		"[2001:db8:0:1:1:1:1:1]:1025": "2001:db8:0:1:1:1:1:1",
	} {
		s := session{from: netip.MustParseAddrPort(from)}
		require.Equal(t, want, string(s.appendKey(nil)))
	}
	require.Equal(t, "unix:", string(new(session).appendKey(nil)))
}
