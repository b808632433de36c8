package integration

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// Five servers, each a process on a host of its own, are killed and started
// again one after the other, as in a careless upgrade, and nothing about the
// checks is configured. Nobody is turned away: a server that answers again is
// of use at the latest when no better one is left. Only the sessions that are
// live on a server when it is killed end with it.
//
// Fails if a server that a probe has found to answer gets no sessions before
// fail_timeout or rise, though all others are out.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	for _, down := range []time.Duration{
		1500 * time.Millisecond, // all are back before the first one's fail_timeout ends
		3500 * time.Millisecond, // each has fallen, and down_interval has begun
	} {
		t.Run(down.String(), func(t *testing.T) {
			t.Parallel()
			const up = 500 * time.Millisecond
			var (
				hosts   []*host
				stores  []ledger.Store
				entries []string
			)
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				h := newHost(t, name)
				hosts, stores, entries = append(hosts, h), append(stores, h), append(entries, server(h.addr))
			}
			seen := &lives{ended: map[string][]life{}}
			client := &ledger.Client{Addr: freeAddr(t), Rate: 60, Mails: 4, Dial: seen.dial}
			p := smtptest.Start(t, workers(2)+checkedUpstream("mail", "", entries...)+proxy(client.Addr, "mail"))

			stop := run(t, client)
			more(t, client, 50)
			for _, h := range hosts {
				h.killed(t)
				<-time.After(down)
				h.start(t)
				<-time.After(up)
			}
			more(t, client, 60)
			stop()

			report := ledger.Reconcile(client, stores...)
			t.Logf("%v\n%v\n%+v", client.Tally(), report, changes(t, p, ""))
			require.NoError(t, report.Err())
			requireInGap(t, client, report)
			requireCutByDeath(t, client, seen, hosts)
		})
	}
}
