package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// T11, alternating probes: every other one finds nothing wrong, the others do,
// each in its way. Nothing changes, and the sessions, which meet with no
// trouble, are none the worse for it.
//
// Fails with fall = 1 (and rise = 1): the server then goes out and comes back
// with each pair of probes. Fails if good probes do not forget the bad ones
// before them.
func TestProbesAlternate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		bad  func(net.Conn)
	}{
		{"busy", func(c net.Conn) { _, _ = io.WriteString(c, "421 4.3.2 busy\r\n") }},
		{"unwilling", refuse},
		{"wordless", func(net.Conn) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const enough = 40 // probes
			var visits atomic.Int64
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			require.NoError(t, err)
			probed := smtptest.Serve(t, ln, func(c net.Conn) {
				if visits.Add(1)%2 == 0 {
					test.bad(c)
				} else {
					takeMail(c, "a", io.Discard)
				}
			})
			_, port, err := net.SplitHostPort(probed.Addr())
			require.NoError(t, err)

			// Sessions do not come to the port of the probes: they would change
			// whose turn it is.
			a, b := mx(t, "a"), mx(t, "b")
			client := &ledger.Client{Addr: freeAddr(t), Rate: 50}
			p := smtptest.Start(t, workers(2)+verbose+
				checkedUpstream("mail", fmt.Sprintf("check = { interval = '200ms', port = %s }", port), server(a.Addr()), server(b.Addr()))+
				proxy(client.Addr, "mail"))
			stop := run(t, client)
			smtptest.Eventually(t, patience, "enough probes", func() bool { return visits.Load() >= enough })
			stop()

			require.Empty(t, changes(t, p, ""))
			p.Await("probe failed", enough-2) // of both servers, which share the probes
			requireAll(t, client, a, b)
		})
	}
}

// refuse greets with a 554, and waits for the client to go.
func refuse(c net.Conn) {
	if _, err := io.WriteString(c, "554 5.3.2 no\r\n"); err != nil {
		return
	}
	in := bufio.NewScanner(c)
	for in.Scan() {
		if in.Text() == "QUIT" {
			break
		}
	}
	_, _ = io.WriteString(c, "221 bye\r\n")
}

// T11, servers that flip: three of five go away together and come back
// together, again and again, for long enough to be noticed. The log has one
// line for each change of each of them, which begins where the one before has
// ended, and none about the others. No session fails that may try them all: the
// three tries of the default can meet just these three.
//
// Fails if a probe's result is written although it changes nothing.
func TestServersFlipTogether(t *testing.T) {
	t.Parallel()
	const (
		flips = 4
		most  = 6 // changes in a flip: suspect, unavail, unhealthy, up; and suspect, up if a probe has come just before
	)
	servers := []*ledger.Server{mx(t, "a"), mx(t, "b"), mx(t, "c"), mx(t, "d"), mx(t, "e")}
	var entries []string
	var stores []ledger.Store
	for _, s := range servers {
		entries, stores = append(entries, server(s.Addr(), "fail_timeout = '1s'", "slow_start = '1s'")), append(stores, s)
	}
	flipping, steady := servers[:3], servers[3:]
	client := &ledger.Client{Addr: freeAddr(t), Rate: 100}
	p := smtptest.Start(t, workers(2)+
		checkedUpstream("mail", "check = { interval = '200ms', down_interval = '200ms' }", entries...)+
		proxy(client.Addr, "mail", "proxy_next_upstream_tries = 5"))

	stop := run(t, client)
	more(t, client, 100)
	for range flips {
		for _, s := range flipping {
			s.Refuse()
		}
		for _, s := range flipping {
			awaitState(t, p, s.Addr(), "unhealthy")
		}
		for _, s := range flipping {
			require.NoError(t, s.Resume())
		}
		for _, s := range flipping {
			awaitState(t, p, s.Addr(), "up")
		}
		<-time.After(1200 * time.Millisecond) // beyond their slow start
	}
	stop()

	t.Logf("%v; %d changes", client.Tally(), len(changes(t, p, "")))
	requireAll(t, client, stores...)
	for _, s := range steady {
		require.Empty(t, changes(t, p, s.Addr()))
	}
	for _, s := range flipping {
		all := changes(t, p, s.Addr())
		require.Equal(t, flips, ups(all), "%+v", all)
		require.LessOrEqual(t, len(all), most*flips, "%+v", all)
		state := "up"
		for _, c := range all {
			require.Equal(t, state, c.From, "%+v", all)
			require.NotEqual(t, c.From, c.To, "%+v", all)
			state = c.To
		}
	}
}
