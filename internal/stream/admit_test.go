package stream

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/internal/script"
	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// A group is chosen by name in any case, or is that of an address; any other name
// ends the session.
//
// Fails if chooseGroup looks the name up as it is, or keeps what the session's own route
// owes to a group.
func TestProxyPass(t *testing.T) {
	t.Parallel()
	w := newWitness(t, good)
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$pool", Source: "$remote_addr", Entries: []script.Entry{
			{Key: "127.0.0.1", Value: "POOL_a"}, {Key: "127.0.0.2", Value: "mx.example:25"}, {Key: "default", Value: "none"}}})
	})
	g := newRig(t, nil, b.keeps("$status $session_end $upstream_addr"), func(p *plan) {
		to := p.Route
		to.Header = HeaderV1
		to.Group = upstream.NewGroup(upstream.Config{
			Name:    "pool_a",
			Method:  func([]upstream.Server) upstream.Method { return balancer.RoundRobin{} },
			Servers: []upstream.Server{{Name: w.addr, Addr: parseAddr(w.addr), Weight: 1}},
		})
		p.ProxyPass, p.Groups = b.value("$pool"), map[string]*Route{"pool_a": &to}
	})
	c := g.dialFrom("127.0.0.1")
	greetingOf(t, c)
	c.Close()
	g.gone(patience)
	require.Contains(t, last(w.seen()).got(), "PROXY TCP4 127.0.0.1 ", "by the route of that group")
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		saw, _ := io.ReadAll(g.dialFrom(from))
		require.Empty(t, saw)
		g.gone(patience)
	}
	require.Equal(t, []string{"200 client/relay/closed " + w.addr, "500 us/accept/no-upstream -", "500 us/accept/no-upstream -"}, b.lines(3))
	require.Equal(t, 1, g.logs.FilterMessage("no resolver defined to resolve mx.example").Len()+
		g.logs.FilterMessage(`no port in upstream "none"`).Len(), "one complaint a second")
}

// A text is sent in full, however slowly its client reads, and then the end.
//
// Fails if what the socket does not take at once is forgotten.
func TestReturn(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	long := strings.Repeat("x", 8<<20) + " $remote_addr\r\n"
	for _, text := range []string{"421 closed, $remote_addr\r\n", long, ""} {
		g := newRig(t, nil, b.keeps("$status $session_end $bytes_sent"), func(p *plan) { p.Return = b.value(text) })
		c := g.dial(smtptest.RcvBuf(4 << 10))
		speak(c, early)
		saw, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(text, "$remote_addr", "127.0.0.1"), string(saw))
		c.Close()
		g.gone(patience)
	}
	lines := b.lines(3)
	require.Equal(t, "200 us/return/closed 23", lines[0])
	require.Equal(t, "200 us/return/closed 0", lines[2])
}

// A text is for the client that a front introduces.
//
// Fails if start is not asked after the header.
func TestReturnBehindAFront(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	g := newRig(t, nil, fronted, b.keeps("$status"), func(p *plan) { p.Return = b.value("$remote_addr") })
	c := g.dialFrom(frontAddr)
	speak(c, fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", claimed.Addr(), claimedTo.Addr(), claimed.Port(), claimedTo.Port()))
	saw, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, claimed.Addr().String(), string(saw))
}

// What is hashed is the value, the same for each server tried.
//
// Fails if the client's address is taken in its place.
func TestKeyValue(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	m := &spy{}
	g := newRig(t, []string{noListener(t), newWitness(t, good).addr}, goBy(m), func(p *plan) {
		p.Scope, p.Key, p.KeyValue = b.scope, ClientAddress, b.value("a-$remote_addr")
	})
	greetingOf(t, g.dial())
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Equal(t, []string{"a-127.0.0.1", "a-127.0.0.1"}, m.keys)
}

// The server's address is the one that the client connected to, also where the
// listener has all of them, a header names another, or nobody is served.
//
// Fails if the listener's own is taken, the header's, or if the client is hung up
// before its session is accounted for.
func TestServerAddress(t *testing.T) {
	t.Parallel()
	d := newDiary(t)
	everywhere := func(p *plan) { p.listen = "0.0.0.0:0" }
	sock := "unix:" + t.TempDir() + "/in"
	for i, x := range []struct {
		options []func(*plan)
		from    string
		want    string
	}{
		{[]func(*plan){everywhere}, "127.0.0.1", "127.0.0.1 SERVER"},
		{[]func(*plan){everywhere, access(denyAll)}, "127.0.0.1", "127.0.0.1 SERVER"},
		{[]func(*plan){everywhere, fronted}, frontAddr, claimed.Addr().String() + " SERVER"},
		{[]func(*plan){func(p *plan) { p.listen = sock }}, "", "unix: " + sock + ":"},
	} {
		g := newRig(t, []string{newWitness(t, good).addr}, append(x.options, d.keeps("$remote_addr $server_addr:$server_port"))...)
		var c net.Conn
		if x.from == "" {
			c = g.dial()
		} else {
			c = g.dialFrom(x.from)
		}
		server := c.RemoteAddr().String()
		if x.from == frontAddr {
			speak(c, fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", claimed.Addr(), claimedTo.Addr(), claimed.Port(), claimedTo.Port()))
		}
		speak(c, quit)
		_, _ = io.ReadAll(c)
		c.Close()
		require.Equal(t, strings.ReplaceAll(x.want, "SERVER", server), d.lines(i + 1)[i])
	}
}
