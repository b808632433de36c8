package conf

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// Fails if a wildcard covers the other family, or [::] with ipv6only off does not.
func TestCovers(t *testing.T) {
	t.Parallel()
	four := &Listen{Address: Address{Port: 25}}
	zero := &Listen{Address: Address{Host: "0.0.0.0", Port: 25}}
	six := &Listen{Address: Address{Host: "::", Port: 25}, IPv6Only: true}
	both := &Listen{Address: Address{Host: "::", Port: 25}}
	one := &Listen{Address: Address{Host: "127.0.0.1", Port: 25}}
	name := &Listen{Address: Address{Host: "mx.example", Port: 25}}
	path := &Listen{Address: Address{Path: "/run/smtp"}}
	for addr, want := range map[string][]*Listen{
		"127.0.0.1": {four, zero, both},
		"::1":       {six, both},
		"0.0.0.0":   {both},
		"::":        {},
	} {
		got := []*Listen{}
		for _, l := range []*Listen{four, zero, six, both, one, name, path} {
			if l.Covers(netip.MustParseAddr(addr)) {
				got = append(got, l)
			}
		}
		require.Equal(t, want, got, addr)
	}
}

// Addresses have the options of the widest socket that covers them, whatever the
// order, and only those.
//
// Fails if an address keeps its own, has the narrower one's, or gets its way on
// proxy_protocol.
func TestSharedOptions(t *testing.T) {
	t.Parallel()
	const listen = `
listen = ["127.0.0.1:25", { address = "*:25", backlog = 7, so_keepalive = false }, "[::1]:25", "127.0.0.1:26",
  { address = "127.0.0.2:25", backlog = 7 }]
`
	const wide = `listen = [{ address = "[::]:25", ipv6only = false, backlog = 9, reuseport = true }, "[::1]:25", "*:25", "127.0.0.1:25"]`
	read := func(listen string) (backlogs []int) {
		c, err := Parse("t.toml", []byte("[[server]]\nproxy_pass = 'mail.example:25'\n"+listen))
		require.NoError(t, err)
		for _, l := range c.Servers[0].Listen {
			require.Nil(t, l.given)
			backlogs = append(backlogs, l.Backlog)
			if l.Backlog == 7 {
				require.Equal(t, Keepalive{}, l.Keepalive)
			}
			require.Equal(t, l.Backlog == 9, l.ReusePort)
		}
		return backlogs
	}
	require.Equal(t, []int{7, 7, 4096, 4096, 7}, read(listen))
	require.Equal(t, []int{9, 9, 9, 9}, read(wide))
}
