package conf

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The kernel is asked about each pair of addresses: Overlaps is true where a
// second socket cannot listen beside the first.
//
// Fails if covers forgets ipv6only or takes a wildcard for its own family only.
func TestOverlapsAsTheKernel(t *testing.T) {
	t.Parallel()
	dual := Listen{Address: Address{Host: "::"}}
	all := []Listen{dual}
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "", "::", "::1"} {
		all = append(all, Listen{Address: Address{Host: host}, IPv6Only: true})
	}
	for _, a := range all {
		for _, b := range all {
			a.Address.Port, b.Address.Port = 25, 25
			want := Overlaps(a, b)
			// A port that is free for a may be taken for b, by somebody else:
			// where no overlap is expected, any port that is free for both will do.
			refused := bothRefused(t, a, b)
			for try := 0; refused && !want && try < 10; try++ {
				refused = bothRefused(t, a, b)
			}
			require.Equal(t, refused, want, "%+v and then %+v", a, b)
		}
	}
}

// bothRefused tells whether the kernel refuses b once a listens.
func bothRefused(t *testing.T, a, b Listen) bool {
	t.Helper()
	first, err := net.Listen(networkOf(a), net.JoinHostPort(a.Address.Host, "0"))
	require.NoError(t, err)
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	second, err := net.Listen(networkOf(b), net.JoinHostPort(b.Address.Host, fmt.Sprint(port)))
	if err != nil {
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		return true
	}
	second.Close()
	return false
}

// networkOf is how package net is told the family, and to set IPV6_V6ONLY.
func networkOf(l Listen) string {
	switch {
	case !strings.Contains(l.Address.Host, ":"):
		return "tcp4"
	case l.IPv6Only:
		return "tcp6"
	}
	return "tcp"
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	tcp := func(host string, port uint16) Listen {
		return Listen{Address: Address{Host: host, Port: port}, IPv6Only: true}
	}
	unix := func(path string) Listen { return Listen{Address: Address{Path: path}} }
	for _, c := range []struct {
		a, b Listen
		want bool
	}{
		{tcp("127.0.0.1", 25), tcp("127.0.0.1", 25), true},
		{tcp("127.0.0.1", 25), tcp("127.0.0.1", 26), false},
		{tcp("", 25), tcp("", 26), false},
		{tcp("", 0), tcp("", 0), false},
		{tcp("::1", 25), tcp("0:0::1", 25), true},
		{tcp("::ffff:127.0.0.1", 25), tcp("127.0.0.1", 25), true},
		{tcp("mx.example", 25), tcp("mx.example", 25), true},
		{tcp("mx.example", 25), tcp("mx2.example", 25), false},
		{tcp("mx.example", 25), tcp("", 25), false},
		{unix("/a"), unix("/a"), true},
		{unix("/a"), unix("/b"), false},
		{unix("/a"), tcp("", 25), false},
	} {
		require.Equal(t, c.want, Overlaps(c.a, c.b), "%+v and %+v", c.a.Address, c.b.Address)
		require.Equal(t, c.want, Overlaps(c.b, c.a), "%+v and %+v", c.b.Address, c.a.Address)
	}
}

// Fails if a queue loses its size or its time-out, or if one that nobody will
// ever wait in goes without a word.
func TestQueue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Queue{
		"":                                     {},
		"queue = 500":                          {Position{"t.toml", 2, 9}, 500, time.Minute},
		"queue = { size = 1, timeout = '4m' }": {Position{"t.toml", 2, 9}, 1, 4 * time.Minute},
	} {
		for _, bounded := range []bool{false, true} {
			maxConns := 0
			if bounded {
				maxConns = 10
			}
			c, err := Parse("t.toml", fmt.Appendf(nil, "[[upstream]]\n%s\nname = 'a'\nservers = [{ address = 'h:1', max_conns = %d }]\n%s", text, maxConns, sound))
			require.NoError(t, err)
			require.Equal(t, want, c.Upstreams[0].Queue)
			warned := slices.ContainsFunc(c.Warnings, func(w string) bool {
				return w == `t.toml:2:9: queue: nobody will ever wait, since no server of upstream "a" has max_conns`
			})
			require.Equal(t, want.Size > 0 && !bounded, warned, "%q", c.Warnings)
		}
	}
}
