package stream

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/script"
	"smtplb/listener"
)

// another opens one more port of a rig, with what the rig's own port has but for
// what change says. The rig must not settle before it is closed.
func (g *rig) another(listen string, change func(*Route)) *Port {
	g.t.Helper()
	p := g.unopened(listen, change)
	g.Open(p)
	return p
}

// unopened makes such a port, which Open is still to be called for.
func (g *rig) unopened(listen string, change func(*Route)) *Port {
	g.t.Helper()
	socket, err := listener.Open(listener.Options{Addr: listener.Addr(parseAddr(listen))})
	require.NoError(g.t, err)
	r := g.port.restRoute()
	change(&r)
	p := NewPort(socket, NewRoutes(socket.Addr(), &r))
	g.t.Cleanup(func() {
		select {
		case <-p.closed:
		default:
			await(g.t, patience, g.Close(p), "the port did not close")
		}
	})
	return p
}

// passing makes a route one that passes to an address, of these ports.
func passing(to listener.Addr, ports ...*Port) func(*Route) {
	return func(r *Route) { r.Pass = &Pass{Addr: to, Targets: targets(ports...)} }
}

// targets are what a Pass may lead to.
func targets(ports ...*Port) map[listener.Addr]Target {
	m := make(map[listener.Addr]Target)
	for _, p := range ports {
		addr, t := p.socket.Addr(), Target{p, p.routes.Load()}
		m[addr] = t
		for _, own := range t.Routes.own {
			m[listener.Addr{TCP: netip.AddrPortFrom(own.Addr, addr.TCP.Port())}] = t
		}
	}
	return m
}

// dialPort connects to a port of a rig.
func (g *rig) dialPort(p *Port, from string) net.Conn {
	g.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", p.name)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	require.NoError(g.t, c.SetDeadline(time.Now().Add(2*patience)))
	return c
}

// A session goes on as one of the port that has the address of pass, or every
// address of its family; the log has it once, and there.
//
// Fails if find takes a wildcard of another family, if move leaves the port or the
// route as they were, or if the listener's address is $server_addr of a wildcard.
func TestPass(t *testing.T) {
	t.Parallel()
	sock := t.TempDir() + "/in"
	for i, x := range []struct{ name, listen, to, want string }{
		{"address", "127.0.0.1:0", "127.0.0.1:PORT", "127.0.0.1:PORT"},
		{"wildcard", "0.0.0.0:0", "127.0.0.7:PORT", "127.0.0.7:PORT"},
		{"wildcard itself", "0.0.0.0:0", "0.0.0.0:PORT", "127.0.0.1:OWN"},
		{"IPv6", "[::1]:0", "[::1]:PORT", "::1:PORT"},
		{"IPv6 wildcard", "[::]:0", "[::2]:PORT", "::2:PORT"},
		{"unix", "unix:" + sock, "unix:" + sock, "unix:" + sock + ":"},
		{"other port", "127.0.0.1:0", "127.0.0.1:1", ""},
		{"other address", "127.0.0.1:0", "127.0.0.2:PORT", ""},
		{"wildcard of IPv4", "0.0.0.0:0", "[::1]:PORT", ""},
		{"wildcard of IPv6", "[::]:0", "127.0.0.1:PORT", ""},
		{"other path", "unix:" + sock + "2", "unix:" + sock, ""},
	} {
		for _, constant := range []bool{true, false} {
			t.Run(fmt.Sprint(x.name, i, constant), func(t *testing.T) {
				b, w := newDiary(t), newWitness(t, good)
				g := newRig(t, []string{w.addr}, gated, b.keeps("$status $session_end $server_addr:$server_port"), func(p *plan) { p.listen = x.listen })
				port := fmt.Sprint(g.port.socket.Addr().TCP.Port())
				to := strings.ReplaceAll(x.to, "PORT", port)
				in := g.another("127.0.0.1:0", func(r *Route) {
					r.Pass = &Pass{Targets: targets(g.port)}
					if constant {
						r.Pass.Addr = listener.Addr(parseAddr(to))
					} else {
						r.Pass.Text = b.value(to[:len(to)-1] + "${limit_conn_status}" + to[len(to)-1:]) // which is not set
					}
				})
				c := g.dialPort(in, "127.0.0.1")
				if x.want == "" {
					saw, err := io.ReadAll(c)
					require.NoError(t, err)
					require.Equal(t, unavailableReply, string(saw))
					c.Close()
					require.Regexp(t, "^200 us/pass/no-port ", b.lines(1)[0])
					require.Equal(t, 1, g.logs.FilterMessage(`port not found for "`+to+`"`).Len())
					return
				}
				greetingOf(t, c)
				c.Close()
				g.gone(patience)
				own := fmt.Sprint(in.socket.Addr().TCP.Port())
				require.Equal(t, "200 client/relay/closed "+strings.NewReplacer("PORT", port, "OWN", own).Replace(x.want), b.lines(1)[0])
				ended := g.logs.FilterMessage("session ended").All()
				require.Len(t, ended, 1)
				require.Equal(t, g.port.name, ended[0].ContextMap()["listen"])
			})
		}
	}
}

// Where a port has routes by address, that of pass decides; but if it is a wildcard,
// the address that the client has connected to, as long as it is of that family.
//
// Fails if move takes the wildcard's own route, or goes by the client's address
// always, or never.
func TestPassToSharedPort(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, func(p *plan) { p.listen = "[::]:0" })
	in := g.another("[::]:0", func(*Route) {})
	rest := g.toward("rest")
	g.port.setRoute(rest, ownRoute("127.0.0.2", g.toward("two_")), ownRoute("0.0.0.0", g.toward("four")), ownRoute("::1", g.toward("six_")))
	for to, want := range map[string][3]string{
		"127.0.0.2": {"two_", "two_", "two_"},
		"127.0.0.3": {"four", "four", "four"},
		"0.0.0.0":   {"four", "two_", "four"},
		"::1":       {"six_", "six_", "six_"},
		"::2":       {"rest", "rest", "rest"},
		"::":        {"rest", "rest", "six_"},
	} {
		r := *rest
		passing(listener.Addr{TCP: netip.AddrPortFrom(netip.MustParseAddr(to), g.port.socket.Addr().TCP.Port())}, g.port)(&r)
		in.SetRoutes(NewRoutes(in.socket.Addr(), &r))
		for i, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			_, name := g.greetedBy(in, host)
			require.Equal(t, want[i], name, "%s to %s", host, to)
		}
	}
}

// What a text becomes is an address, with its port, or ends the session. Where
// there is no gate, the client is closed.
//
// Fails if parsePassed accepts less, or more, or says so in other words.
func TestPassToNoAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"127.0.0.1:25":        "127.0.0.1:25",
		"[2001:DB8::1]:25":    "[2001:db8::1]:25",
		"UNIX:/run//in":       "unix:/run/in",
		"":                    "no host",
		"25":                  "no addresses",
		"mx.example.org:25":   "no addresses",
		"*:25":                "no addresses",
		"127.0.0.1":           "no port",
		"[::1]":               "no port",
		"127.0.0.1:":          "invalid port",
		"127.0.0.1:0":         "invalid port",
		"127.0.0.1:65536":     "invalid port",
		"127.0.0.1:25x":       "invalid port",
		"unix:":               "no path in the unix domain socket",
		"\"\x00\r\n$remote_a": "no addresses",
	} {
		to, wrong := parsePassed(text)
		if wrong == "" {
			wrong = to.String()
		}
		require.Equal(t, want, wrong, "%q", text)
	}
	b := newDiary(t)
	g := newRig(t, nil, b.keeps("$status $session_end"), func(p *plan) { p.Pass = &Pass{Text: b.value("mx.$remote_addr\r:25")} })
	saw, err := io.ReadAll(g.dial())
	require.NoError(t, err)
	require.Empty(t, saw)
	require.Equal(t, "500 us/pass/bad-pass", b.lines(1)[0])
	require.Equal(t, 1, g.logs.FilterMessage(`no addresses in pass "mx.127.0.0.1\x0D:25"`).Len())
}

// Ten times a client is handed on, and not once more.
//
// Fails if MaxPasses is not what it is, or is not looked at: the loop then never
// comes back.
func TestPassInACircle(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	g := newRig(t, []string{newWitness(t, good).addr}, gated, b.keeps("$status $session_end"))
	chain := g.port
	for range MaxPasses {
		next := chain
		chain = g.another("127.0.0.1:0", passing(next.socket.Addr(), next))
	}
	c := g.dialPort(chain, "127.0.0.1")
	greetingOf(t, c)
	c.Close()
	g.gone(patience)

	further := g.another("127.0.0.1:0", passing(chain.socket.Addr(), chain))
	back := &Pass{}
	a := g.unopened("127.0.0.1:0", func(r *Route) { r.Pass = back })
	circle := g.unopened("127.0.0.1:0", passing(a.socket.Addr(), a))
	back.Addr, back.Targets = circle.socket.Addr(), targets(circle)
	g.Open(a)
	g.Open(circle)
	for _, p := range []*Port{further, a, circle} {
		c := g.dialPort(p, "127.0.0.1")
		saw, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, unavailableReply, string(saw))
		c.Close()
		g.gone(patience)
	}
	failed := "500 us/pass/bad-pass"
	require.Equal(t, []string{"200 client/relay/closed", failed, failed, failed}, b.lines(4))
	require.NotEmpty(t, g.logs.FilterMessage("stream pass cycle").All())
}

// Each port asks for the PROXY header of those it trusts, and goes by who the
// client is after it.
//
// Fails if welcome is not asked again, if it asks about the connection's peer
// although a header has named the client, or if what follows the first header is
// taken for the client's words.
func TestPassOfFrontedClients(t *testing.T) {
	t.Parallel()
	header := func(of, to netip.AddrPort) string {
		return fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", of.Addr(), to.Addr(), of.Port(), to.Port())
	}
	proxy := netip.MustParseAddrPort("198.51.100.9:5000") // behind the front, and trusted too
	trusting := func(r *Route, whom ...netip.Addr) {
		r.Fronts = nil
		for _, a := range whom {
			r.Fronts = append(r.Fronts, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	front := netip.MustParseAddr(frontAddr)
	for _, x := range []struct {
		name, says, want string
		in, out          []netip.Addr // who is trusted, by the first port and by the second
	}{
		{"none", "", frontAddr + " " + frontAddr, nil, nil},
		{"first", header(claimed, claimedTo), claimed.Addr().String() + " " + frontAddr, []netip.Addr{front}, nil},
		{"second", header(claimed, claimedTo), claimed.Addr().String() + " " + frontAddr, nil, []netip.Addr{front}},
		{"first has named who is not trusted", header(claimed, claimedTo), claimed.Addr().String() + " " + frontAddr, []netip.Addr{front}, []netip.Addr{front}},
		{"both", header(proxy, claimedTo) + header(claimed, claimedTo), claimed.Addr().String() + " " + proxy.Addr().String(),
			[]netip.Addr{front}, []netip.Addr{proxy.Addr()}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			b, w := newDiary(t), newWitness(t, good)
			g := newRig(t, []string{w.addr}, gated, tell(HeaderV1), b.keeps("$remote_addr $realip_remote_addr"),
				func(p *plan) { trusting(&p.Route, x.out...) })
			in := g.another("127.0.0.1:0", func(r *Route) {
				passing(g.port.socket.Addr(), g.port)(r)
				trusting(r, x.in...)
			})
			c := g.dialPort(in, frontAddr)
			got := served(t, g, w, c, x.says)
			require.Equal(t, x.want, b.lines(1)[0])
			want := header(claimed, claimedTo)
			if x.says == "" {
				want = header(c.LocalAddr().(*net.TCPAddr).AddrPort(), in.socket.Addr().TCP)
			}
			require.Equal(t, want+quit, got)
		})
	}
}

// A session begins anew on its second port, and has that one's tcp_nodelay.
//
// Fails if move leaves started as it was, or the option as the first port's socket
// has it.
func TestPassBeginsAnew(t *testing.T) {
	t.Parallel()
	front := []netip.Prefix{netip.MustParsePrefix(frontAddr + "/32"), netip.MustParsePrefix(claimed.Addr().String() + "/32")}
	for _, noDelay := range []bool{false, true} {
		g := newRig(t, nil, gated, func(p *plan) { p.Fronts, p.NoDelay = front, noDelay })
		in := g.another("127.0.0.1:0", func(r *Route) {
			passing(g.port.socket.Addr(), g.port)(r)
			r.NoDelay = !noDelay
		})
		require.NoError(t, in.Socket().Apply(listener.Options{Addr: in.socket.Addr(), NoDelay: !noDelay}))
		c := g.dialPort(in, frontAddr)
		var first, second int64
		var option int
		require.True(t, g.comes(func(s *session) bool {
			first = s.started
			return s.state == stateHeader && s.port == in
		}))
		require.True(t, soon(func() bool {
			now := int64(0)
			g.ask(func(w *worker) { now = w.loop.Now() })
			return now > first
		}))
		speak(c, fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", claimed.Addr(), claimedTo.Addr(), claimed.Port(), claimedTo.Port()))
		require.True(t, g.comes(func(s *session) bool {
			second = s.started
			option, _ = unix.GetsockoptInt(int(s.client.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
			return s.state == stateHeader && s.port == g.port
		}))
		require.Greater(t, second, first)
		require.Equal(t, noDelay, option == 1)
	}
}

// What the first port counts a session by holds until its end; values of its
// variables, and what it has set, do not go with the session.
//
// Fails if forget gives back the claims, leaves the values, or says of a limit that
// it was passed; or if the record of the first port is lost.
func TestPassForgetsAndCounts(t *testing.T) {
	t.Parallel()
	zone := NewZone("all", 32<<10)
	var set func() *script.Assignment
	d := newDiary(t,
		func(s *script.Scope) error { return s.Set("$word") },
		func(s *script.Scope) error {
			return s.Map(script.Map{Variable: "$at", Source: "$server_port", Entries: []script.Entry{{Key: "default", Value: "$server_port"}}})
		},
		func(s *script.Scope) error {
			set = func() *script.Assignment {
				a, err := s.Assign("$word", "of the first, at $at")
				require.NoError(t, err)
				return a
			}
			return nil
		})
	g := newRig(t, []string{newWitness(t, good).addr}, gated, d.keeps("[$word] $at $limit_conn_status"))
	in := g.another("127.0.0.1:0", func(r *Route) {
		passing(g.port.socket.Addr(), g.port)(r)
		r.Sets = []*script.Assignment{set()}
		r.Limits = []Limit{{Zone: zone, Key: d.value("$remote_addr"), N: 1}}
	})
	c := g.dialPort(in, "127.0.0.1")
	greetingOf(t, c)
	require.Equal(t, 1, zone.holds("127.0.0.1"))
	c.Close()
	g.gone(patience)
	require.Equal(t, fmt.Sprintf("[] %d -", g.port.socket.Addr().TCP.Port()), d.lines(1)[0])
	require.Zero(t, zone.keys())
}

// A session that the second port would not count goes on all the same, in a dry
// run, and the first port still counts it.
//
// Fails if a limit that is reached gives back all claims of the session.
func TestPassIntoADryRun(t *testing.T) {
	t.Parallel()
	d := newDiary(t)
	first, second := NewZone("first", 32<<10), NewZone("second", 32<<10)
	limit := limited(d, Limit{Zone: second, Key: d.value("$server_addr"), N: 1})
	g := newRig(t, []string{newWitness(t, good).addr}, gated, d.keeps("$limit_conn_status"), limit, func(p *plan) { p.LimitDryRun = true })
	in := g.another("127.0.0.1:0", func(r *Route) {
		passing(g.port.socket.Addr(), g.port)(r)
		r.Limits = []Limit{{Zone: first, Key: d.value("$remote_addr"), N: 1}}
	})
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		greetingOf(t, g.dialPort(in, from))
		require.Equal(t, 1, first.holds(from))
		require.Equal(t, 1, second.holds("127.0.0.1"))
	}
	g.End()
	g.gone(patience)
	require.ElementsMatch(t, []string{"PASSED", "REJECTED_DRY_RUN"}, d.lines(2))
	require.Zero(t, first.keys())
	require.Zero(t, second.keys())
}

// A session keeps to the routes of the configuration that it began with, that of a
// port which is closed since included.
//
// Fails if move asks the port for its latest route.
func TestPassAfterAReload(t *testing.T) {
	t.Parallel()
	zone := NewZone("all", 32<<10)
	d := newDiary(t)
	g := newRig(t, []string{newWitness(t, good).addr}, gated, d.keeps("$server_port"))
	in := g.another("127.0.0.1:0", func(r *Route) {
		passing(g.port.socket.Addr(), g.port)(r)
		r.Fronts = []netip.Prefix{netip.MustParsePrefix(frontAddr + "/32")}
		r.Limits = []Limit{{Zone: zone, Key: d.value("$remote_addr"), N: 1}}
	})
	c := g.dialPort(in, frontAddr)
	require.True(t, g.comes(func(s *session) bool { return s.state == stateHeader }))
	port, plain := g.port.socket.Addr().TCP.Port(), g.port.restRoute()
	plain.Scope, plain.AccessLogs = nil, nil
	g.port.setRoute(&plain)
	await(t, patience, g.Close(g.port), "the port did not close")
	speak(c, "PROXY UNKNOWN\r\n")
	greetingOf(t, c)
	c.Close()
	g.gone(patience)
	require.Equal(t, []string{fmt.Sprint(port)}, d.lines(1))
	require.Zero(t, zone.keys())
}

// nginx's log says of each port that the client has connected to it, and names the
// one whose pass leads nowhere.
//
// Fails if move does not tell the journal, or if a line has another shape.
func TestPassInNginxsWords(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{newWitness(t, good).addr}, gated, func(p *plan) { p.NginxLog = true })
	gap := g.another("127.0.0.1:0", passing(listener.Addr{Path: "/nowhere"}))
	in := g.another("127.0.0.1:0", passing(gap.socket.Addr(), gap))
	c := g.dialPort(in, "127.0.0.1")
	_, _ = io.ReadAll(c)
	client := c.LocalAddr()
	c.Close()
	g.gone(patience)
	var said []string
	for _, e := range g.logs.All() {
		if strings.HasPrefix(e.Message, "*") {
			said = append(said, e.Message)
		}
	}
	require.Equal(t, []string{
		fmt.Sprintf("*1 client %s connected to %s", client, in.name),
		fmt.Sprintf("*1 client %s connected to %s", client, gap.name),
		fmt.Sprintf(`*1 port not found for "unix:/nowhere" while passing connection to port, client: 127.0.0.1, server: %s`, gap.name),
	}, said[:3])
}
