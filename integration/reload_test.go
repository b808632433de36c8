package integration

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// status is the log's line of a server after a reload.
type status struct {
	Upstream    string `json:"upstream"`
	Peer        string `json:"peer"`
	State       string `json:"state"`
	Weight      int    `json:"weight"`
	Connections int    `json:"connections"`
}

var statusLine = regexp.MustCompile(`\] server (\{.*\})`)

// statuses reads the lines of servers in a part of the log.
func statuses(t *testing.T, log string) []status {
	t.Helper()
	lines := statusLine.FindAllStringSubmatch(log, -1)
	all := make([]status, len(lines))
	for i, line := range lines {
		require.NoError(t, json.Unmarshal([]byte(line[1]), &all[i]))
	}
	return all
}

// plan is the configuration of the nth reload: the weights change each time,
// servers come and go and are down or backup at times, a listener comes and
// goes. That of 0 is where the test begins and ends.
type plan struct{ a, b, c, d, mail, sink1, sink2, bulk, extra string }

func (p plan) config(n int) (text string, servers int) {
	mail := []string{server(p.a, fmt.Sprintf("weight = %d", 1+n%5)), server(p.b, fmt.Sprintf("weight = %d", 1+n*7%4))}
	bulk := []string{server(p.sink1, fmt.Sprintf("weight = %d", 1+n%3))}
	if p.hasC(n) {
		mail = append(mail, server(p.c))
	}
	if n%3 != 0 {
		mail = append(mail, server(p.d, fmt.Sprintf("down = %v", n%3 == 1), fmt.Sprintf("backup = %v", n%3 == 2)))
	}
	if n%4 < 2 {
		bulk = append(bulk, server(p.sink2))
	}
	text = workers(2) + upstream("mail", mail...) + upstream("bulk", bulk...) +
		proxy(p.mail, "mail", fmt.Sprintf("proxy_timeout = '%ds'", 660+n)) + proxy(p.bulk, "bulk")
	if p.hasExtra(n) {
		text += proxy(p.extra, "mail")
	}
	return text, len(mail) + len(bulk)
}

// hasC and hasExtra tell whether the server c and the second listener are in
// the nth configuration.
func (plan) hasC(n int) bool     { return n%2 == 0 }
func (plan) hasExtra(n int) bool { return n%4 == 1 || n%4 == 2 }

// 60 reloads under load, and as many more as 30,000 sessions take, T1 and T2:
// no session of smtp-source or of the ledger fails; 20 sessions stay alive
// through all of them and send a mail in the end; who is removed gets no new
// session; each reload says of each server what it is now; and nothing is left
// behind, not even another descriptor for a listener that stayed.
//
// Fails if a reload closes and reopens the listeners, be the new one opened
// after the old one is drained or at once; if connections are counted anew by a
// reload; and if a removed listener stays open.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	const (
		reloads, sessions = 60, 30_000
		most              = 200 // on a machine too busy for so many sessions
		holds             = 20
	)
	a, b, c, d := mx(t, "a"), mx(t, "b"), mx(t, "c"), mx(t, "d")
	plan := plan{
		a: a.Addr(), b: b.Addr(), c: c.Addr(), d: d.Addr(), mail: freeAddr(t),
		sink1: peers.SMTPSink(t).Addr, sink2: peers.SMTPSink(t).Addr, bulk: freeAddr(t), extra: freeAddr(t),
	}
	begin, _ := plan.config(0)
	p := smtptest.Start(t, begin)
	before := settledFDs(t, p)

	client := &ledger.Client{Addr: plan.mail, Concurrency: 4}
	held := hold(t, client, holds)
	stopClient := run(t, client)
	source := startSource(t, plan.bulk)
	total := func() int { return client.Ended() + source.sessions() }
	pace := time.NewTicker(200 * time.Millisecond)
	defer pace.Stop()
	n := 0
	for n < reloads || total() < sessions && n < most {
		<-pace.C
		n++
		config, servers := plan.config(n)
		mark := len(p.Log())
		reload(t, p, config)
		present := 0
		for _, s := range statuses(t, p.Log()[mark:]) {
			if s.State != "removed" {
				present++
			}
		}
		require.Equal(t, servers, present, "lines of servers after reload %d", n)
		if names := visits(t, plan.mail, 3); !plan.hasC(n) {
			require.NotContains(t, names, "c")
		}
		require.NotContains(t, visits(t, plan.mail, 2), "d", "it is down or a backup")
		if plan.hasExtra(n) {
			require.NotEmpty(t, visits(t, plan.extra, 1))
		} else {
			requireRefused(t, plan.extra)
		}
		require.NoError(t, held[n%holds].Noop())
	}
	stopClient()
	source.stop(t)

	smtptest.Eventually(t, patience, "only the held sessions are counted", func() bool {
		mark := len(p.Log())
		reload(t, p, begin)
		count := 0
		for _, s := range statuses(t, p.Log()[mark:]) {
			count += s.Connections
		}
		return count == holds
	})
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	requireAll(t, client, a, b, c, d)
	t.Logf("%d reloads; %d sessions of the ledger, %d of smtp-source, 0 failed", n, client.Ended(), source.sessions())
	require.Zero(t, p.Count("reload failed|keeps its old options"))

	smtptest.Eventually(t, patience, "the descriptors are those of before", func() bool {
		return fmt.Sprint(before) == fmt.Sprint(smtptest.FDs(t, p.Pid()))
	})
	require.LessOrEqual(t, smtptest.Threads(t, p.Pid()), 2+12)
	after := goroutines(t, p)
	require.Equal(t, goroutines(t, smtptest.Start(t, begin)), after)
}

// source is smtp-source as it sends to an address, session after session.
type source struct {
	runs    atomic.Int64 // that have ended well
	end     chan struct{}
	ended   chan struct{}
	failure string // valid when ended is closed
}

// sourceRun is the number of sessions of one run of smtp-source, which says of
// all of them together whether they went through.
const sourceRun = 500

func startSource(t *testing.T, addr string) *source {
	t.Helper()
	s := &source{end: make(chan struct{}), ended: make(chan struct{})}
	tool := peers.Path(t, "smtp-source")
	go func() {
		defer close(s.ended)
		for {
			select {
			case <-s.end:
				return
			default:
			}
			out, err := exec.CommandContext(t.Context(), tool, "-s", "8", "-m", fmt.Sprint(sourceRun), "-l", "1024",
				"-f", "ann@example.org", "-t", recipient, addr).CombinedOutput()
			if err != nil {
				s.failure = fmt.Sprintf("%v: %s", err, out)
				return
			}
			s.runs.Add(1)
		}
	}()
	return s
}

// sessions is the number of those that have gone through.
func (s *source) sessions() int { return int(s.runs.Load()) * sourceRun }

// stop waits for the run that is under way, and fails the test if any failed.
func (s *source) stop(t *testing.T) {
	t.Helper()
	close(s.end)
	<-s.ended
	require.Empty(t, s.failure, "smtp-source")
	require.Positive(t, s.sessions())
}

// goroutines ends a process in the way in which the Go runtime prints its
// goroutines, and counts those that the program has started.
func goroutines(t *testing.T, p *smtptest.Process) int {
	t.Helper()
	p.Signal(syscall.SIGABRT)
	p.Exit(patience)
	n := p.Count(`(?m)^created by (main\.|smtplb/)`)
	require.Positive(t, n)
	return n
}

// A thousand reloads on end cost no memory that stays, no descriptor and no
// thread, T1.
//
// Fails if the descriptor of a removed listener is forgotten.
func TestReloadsLeaveNothing(t *testing.T) {
	t.Parallel()
	const reloads = 1000
	servers := []string{server("192.0.2.1:25"), server("192.0.2.2:25")}
	config := [2]string{}
	for i := range config {
		config[i] = upstream("mail", servers[i:]...) + proxy(freeAddr(t), "mail") // another port each time
	}
	p := smtptest.Start(t, config[0])
	for range 10 {
		reload(t, p, config[1])
		reload(t, p, config[0])
	}
	fds, rss := len(settledFDs(t, p)), smtptest.RSS(t, p.Pid())
	for range reloads {
		hangUp(t, p)
	}
	reload(t, p, config[1])
	reload(t, p, config[0])
	smtptest.Eventually(t, patience, "no more descriptors than before", func() bool {
		return len(smtptest.FDs(t, p.Pid())) <= fds
	})
	require.Less(t, smtptest.RSS(t, p.Pid())-rss, int64(32<<20))
	require.LessOrEqual(t, smtptest.Threads(t, p.Pid()), 16)
}

// A session ends on the settings that it began with, whatever a reload makes of
// its listener.
//
// Fails if a session asks its listener for the settings of the day.
func TestSessionKeepsItsSettings(t *testing.T) {
	t.Parallel()
	a, b := mx(t, "a"), mx(t, "b")
	client := &ledger.Client{Addr: freeAddr(t)}
	patient := upstream("mail", server(a.Addr())) + proxy(client.Addr, "mail")
	p := smtptest.Start(t, patient)
	old := hold(t, client, 1)[0]
	reload(t, p, upstream("other", server(b.Addr()))+proxy(client.Addr, "other", "proxy_timeout = '3s'"))
	young := hold(t, client, 1)[0]
	require.Equal(t, "b", nameIn(young.Greeting()))
	reload(t, p, patient)

	smtptest.Eventually(t, patience, "the young session has timed out", func() bool { return b.Open() == 0 })
	require.Error(t, young.Noop())
	young.Abandon()
	require.NoError(t, old.Finish())
	require.Len(t, a.Messages(), 1)
}

// A group that is removed while sessions hold its servers, and comes back before
// they have ended, knows of them: max_conns holds.
//
// Fails if a group that comes back begins anew.
func TestGroupThatComesBackKnowsItsSessions(t *testing.T) {
	t.Parallel()
	a, b := mx(t, "a"), mx(t, "b")
	client := &ledger.Client{Addr: freeAddr(t)}
	full := upstream("mail", server(a.Addr(), "max_conns = 1")) + proxy(client.Addr, "mail")
	p := smtptest.Start(t, full)
	held := hold(t, client, 1)[0]
	reload(t, p, upstream("other", server(b.Addr()))+proxy(client.Addr, "other"))
	require.Equal(t, "b", visits(t, client.Addr, 1))
	reload(t, p, full)
	require.Equal(t, "-", visits(t, client.Addr, 1))
	require.NoError(t, held.Finish())
	smtptest.Eventually(t, patience, "the server has room again", func() bool { return visits(t, client.Addr, 1) == "a" })
}
