package integration

import (
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// T17: far more clients than there are descriptors. Those that have a session
// keep it; the others wait in the kernel, cost nothing, and are served in the
// end.
//
// Fails if accepting does not pause while there is no room (the loops spin), if
// the limit of sessions leaves the pipes out of account (it comes too late), or
// if a pause does not end.
func TestMoreClientsThanDescriptors(t *testing.T) {
	t.Parallel()
	const (
		nofile  = 1024
		loops   = 2
		clients = 5000
		window  = 3 * time.Second
	)
	needFiles(t, 3*clients)
	server := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Size: 512, Timeout: time.Minute}
	p := smtptest.Start(t, "worker_rlimit_nofile = "+strconv.Itoa(nofile)+"\n"+workers(loops)+proxy(client.Addr, server.Addr(), noGate))
	seats := sessionLimit(t, p)
	require.Greater(t, seats, 300, "of %d descriptors", nofile)
	crowd := gather(t, client, clients)

	// Who gets a session keeps it for now.
	seated := make([]*ledger.Held, seats)
	for i := range seated {
		seated[i] = crowd.next(t)
	}
	smtptest.Eventually(t, patience, "all clients wait", func() bool { return crowd.dialled() == clients })
	p.Await("accepting paused", 1)

	lines, cpu, begun := strings.Count(p.Log(), "\n"), smtptest.CPU(t, p.Pid()), time.Now()
	for i := 0; i < seats || time.Since(begun) < window; i++ {
		require.NoError(t, seated[i%seats].Noop(), "a session while others wait")
		if i%32 == 0 {
			require.LessOrEqual(t, len(smtptest.FDs(t, p.Pid())), nofile)
		}
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(begun)
	share := float64(smtptest.CPU(t, p.Pid())-cpu) / float64(took)
	lines = strings.Count(p.Log(), "\n") - lines
	t.Logf("%d sessions, %d clients wait: %.1f %% of a processor, %d lines of log in %v", seats, clients-seats, 100*share, lines, took)
	require.Less(t, share, 0.2, "share of a processor used while nothing can be accepted")
	require.LessOrEqual(t, lines, int(took.Seconds())+2, "lines of log")
	// A loop may let one in while another does.
	require.Less(t, len(crowd.seated), loops, "sessions beyond the limit")
	for len(crowd.seated) > 0 {
		seated = append(seated, crowd.next(t))
	}

	// Places get free: others take them.
	for range loops {
		require.NoError(t, seated[0].Finish())
		seated = seated[1:]
	}
	freed := time.Now()
	seated = append(seated, crowd.next(t))
	t.Logf("a descriptor that has become free is used after %v", time.Since(freed))

	// In the end everybody has been served.
	var all sync.WaitGroup
	for i := range clients - loops {
		if i == len(seated) {
			seated = append(seated, crowd.next(t))
		}
		h := seated[i]
		all.Go(func() {
			if err := h.Finish(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	requireAll(t, client, server)
	require.Equal(t, clients, server.Accepted())
	require.Zero(t, p.Count("no descriptors"), "the limit of sessions comes first")
}

// crowd is many clients that all come at once and stay.
type crowd struct {
	seated chan seat // those that have a session

	mu    sync.Mutex // protects below
	dials int
	conns []net.Conn
}

type seat struct {
	held *ledger.Held
	err  error
}

// gather sends n clients, all at once.
func gather(t testing.TB, client *ledger.Client, n int) *crowd {
	t.Helper()
	c := &crowd{seated: make(chan seat, n)}
	client.Dial = c.dial
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			h, err := client.Hold(ctx)
			c.seated <- seat{h, err}
		})
	}
	t.Cleanup(func() {
		cancel()
		c.leave()
		all.Wait()
		c.leave() // those that were connecting
	})
	return c
}

func (c *crowd) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	c.dials++
	c.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *crowd) dialled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}

// leave closes all connections.
func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
}

// next is another client that has a session.
func (c *crowd) next(t testing.TB) *ledger.Held {
	t.Helper()
	select {
	case s := <-c.seated:
		require.NoError(t, s.err)
		return s.held
	case <-time.After(patience):
		require.FailNow(t, "nobody gets a session")
		return nil
	}
}

// sessionLimit is what the program says its limit of sessions is.
func sessionLimit(t testing.TB, p *smtptest.Process) int {
	t.Helper()
	m := regexp.MustCompile(`"max_sessions": (\d+)`).FindStringSubmatch(p.Log())
	require.Len(t, m, 2)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}
