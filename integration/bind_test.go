package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
	"smtplb/internal/smtptest/tunpump"
)

// TestTransparentBind has a client at one end of a link, and the program with
// its server at the other, where the client's address is a stranger's. Mail
// goes through, and the server sees the client's address, or that and its port;
// also if a proxy in front says who the client is.
//
// Fails if IP_TRANSPARENT is not set (no session gets a server), if the address
// bound is that of the proxy in front, if the port is left out or added, and if
// a start warns of servers that cannot learn the client's address.
func TestTransparentBind(t *testing.T) {
	t.Parallel()
	link := tunpump.New(t, tunpump.Config{})
	loopback := netip.MustParseAddr("127.0.0.1")
	require.NoError(t, link.DeliverFrom(loopback))
	const own, named = "", "198.51.100.7:4321" // the client, as a proxy in front names it

	for _, test := range []struct {
		name, bind  string
		front       bool
		want        string // what the server sees
		port, warns bool   // the port, too; there is a warning at start
	}{
		{name: "client", bind: `"client"`, want: own},
		{name: "client and port", bind: `"client:port"`, want: own, port: true},
		{name: "client in a table", bind: `{ address = "client" }`, want: own},
		{name: "named client", bind: `"client"`, front: true, want: named},
		{name: "named client and port", bind: `"client:port"`, front: true, want: named, port: true},
		{name: "stranger", bind: `{ address = "203.0.113.9", transparent = true }`, want: "203.0.113.9:0", warns: true},
		{name: "stranger by a variable", bind: `{ address = "203.0.113.$x", transparent = true }` + "\nset = { x = '9:444' }", want: "203.0.113.9:444", port: true, warns: true},
		{name: "stranger and port", bind: `{ address = "203.0.113.9:444", transparent = true }`, want: "203.0.113.9:444", port: true, warns: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mail := ledger.Serve(t, listenAt(t, link, netip.AddrPortFrom(loopback, 0)), smtptest.Script{Name: "a"})
			client := &ledger.Client{Addr: netip.AddrPortFrom(link.Far(), uint16(smtptest.FreePort(t))).String(), Sessions: 1, Mails: 3, Size: 100 << 10}
			listen, from := client.Addr, ""
			if test.front {
				client.Dial = introduce(netip.MustParseAddrPort(named))
				listen, from = fmt.Sprintf("{ address = %q, proxy_protocol = true }", client.Addr), fmt.Sprintf("set_real_ip_from = '%s'", link.Near())
			}
			p := smtptest.Launch{On: link.Do}.Start(t, proxy(listen, mail.Addr(), "proxy_bind = "+test.bind, from))
			p.Ready()
			require.Equal(t, test.warns, p.Count("OPEN RELAY") > 0)
			client.Run(t.Context())
			requireAll(t, client, mail)

			sessions := mail.Sessions()
			require.Len(t, sessions, 1)
			if test.want == own {
				test.want = client.History()[0].Local
			}
			want, saw := netip.MustParseAddrPort(test.want), netip.MustParseAddrPort(sessions[0].Client)
			require.Equal(t, want.Addr(), saw.Addr())
			require.Equal(t, test.port, want.Port() == saw.Port())
		})
	}
}

// T19: a host with a hundred ports for connections of its own has nearly as
// many to each of three servers, although the kernel must bind an address for
// each. Whoever comes then is told so, and no server is taken for failed.
//
// Fails if IP_BIND_ADDRESS_NO_PORT is not set: the hundred ports are then for
// all three together; and if an error of ours counts against a server.
func TestPortsPerServer(t *testing.T) {
	t.Parallel()
	const (
		least = 290
		most  = 300
	)
	link := tunpump.New(t, tunpump.Config{})
	require.NoError(t, link.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40099"), 0)
	}))
	servers := make([]*ledger.Server, 3)
	lines := make([]string, len(servers))
	for i := range servers {
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(2501+i)) // not of the hundred
		servers[i] = ledger.Serve(t, listenAt(t, link, addr), smtptest.Script{Name: fmt.Sprint(i)})
		lines[i] = server(addr.String(), "max_fails = 1", "fail_timeout = '1h'")
	}
	client := &ledger.Client{Addr: netip.AddrPortFrom(link.Far(), 2500).String()}
	p := smtptest.Launch{On: link.Do}.Start(t, upstream("mail", lines...)+proxy(client.Addr, "mail", "proxy_bind = '127.0.0.50'"))
	p.Ready()

	var held []*ledger.Held
	for {
		h, err := client.Hold(t.Context())
		if err != nil {
			require.ErrorContains(t, err, "421")
			break
		}
		t.Cleanup(h.Abandon)
		held = append(held, h)
		require.LessOrEqual(t, len(held), most, "sessions of %d ports", most)
	}
	t.Logf("%d sessions", len(held))
	require.GreaterOrEqual(t, len(held), least)
	p.Await("cannot assign requested address", 1)

	// Its servers take the sessions for which there are ports again. What the
	// servers close first leaves none of our ports in TIME_WAIT.
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	seen := map[string]bool{}
	smtptest.Eventually(t, patience, "every server greets", func() bool {
		name, err := visit(client.Addr)
		require.NoError(t, err)
		seen[name] = true
		delete(seen, "-")
		return len(seen) == len(servers)
	})
	require.Zero(t, p.Count("temporarily disabled"))
}

// listenAt listens at the far side of a link.
func listenAt(t testing.TB, link *tunpump.Link, addr netip.AddrPort) (ln net.Listener) {
	t.Helper()
	require.NoError(t, link.Do(func() (err error) {
		ln, err = net.Listen("tcp", addr.String())
		return err
	}))
	return ln
}

// introduce makes a Dial of a proxy in front, whose connections begin with a
// PROXY protocol header that names the client.
func introduce(client netip.AddrPort) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: patience}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(conn, fmt.Sprintf("PROXY TCP4 %s 192.0.2.1 %d 25\r\n", client.Addr(), client.Port()))
		return conn, err
	}
}
