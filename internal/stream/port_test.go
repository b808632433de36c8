package stream

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/balancer"
	"smtplb/internal/smtptest"
	"smtplb/listener"
	"smtplb/upstream"
)

// toward is a copy of the rig's route that goes to a server which says its name,
// of four bytes, and then echoes.
func (g *rig) toward(name string, change ...func(*Route)) *Route {
	addr := serve(g.t, func(c net.Conn) {
		if _, err := io.WriteString(c, name); err == nil {
			smtptest.Echo(c)
		}
	})
	r := g.port.restRoute()
	servers := []upstream.Server{{Name: addr, Addr: parseAddr(addr), Weight: 1}}
	r.Group = upstream.NewGroup(upstream.Config{Name: name, Method: func([]upstream.Server) upstream.Method { return balancer.RoundRobin{} }, Servers: servers})
	for _, f := range change {
		f(&r)
	}
	return &r
}

// greetedAt connects to the rig's port at an address of this host, and returns
// who is there.
func (g *rig) greetedAt(host string) (net.Conn, string) {
	g.t.Helper()
	return g.greetedBy(g.port, host)
}

// greetedBy is greetedAt for another port.
func (g *rig) greetedBy(p *Port, host string) (net.Conn, string) {
	g.t.Helper()
	port := strconv.Itoa(int(p.socket.Addr().TCP.Port()))
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), patience)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	require.NoError(g.t, c.SetDeadline(time.Now().Add(2*patience)))
	return c, read(g.t, c, 4)
}

func read(t testing.TB, c net.Conn, n int) string {
	t.Helper()
	got := make([]byte, n)
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	return string(got)
}

func ownRoute(addr string, r *Route) AddrRoute {
	return AddrRoute{Addr: netip.MustParseAddr(addr), Route: r}
}

// TestRouteByAddress: the most specific address has the client, with its own
// options and under its own name, until the port gets other routes; and the kernel
// is asked where a client connected to only as long as that matters.
//
// Fails if the addresses are not sorted, if 0.0.0.0 is not tried, if TCP_NODELAY
// stays the socket's, if a line names the socket, or if choose always asks.
func TestRouteByAddress(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, func(p *plan) { p.listen = "[::]:0" })
	slow := func(r *Route) { r.NoDelay = false }
	g.port.setRoute(g.toward("rest"), ownRoute("::1", g.toward("six_", slow)), ownRoute("127.0.0.9", g.toward("nine")),
		ownRoute("0.0.0.0", g.toward("four", slow)), ownRoute("127.0.0.2", g.toward("two_")))
	port := ":" + strconv.Itoa(int(g.port.Socket().Addr().TCP.Port()))
	for _, x := range []struct {
		host, name, listen string
		noDelay            int
	}{
		{"127.0.0.1", "four", "0.0.0.0" + port, 0},
		{"127.0.0.2", "two_", "127.0.0.2" + port, 1},
		{"127.0.0.9", "nine", "127.0.0.9" + port, 1},
		{"127.0.0.10", "four", "0.0.0.0" + port, 0},
		{"::1", "six_", "[::1]" + port, 0},
	} {
		c, name := g.greetedAt(x.host)
		require.Equal(t, x.name, name, x.host)
		noDelay := -1
		require.True(t, g.any(of(c, func(s *session) bool {
			noDelay, _ = unix.GetsockoptInt(int(s.client.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
			return s.local.Addr() == netip.MustParseAddr(x.host)
		})))
		require.Equal(t, x.noDelay, noDelay, x.host)
		c.Close()
		g.gone(patience)
		all := g.logs.FilterMessage("session ended").All()
		require.Equal(t, x.listen, all[len(all)-1].ContextMap()["listen"])
	}

	held, _ := g.greetedAt("127.0.0.2")
	g.port.setRoute(g.toward("rest"))
	for _, host := range []string{"127.0.0.2", "::1"} {
		c, name := g.greetedAt(host)
		require.Equal(t, "rest", name)
		require.True(t, g.any(of(c, func(s *session) bool { return !s.local.IsValid() })), "asked for nothing")
	}
	require.NoError(t, ping(held))
}

// TestYield: clients that a socket has taken from a port are served as the port's,
// whoever opened the socket, and further ones find the port. Fails if Yield just
// closes the socket, or forgets to refuse.
func TestYield(t *testing.T) {
	t.Parallel()
	const queued = 5
	g := newRig(t, nil, func(p *plan) { p.listen = "0.0.0.0:0" })
	g.port.setRoute(g.toward("rest"), ownRoute("127.0.0.2", g.toward("two_")))
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), g.port.Socket().Addr().TCP.Port())
	socket, err := listener.Open(listener.Options{Addr: listener.Addr{TCP: addr}}, g.port.Socket())
	require.NoError(t, err)
	var clients []net.Conn
	for range queued {
		c, err := net.DialTimeout("tcp", addr.String(), patience)
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(2*patience)))
		clients = append(clients, c)
	}
	closed := g.Yield(socket, g.port)
	_, name := g.greetedAt("127.0.0.2")
	require.Equal(t, "two_", name)
	for _, c := range clients {
		require.Equal(t, "two_", read(t, c, 4))
	}
	await(t, patience, closed, "the socket did not close")
}

// TestSessionLimitOfSharedPort: above the session limit a port takes clients to
// turn them away only if every address has a gate that lets it: who connected to
// which, nobody knows before. Fails if gated is that of the rest, or of the last.
func TestSessionLimitOfSharedPort(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, func(p *plan) { p.listen = "0.0.0.0:0"; p.MaxSessions = 1 })
	gate := func(r *Route) { r.Gate = &Gate{Replies: Replies{ReplyLimit: []byte("421 ")}} }
	g.port.setRoute(g.toward("rest"))
	held, _ := g.greetedAt("127.0.0.1")
	for _, x := range []struct {
		routes []AddrRoute
		gated  bool
	}{
		{[]AddrRoute{ownRoute("127.0.0.2", g.toward("two_")), ownRoute("127.0.0.3", g.toward("more", gate))}, false},
		{[]AddrRoute{ownRoute("127.0.0.2", g.toward("two_", gate)), ownRoute("127.0.0.3", g.toward("more"))}, false},
		{[]AddrRoute{ownRoute("127.0.0.2", g.toward("two_", gate)), ownRoute("127.0.0.3", g.toward("more", gate))}, true},
	} {
		g.port.setRoute(g.toward("rest", gate), x.routes...)
		require.Equal(t, x.gated, g.port.routes.Load().gated)
	}
	_, said := g.greetedAt("127.0.0.2")
	require.Equal(t, "421 ", said)
	require.NoError(t, ping(held))
}
