package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// T23: the program is not run for longer than its time-outs, as it is where a
// process is stopped, a container throttled or a machine moved. Clients and
// servers speak meanwhile, and no session is cut: neither one in dialogue, nor
// one whose server greets. What came while nobody looked came in time.
//
// Fails if timers fire before a loop has looked for what came while it was not
// run.
func TestProgramStandsStill(t *testing.T) {
	t.Parallel()
	const (
		sessions = 20
		standing = 6 * time.Second // the time-outs are a second less
	)
	greet := make(chan struct{})
	a, b := mx(t, "a"), ledger.NewServer(t, smtptest.Script{Name: "b", Connect: smtptest.Step{Until: greet}})
	talks := &ledger.Client{Addr: freeAddr(t), Timeout: time.Minute}
	waits := &ledger.Client{Addr: freeAddr(t), Sessions: sessions, Concurrency: sessions, Timeout: time.Minute}
	p := smtptest.Start(t, workers(2)+verbose+proxy(talks.Addr, a.Addr(), "proxy_timeout = '5s'")+
		proxy(waits.Addr, b.Addr(), "smtp_greeting_timeout = '5s'", "proxy_next_upstream_timeout = '5s'"))
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		waits.Run(t.Context())
	}()
	smtptest.Eventually(t, patience, "sessions wait for a greeting", func() bool { return b.Accepted() == sessions })
	held := hold(t, talks, sessions)
	smtptest.Eventually(t, patience, "the program sleeps", func() bool {
		used := smtptest.CPU(t, p.Pid())
		time.Sleep(50 * time.Millisecond) // longer than a loop waits at a time before it does
		return smtptest.CPU(t, p.Pid()) == used
	})

	p.Signal(syscall.SIGSTOP)
	spoken := make(chan error, sessions)
	for _, h := range held {
		go func() { spoken <- h.Noop() }()
	}
	close(greet)
	time.Sleep(standing)
	p.Signal(syscall.SIGCONT)
	for range held {
		require.NoError(t, <-spoken)
	}
	<-greeted
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	requireAll(t, talks, a)
	requireAll(t, waits, b)
}
