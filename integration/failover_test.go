package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

const disabled = "upstream server temporarily disabled"

// No client notices a server that refuses connections. It is left alone after
// max_fails, and gets clients again once it takes them.
//
// Fails without the next attempt after a refusal, and if a failure does not
// take the server out.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
	a.Refuse()
	client := &ledger.Client{Addr: freeAddr(t), Sessions: 300, Concurrency: 10}
	p := smtptest.Start(t, workers(2)+
		upstream("mail", server(a.Addr(), "weight = 3", "max_fails = 2", "fail_timeout = '1s'"), server(b.Addr()), server(c.Addr()))+
		proxy(client.Addr, "mail"))

	client.Run(t.Context())
	requireAll(t, client, a, b, c)
	require.Zero(t, a.Accepted())
	p.Await(disabled, 1)

	require.NoError(t, a.Resume())
	smtptest.Eventually(t, patience, "the server gets clients again", func() bool {
		client.Run(t.Context())
		return a.Accepted() > 0
	})
	requireAll(t, client, a, b, c)
}

// A failed server is left alone for fail_timeout, and up to a second longer
// since times are whole seconds. Then a single client tries it: as long as
// that one waits, all others go elsewhere at once. If it fails, the same
// begins again; if it connects, the server is back for all.
//
// Fails if the window is not begun anew when a client tries the server (each
// then does), and if fail_timeout is ignored.
func TestFailTimeout(t *testing.T) {
	t.Parallel()
	const (
		failTimeout    = 2 * time.Second
		connectTimeout = 500 * time.Millisecond
		late           = 10 * time.Second // a busy machine's
	)
	a, b := mx(t, "a"), mx(t, "b")
	addr := freeAddr(t)
	p := smtptest.Start(t, workers(2)+
		upstream("mail", server(a.Addr(), "max_fails = 1", "fail_timeout = '2s'", "slow_start = 0"), server(b.Addr()))+
		proxy(addr, "mail", "proxy_connect_timeout = '500ms'"))

	a.Refuse()
	require.Equal(t, "b", visits(t, addr, 1))
	p.Await(disabled, 1)
	require.NoError(t, a.Resume())
	require.NoError(t, a.Blackhole(true))

	// 100 clients a second, until the one that tries the server is through.
	type result struct {
		name  string
		start time.Time
		took  time.Duration
		err   error
	}
	results := make(chan result, 2000)
	begun, most := 0, 0
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for deadline := time.Now().Add(failTimeout + connectTimeout + late); p.Count("connect timeout") < 1; begun++ {
		require.True(t, time.Now().Before(deadline), "nobody has tried the server again")
		<-pace.C
		go func() {
			start := time.Now()
			name, err := visit(addr)
			results <- result{name, start, time.Since(start), err}
		}()
		most = max(most, connecting(t, a.Addr()))
	}
	require.Equal(t, 1, most, "clients at a time that try the server")
	require.NoError(t, a.Blackhole(false))
	var tried time.Time // when the one began that waited for the server
	for range begun {
		r := <-results
		require.NoError(t, r.err)
		require.Equal(t, "b", r.name)
		if r.took >= connectTimeout && (tried.IsZero() || r.start.Before(tried)) {
			tried = r.start
		}
	}
	require.NotZero(t, tried, "one client has paid for the attempt")

	smtptest.Eventually(t, failTimeout+time.Second+late, "the server is back", func() bool { return visits(t, addr, 1) == "a" })
	require.Greater(t, time.Since(tried), connectTimeout+failTimeout)
	require.Equal(t, "bababa", visits(t, addr, 6))
	require.Equal(t, 1, p.Count(disabled), "it was out all the time")
}

// The death of a server ends the sessions that are live on it, and no others.
// Clients that come later do not notice, and it gets clients again when it is
// back.
//
// Fails without the next attempt after a refusal.
func TestServerDies(t *testing.T) {
	t.Parallel()
	a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
	load := &ledger.Client{Addr: freeAddr(t), Concurrency: 10}
	p := smtptest.Start(t, workers(2)+verbose+
		upstream("mail", server(a.Addr(), "fail_timeout = '1s'"), server(b.Addr(), "fail_timeout = '1s'"), server(c.Addr(), "fail_timeout = '1s'"))+
		proxy(load.Addr, "mail"))
	held := hold(t, load, 15)

	stop := run(t, load)
	more(t, load, 100)
	b.Kill()
	p.Await(disabled, 1)
	more(t, load, 100)
	accepted := b.Accepted()
	require.NoError(t, b.Resume())
	smtptest.Eventually(t, patience, "the server gets clients again", func() bool { return b.Accepted() > accepted })
	stop()

	cut := 0
	for _, h := range held {
		if nameIn(h.Greeting()) == "b" {
			require.Error(t, h.Noop())
			h.Abandon()
			cut++
			continue
		}
		require.NoError(t, h.Finish())
	}
	require.Equal(t, 5, cut)
	requireBrokenOn(t, p, load, b.Addr())
	report := ledger.Reconcile(load, a, b, c)
	require.NoError(t, report.Err())
	require.LessOrEqual(t, report.Broken-cut, load.Concurrency, "each of so many has one session at a time")
}

// requireBrokenOn asserts that a client's sessions went through, but for some
// that the program's log, which must be verbose, says were connected to one
// server. A session reset so early that the client had not even learnt its own
// address is found among those that no other session of the client explains.
func requireBrokenOn(t *testing.T, p *smtptest.Process, c *ledger.Client, peer string) {
	t.Helper()
	history := c.History()
	locals := map[string]bool{}
	for _, s := range history {
		locals[s.Local] = true
	}
	var stray []ledger.Session
	defer func() {
		if len(stray) > 0 {
			t.Logf("broken, and not on that server: %+v", stray)
		}
	}()
	smtptest.Eventually(t, patience, "each broken session is in the log as one on "+peer, func() bool {
		onPeer, unknown := map[string]bool{}, 0 // a client's port may be used again
		for _, e := range endings(t, p) {
			switch {
			case e.Peer != peer || e.End == "connect failed":
			case locals[e.Client]:
				onPeer[e.Client] = true
			default:
				unknown++
			}
		}
		stray = slices.DeleteFunc(slices.Clone(history), func(s ledger.Session) bool {
			if s.Local == "" && errors.Is(s.Err, syscall.ECONNRESET) && unknown > 0 {
				unknown--
				return true
			}
			return s.OK() || onPeer[s.Local]
		})
		return len(stray) == 0
	})
}

// A server that does not answer at all costs a client proxy_connect_timeout,
// and the next one gets it, if another attempt is allowed.
//
// Fails if the connect has no time-out, or if proxy_next_upstream or _tries is
// ignored.
func TestServerVanishes(t *testing.T) {
	t.Parallel()
	a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
	require.NoError(t, a.Blackhole(true))
	require.NoError(t, b.Blackhole(true))
	config := workers(1)
	tests := []struct {
		name, lines, want string
		attempts          int // that time out
	}{
		{"next", "", "c", 2},
		{"next-off", "proxy_next_upstream = false", "-", 1},
		{"two-tries", "proxy_next_upstream_tries = 2", "-", 2},
		{"three-tries", "proxy_next_upstream_tries = 3", "c", 2},
		{"no-time", "proxy_next_upstream_timeout = '250ms'", "-", 1},
		{"time", "proxy_next_upstream_timeout = '60s'", "c", 2},
	}
	listen := make([]string, len(tests))
	for i, test := range tests {
		listen[i] = freeAddr(t)
		config += upstream(test.name, server(a.Addr()), server(b.Addr()), server(c.Addr())) +
			proxy(listen[i], test.name, noGate, "proxy_connect_timeout = '300ms'", test.lines)
	}
	p := smtptest.Start(t, config)
	type result struct {
		name string
		took time.Duration
		err  error
	}
	results := make([]result, len(tests))
	var visitors sync.WaitGroup
	for i := range tests {
		visitors.Go(func() {
			start := time.Now()
			name, err := visit(listen[i])
			results[i] = result{name, time.Since(start), err}
		})
	}
	visitors.Wait()
	for i, test := range tests {
		require.NoError(t, results[i].err, test.name)
		require.Equal(t, test.want, results[i].name, test.name)
		least := time.Duration(test.attempts) * 300 * time.Millisecond
		require.GreaterOrEqual(t, results[i].took, least, test.name)
		require.Less(t, results[i].took, least+5*time.Second, "%s: proxy_connect_timeout is 5s without being set", test.name)
	}
	require.Positive(t, p.Count(`connect failed .*"outcome": "connect timeout"`))
}

// Clients and servers may be on unix sockets, also for bulk mail. A path where
// nobody listens counts as a refusal, and the program's own path goes with it.
//
// Fails if the path stays.
func TestUnixSockets(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	paths := map[string]string{}
	for _, name := range []string{"listen", "a", "b", "nobody"} {
		paths[name] = filepath.Join(dir, name)
	}
	serve := func(name string) *ledger.Server {
		ln, err := net.Listen("unix", paths[name])
		require.NoError(t, err)
		return ledger.Serve(t, ln, smtptest.Script{Name: name})
	}
	a, b := serve("a"), serve("b")
	c := mx(t, "c") // TCP beside unix sockets
	client := &ledger.Client{Addr: "unix:" + paths["listen"], Sessions: 60, Concurrency: 5, Size: 300_000}
	p := smtptest.Start(t, workers(2)+
		upstream("mail", server("unix:"+paths["nobody"]), server("unix:"+paths["a"]), server("unix:"+paths["b"]), server(c.Addr()))+
		proxy(client.Addr, "mail"))

	client.Run(t.Context())
	requireAll(t, client, a, b, c)
	require.Equal(t, []int{20, 20, 20}, []int{a.Accepted(), b.Accepted(), c.Accepted()})

	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit(patience))
	require.NoFileExists(t, paths["listen"])
}

// shortDir is a directory whose paths fit into the 108 bytes of a unix
// socket's, which a test's own directory need not do.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtplb-") //nolint:usetesting // see above
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Clients and servers may speak IPv6, and either side IPv4 where the other
// does not. A wildcard with ipv6only off takes both.
//
// Fails if every socket to a server is an IPv4 one.
func TestIPv6(t *testing.T) {
	t.Parallel()
	six := func(name string) *ledger.Server {
		ln, err := net.Listen("tcp6", "[::1]:0")
		require.NoError(t, err)
		return ledger.Serve(t, ln, smtptest.Script{Name: name})
	}
	a, b, c := six("a"), six("b"), mx(t, "c")
	port, both := smtptest.FreePort(t), smtptest.FreePort(t)
	smtptest.Start(t, workers(1)+
		upstream("mail", server(a.Addr()), server(b.Addr()), server(c.Addr()))+
		proxy(fmt.Sprintf("[::1]:%d", port), "mail")+
		proxy(fmt.Sprintf("127.0.0.1:%d", port), "mail")+
		proxy(fmt.Sprintf("{ address = '[::]:%d', ipv6only = false }", both), "mail"))

	for _, listen := range []string{"[::1]:%d", "127.0.0.1:%d"} {
		for _, port := range []int{port, both} {
			client := &ledger.Client{Addr: fmt.Sprintf(listen, port), Sessions: 30, Concurrency: 3, Size: 100_000}
			before := a.Accepted()
			client.Run(t.Context())
			report := ledger.Reconcile(client, a, b, c)
			require.Equal(t, client.Sessions, report.Accepted, "%s: %v", client.Addr, client.Tally())
			require.Empty(t, report.Lost)
			require.Empty(t, report.Corrupt)
			require.Equal(t, before+10, a.Accepted())
		}
	}
	require.Equal(t, 4*10, b.Accepted())
	require.Equal(t, 4*10, c.Accepted())
}
