package stream

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/internal/script"
	"smtplb/internal/smtptest"
	"smtplb/upstream"
)

// A group is chosen by name in any case, or is that of an address; any other name
// ends the session.
//
// Fails if chooseGroup looks the name up as it is, or if servers are told what the
// route, not the group, says.
func TestProxyPass(t *testing.T) {
	t.Parallel()
	w := newWitness(t, good)
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$pool", Source: "$remote_addr", Entries: []script.Entry{
			{Key: "127.0.0.1", Value: "POOL_a"}, {Key: "127.0.0.2", Value: "mx.example:25"}, {Key: "default", Value: "none"}}})
	})
	g := newRig(t, nil, b.keeps("$status $session_end $upstream_addr"), func(p *plan) {
		to := Destination{Header: HeaderV1}
		to.Group = upstream.NewGroup(upstream.Config{
			Name:    "pool_a",
			Method:  func([]upstream.Server) upstream.Method { return balancer.RoundRobin{} },
			Servers: []upstream.Server{{Name: w.addr, Addr: parseAddr(w.addr), Weight: 1}},
		})
		p.ProxyPass, p.Groups = b.value("$pool"), map[string]*Destination{"pool_a": &to}
	})
	c := g.dialFrom("127.0.0.1")
	greetingOf(t, c)
	c.Close()
	g.gone(patience)
	require.Contains(t, last(w.seen()).got(), "PROXY TCP4 127.0.0.1 ", "as that group wants it")
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		saw, _ := io.ReadAll(g.dialFrom(from))
		require.Empty(t, saw)
		g.gone(patience)
	}
	require.Equal(t, []string{"200 client/relay/closed " + w.addr, "500 us/accept/no-upstream -", "500 us/accept/no-upstream -"}, b.lines(3))
	require.Equal(t, 1, g.logs.FilterMessage("no resolver defined to resolve mx.example").Len()+
		g.logs.FilterMessage(`no port in upstream "none"`).Len(), "one complaint a second")
}

// An address is a server that the session has for itself, and gets what the
// session's own route says.
//
// Fails if sessions share its group, if a failure of one is remembered by another,
// or if the header is left out.
func TestPassToAnAddress(t *testing.T) {
	t.Parallel()
	w := newWitness(t, good)
	refused := smtptest.Refused(t)
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := smtptest.Serve(t, l, func(c net.Conn) {
		defer c.Close()
		if _, err := c.Read(make([]byte, 200)); err == nil { // the header
			_, _ = io.WriteString(c, "220 unix\r\n")
		}
	})
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$to", Source: "$remote_addr", Entries: []script.Entry{
			{Key: "127.0.0.1", Value: w.addr}, {Key: "127.0.0.2", Value: "unix:" + server.Addr()}, {Key: "127.0.0.3", Value: refused}}})
	})
	g := newRig(t, nil, b.keeps("$status $session_end $upstream_addr"), func(p *plan) {
		p.ProxyPass, p.Header, p.Group = b.value("$to"), HeaderV1, nil
	})
	var held []net.Conn
	for range 2 {
		c := g.dialFrom("127.0.0.1")
		greetingOf(t, c)
		held = append(held, c)
	}
	groups := map[*upstream.Group]bool{}
	g.each(func(s *session) { groups[s.to.Group] = true })
	require.Len(t, groups, 2)
	for _, c := range held {
		c.Close()
	}
	g.gone(patience)
	require.Contains(t, last(w.seen()).got(), "PROXY TCP4 127.0.0.1 ")
	for _, x := range []struct{ from, want string }{{"127.0.0.2", "220 unix\r\n"}, {"127.0.0.3", ""}, {"127.0.0.3", ""}} {
		c := g.dialFrom(x.from)
		saw, _ := io.ReadAll(c)
		require.Equal(t, x.want, string(saw))
		c.Close()
		g.gone(patience)
	}
	require.Equal(t, []string{
		"200 client/relay/closed " + w.addr, "200 client/relay/closed " + w.addr, "200 server/relay/closed unix:" + path,
		"502 server/connect/refused " + refused, "502 server/connect/refused " + refused}, b.lines(5))
}

// An address is read, and what is none refused, as by nginx 1.22.1, but for a
// relative path.
//
// Fails if a name is taken for an address, or the one thing wrong for another.
func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"127.0.0.1:25": "127.0.0.1:25", "[::1]:1": "[::1]:1", "[2001:DB8::1]:25": "[2001:db8::1]:25",
		"unix:/a:b": "unix:/a:b", "UNIX:/a": "unix:/a",
		"127.0.0.1": `no port in upstream "127.0.0.1"`, "localhost": `no port in upstream "localhost"`, "[::1]": `no port in upstream "[::1]"`,
		"localhost:25": "no resolver defined to resolve localhost", "127.1:25": "no resolver defined to resolve 127.1",
		"*:25": "no resolver defined to resolve *", "2130706433:1": "no resolver defined to resolve 2130706433",
		"255.255.255.255:1": "no resolver defined to resolve 255.255.255.255", "a\x1b\n:1": `no resolver defined to resolve a\x1B\x0A`,
		"": `no host in upstream ""`, ":25": `no host in upstream ":25"`,
		"127.0.0.1:0": `invalid port in upstream "127.0.0.1:0"`, "127.0.0.1:99999": `invalid port in upstream "127.0.0.1:99999"`,
		"127.0.0.1:": `invalid port in upstream "127.0.0.1:"`, "::1:25": `invalid port in upstream "::1:25"`,
		"127.0.0.1:1-2": `invalid port in upstream "127.0.0.1:1-2"`,
		"127.0.0.1:1/x": `invalid host in upstream "127.0.0.1:1/x"`, "[::1": `invalid host in upstream "[::1"`, "[::1]x": `invalid host in upstream "[::1]x"`,
		"[::zz]:1": `invalid IPv6 address in upstream "[::zz]:1"`, "[fe80::1%lo]:1": `invalid IPv6 address in upstream "[fe80::1%lo]:1"`,
		"unix:": `no path in the unix domain socket in upstream "unix:"`, "unix:a": `no absolute path in the unix domain socket in upstream "unix:a"`,
		"unix:/" + strings.Repeat("a", 107): `too long path in the unix domain socket in upstream "unix:/` + strings.Repeat("a", 107) + `"`,
	} {
		addr, err := parseTarget(text)
		got := addr.String()
		if err != nil {
			got = err.Error()
		}
		require.Equal(t, want, got, text)
	}
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

// A session that goes to a group by the group's name has the key and the time in the
// queue that are that group's.
//
// Fails if either is the route's.
func TestWhatIsOwedToAGroup(t *testing.T) {
	t.Parallel()
	a, b, m, d := newWitness(t, good), newWitness(t, good), &spy{}, newDiary(t)
	g := newRig(t, nil, gated, d.keeps("$session_end"), func(p *plan) {
		to := Destination{KeyValue: d.value("k-$remote_addr"), QueueTimeout: 100 * time.Millisecond}
		to.Group = upstream.NewGroup(upstream.Config{
			Name:   "pool",
			Method: func([]upstream.Server) upstream.Method { return m },
			Queue:  1,
			Servers: []upstream.Server{
				{Name: "a", Addr: parseAddr(a.addr), Weight: 1, MaxConns: 1},
				{Name: "b", Addr: parseAddr(b.addr), Weight: 1, MaxConns: 1},
			},
		})
		p.ProxyPass, p.Groups = d.value("p$remote_addr"), map[string]*Destination{"p127.0.0.1": &to}
		p.Key, p.KeyText, p.QueueTimeout = FixedKey, "route", time.Hour
	})
	greetingOf(t, g.dial())
	greetingOf(t, g.dial())
	saw, err := io.ReadAll(g.dial())
	require.NoError(t, err)
	require.Equal(t, limitReply, string(saw))
	m.mu.Lock()
	defer m.mu.Unlock()
	require.NotEmpty(t, m.keys)
	require.Equal(t, "k-127.0.0.1", m.keys[0])
}

// A key without variables is that of every session, and needs no record.
//
// Fails if it is the client's address, or none.
func TestFixedKey(t *testing.T) {
	t.Parallel()
	m := &spy{}
	g := newRig(t, []string{noListener(t), newWitness(t, good).addr}, goBy(m), func(p *plan) { p.Key, p.KeyText = FixedKey, "a" })
	greetingOf(t, g.dial())
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Equal(t, []string{"a", "a"}, m.keys)
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
