package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// Clients that come one after the other get the servers in nginx's order,
// whichever event loop accepts them: a group has one state for all loops.
//
// Fails if the last instead of the first of equals wins, if backups are among
// the primaries, or if down servers take part.
func TestOrder(t *testing.T) {
	t.Parallel()
	a, b, c, d := mx(t, "a").Addr(), mx(t, "b").Addr(), mx(t, "c").Addr(), mx(t, "d").Addr()
	nobody := smtptest.Refused(t)
	tests := []struct {
		name    string
		servers []string
		want    string // over one period; asked for twice
	}{
		{"five-one-one", []string{server(a, "weight = 5"), server(b), server(c)}, "aabacaa"},
		{"one-four", []string{server(a), server(b, "weight = 4")}, "bbabb"},
		{"three-two-one", []string{server(a, "weight = 3"), server(b, "weight = 2"), server(c)}, "abacba"},
		{"four-to-one", []string{server(a, "weight = 4"), server(b, "weight = 3"), server(c, "weight = 2"), server(d)}, "abcabdacba"},
		{"equal", []string{server(a), server(b), server(c)}, "abc"},
		{"down", []string{server(a, "weight = 5"), server(b, "weight = 9", "down = true"), server(c)}, "aaacaa"},
		{"backup-idle", []string{server(a), server(b), server(c, "backup = true", "weight = 9")}, "ab"},
		{"backup-idle-while-one-is-left", []string{server(nobody), server(b), server(c, "backup = true")}, "bbb"},
		{"backup-when-all-refuse", []string{server(nobody), server(nobody), server(c, "backup = true")}, "ccc"},
		{"backups-in-their-own-order", []string{server(nobody), server(c, "backup = true", "weight = 2"), server(d, "backup = true")}, "cdc"},
		{"backup-when-all-are-down", []string{server(a, "down = true"), server(b, "down = true"), server(c, "backup = true")}, "ccc"},
		{"nobody", []string{server(a, "down = true"), server(b, "down = true")}, "--"},
	}
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprintf("workers-%d", n), func(t *testing.T) {
			t.Parallel()
			config := workers(n)
			listen := make([]string, len(tests))
			for i, test := range tests {
				listen[i] = freeAddr(t)
				config += upstream(test.name, test.servers...) + proxy(listen[i], test.name)
			}
			smtptest.Start(t, config)
			for i, test := range tests {
				require.Equal(t, test.want+test.want, visits(t, listen[i], 2*len(test.want)), test.name)
			}
		})
	}
}

// Many clients at a time get exact shares of whole periods, and all their mail
// arrives.
//
// Fails if each loop has a group of its own: 350 sessions are no whole number
// of periods for each loop, and the loops do not share evenly.
func TestSharesOfClientsAtATime(t *testing.T) {
	t.Parallel()
	const periods = 50
	for _, test := range []struct{ a, b, c int }{{5, 1, 1}, {1, 4, 0}} {
		for _, n := range []int{1, 2} {
			t.Run(fmt.Sprintf("%d-%d-%d-workers-%d", test.a, test.b, test.c, n), func(t *testing.T) {
				t.Parallel()
				a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
				servers := []string{
					server(a.Addr(), fmt.Sprintf("weight = %d", test.a)),
					server(b.Addr(), fmt.Sprintf("weight = %d", test.b)),
					server(c.Addr(), "weight = 1", fmt.Sprintf("down = %v", test.c == 0)),
				}
				client := &ledger.Client{Addr: freeAddr(t), Sessions: periods * (test.a + test.b + test.c), Concurrency: 20}
				smtptest.Start(t, workers(n)+upstream("mail", servers...)+proxy(client.Addr, "mail"))

				client.Run(t.Context())
				requireAll(t, client, a, b, c)
				require.Equal(t, periods*test.a, a.Accepted())
				require.Equal(t, periods*test.b, b.Accepted())
				require.Equal(t, periods*test.c, c.Accepted())
			})
		}
	}
}

// Sessions beyond max_conns go to the other servers, then to the backups, and
// then to nobody; an ended one makes room again.
//
// Fails if max_conns is ignored, or if a session is not given back at its end.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, workers(2)+verbose+
		upstream("mail",
			server(a.Addr(), "weight = 9", "max_conns = 2"),
			server(b.Addr(), "max_conns = 1"),
			server(c.Addr(), "max_conns = 2", "backup = true"))+
		proxy(client.Addr, "mail"))

	held := hold(t, client, 5)
	var names strings.Builder
	for _, h := range held {
		names.WriteString(nameIn(h.Greeting()))
	}
	require.Equal(t, "aabcc", names.String())
	require.Equal(t, "-", visits(t, client.Addr, 1))
	p.Await("stream: no live upstreams", 1)

	ended := p.Count("session ended")
	for i, want := range map[int]string{0: "a", 2: "b", 4: "c"} {
		require.NoError(t, held[i].Finish())
		ended++
		p.Await("session ended", ended)
		again := hold(t, client, 1)[0]
		require.Equal(t, want, nameIn(again.Greeting()))
		held[i] = again
	}
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	requireAll(t, client, a, b, c)
}

// What mail gateways are commonly configured with, as TOML says it: a pair of
// gateways of which one is the spare, a pair of unequal ones, and a pair of
// which one is in maintenance.
//
// Fails if a backup is used beside a primary that works, or if max_fails does
// not take a server out.
func TestGatewayPairs(t *testing.T) {
	t.Parallel()
	gw1, gw2 := mx(t, "1"), mx(t, "2")
	spare, unequal, maintenance := freeAddr(t), freeAddr(t), freeAddr(t)
	p := smtptest.Start(t, verbose+fmt.Sprintf(`
[[upstream]]
name = "cluster_smtp"
servers = [
  { address = %[1]q, max_fails = 3, fail_timeout = "30s" },
  { address = %[2]q, backup = true },
]

[[upstream]]
name = "cluster_weighted"
servers = [
  { address = %[1]q, weight = 1 },
  { address = %[2]q, weight = 4 },
]

[[upstream]]
name = "cluster_maintenance"
servers = [{ address = %[1]q, down = true }, %[2]q]

[[server]]
listen = %[3]q
proxy_pass = "cluster_smtp"

[[server]]
listen = %[4]q
proxy_pass = "cluster_weighted"

[[server]]
listen = %[5]q
proxy_pass = "cluster_maintenance"
`, gw1.Addr(), gw2.Addr(), spare, unequal, maintenance))

	require.Equal(t, "1111", visits(t, spare, 4))
	require.Equal(t, "2212222122", visits(t, unequal, 10))
	require.Equal(t, "222", visits(t, maintenance, 3))

	const disabled = `temporarily disabled \{"upstream": "cluster_smtp"`
	gw1.Refuse()
	require.Equal(t, "22", visits(t, spare, 2))
	require.Zero(t, p.Count(disabled), "max_fails is 3")
	require.Equal(t, "2", visits(t, spare, 1))
	p.Await(disabled, 1)
	require.NoError(t, gw1.Resume())
	require.Equal(t, "222", visits(t, spare, 3), "out for fail_timeout, though it is back")
	require.Equal(t, "2212222122", visits(t, unequal, 10), "a group knows its own failures only")
}
