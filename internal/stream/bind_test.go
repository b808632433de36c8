package stream

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/script"
	"smtplb/internal/smtptest"
)

// TestBindSource: a client without an address leaves the choice to the kernel.
// It fails if ClientPort is ignored, or if the port is taken of a client that
// has no address.
func TestBindSource(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddrPort("192.0.2.1:1234")
	fixed := netip.MustParseAddrPort("192.0.2.9:25")
	for _, test := range []struct {
		bind         Bind
		client, want netip.AddrPort
	}{
		{Bind{}, client, netip.AddrPort{}},
		{Bind{Addr: fixed}, client, fixed},
		{Bind{Client: true}, client, netip.MustParseAddrPort("192.0.2.1:0")},
		{Bind{Client: true, ClientPort: true}, client, client},
		{Bind{Client: true}, netip.AddrPort{}, netip.AddrPort{}},
		{Bind{Client: true, ClientPort: true}, netip.AddrPort{}, netip.AddrPort{}},
	} {
		require.Equal(t, test.want, test.bind.source(test.client), "%+v", test.bind)
	}
}

// TestTransparentSocket fails if a socket of either family is not transparent.
func TestTransparentSocket(t *testing.T) {
	t.Parallel()
	if err := CheckTransparent(); err != nil {
		require.Empty(t, os.Getenv("CI"), "CI needs CAP_NET_RAW: %v", err)
		t.Skip(err)
	}
	for _, host := range []struct {
		addr          string
		level, option int
	}{
		{"127.0.0.1:0", unix.IPPROTO_IP, unix.IP_TRANSPARENT},
		{"[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
	} {
		t.Run(host.addr, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", host.addr)
			if err != nil {
				require.Empty(t, os.Getenv("CI"), "CI needs the address: %v", err)
				t.Skip("no such address here: ", err)
			}
			t.Cleanup(func() { l.Close() })
			g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
				p.listen = host.addr
				p.Bind = Bind{Client: true, Transparent: true}
			})
			g.pair(l)
			require.True(t, g.comes(relaying))
			g.each(func(s *session) {
				got, err := unix.GetsockoptInt(int(s.server.fd), host.level, host.option)
				if err != nil || got != 1 {
					t.Errorf("want 1, got %d, %v", got, err)
				}
			})
		})
	}
}

// TestBindOfOtherFamily: a server that cannot be reached from the address wanted
// is passed over, and has not failed. It fails if such a server is connected to
// from any other address, which it may trust.
func TestBindOfOtherFamily(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "CI needs an IPv6 loopback address: %v", err)
		t.Skip("no IPv6 here: ", err)
	}
	other := smtptest.Serve(t, l, func(net.Conn) { t.Error("a server of the other family was connected to") })
	g := newRig(t, []string{other.Addr(), serve(t, smtptest.Echo)}, func(p *plan) { p.Bind.Client = true })
	for range 3 {
		got, err := g.answer()
		require.NoError(t, err)
		require.Equal(t, "hello", got)
	}
	for _, s := range g.status() {
		require.Zero(t, s.Fails, s.Name)
	}
	require.Positive(t, g.logs.FilterMessageSnippet("another address family than the server").Len())
}

// A source address is read as nginx reads the value of proxy_bind.
//
// Fails if a port of 0 is taken for any, or an address of IPv6 that ends like a
// port is cut there.
func TestParseSource(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"127.0.0.9": "127.0.0.9:0", "127.0.0.9:33": "127.0.0.9:33", "::1": "[::1]:0", "[::1]:25": "[::1]:25", "2001:db8::1:25": "[2001:db8::1:25]:0",
		"off": "", "127.0.0.9:0": "", "127.0.0.9:": "", "127.0.0.9:99999": "", " 127.0.0.9": "", "127.1": "", "[::1]": "",
		"unix:": "", "unix:/x": "", "fe80::1%lo": "", "[fe80::1%lo]:25": "", "[127.0.0.1]:25": "", "localhost:25": "",
	} {
		source, ok := parseSource(text)
		require.Equal(t, want != "", ok, text)
		if ok {
			require.Equal(t, netip.MustParseAddrPort(want), source)
		}
	}
}

// The source address is evaluated once, and may be the client's own. What is no
// address is left to the kernel.
//
// Fails if it is evaluated for each server, if a session has the address of the
// one before, or if a refusal of the client itself is not passed on to it.
func TestBindToAValue(t *testing.T) {
	t.Parallel()
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$source", Source: "$remote_addr", Entries: []script.Entry{
			{Key: "127.0.0.2", Value: "127.0.0.9"}, {Key: "127.0.0.3", Value: "nobody"}, {Key: "127.0.0.5", Value: "$remote_addr"}}})
	})
	seer := smtptest.Serve(t, listen(t, "tcp"), func(c net.Conn) {
		defer c.Close()
		_, _ = fmt.Fprintf(c, "220 %s\r\n", addrPort(c.RemoteAddr()).Addr())
		_, _ = io.Copy(io.Discard, c)
	})
	refuser := newWitness(t, greet("554 5.7.1 not you\r\n"))
	g := newRig(t, []string{refuser.addr, seer.Addr()}, gated, backups, nginxLog, func(p *plan) {
		p.Scope, p.Bind = b.scope, Bind{Value: b.value("$source")}
	})
	for _, x := range []struct{ from, want string }{
		{"127.0.0.2", "220 127.0.0.9\r\n"}, {"127.0.0.3", "220 127.0.0.1\r\n"}, {"127.0.0.4", "220 127.0.0.1\r\n"},
		{"127.0.0.5", "554 5.7.1 not you\r\n"}, {"127.0.0.4", "220 127.0.0.1\r\n"},
	} {
		c := g.dialFrom(x.from)
		saw, _, err := readUntil(c, x.want, false)
		require.NoError(t, err)
		require.Equal(t, x.want, saw, x.from)
		c.Close()
		g.gone(patience)
	}
	require.Equal(t, 1, g.logs.FilterMessageSnippet(`invalid local address "nobody"`).Len(), "once a session, not for each server")
}
