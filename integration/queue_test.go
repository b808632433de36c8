package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// queued is a group whose sessions wait for a place.
func queued(queue string, servers ...string) string {
	return checkedUpstream("scanners", "check = false\nqueue = "+queue, servers...)
}

// scanner is a server that counts how many connections it has at a time.
type scanner struct {
	*ledger.Server
	now, most atomic.Int64
}

func newScanner(t testing.TB, script smtptest.Script) *scanner {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &scanner{}
	s.Server = ledger.Serve(t, countingListener{ln, s}, script)
	return s
}

type countingListener struct {
	net.Listener
	s *scanner
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for n, most := l.s.now.Add(1), l.s.most.Load(); n > most && !l.s.most.CompareAndSwap(most, n); {
		most = l.s.most.Load()
	}
	return &countedConn{TCPConn: c.(*net.TCPConn), s: l.s}, nil
}

type countedConn struct {
	*net.TCPConn
	s    *scanner
	once sync.Once
}

// Close counts down first: who sees the end may come back at once.
func (c *countedConn) Close() error {
	c.once.Do(func() { c.s.now.Add(-1) })
	return c.TCPConn.Close()
}

// fullPool is a group of scanners with max_conns, in front of which sessions wait.
func fullPool(t testing.TB, n, maxConns int, script smtptest.Script) (scanners []*scanner, servers []string, stores []ledger.Store) {
	for i := range n {
		script.Name = fmt.Sprintf("scanner%d", i)
		s := newScanner(t, script)
		scanners = append(scanners, s)
		servers = append(servers, server(s.Addr(), fmt.Sprintf("max_conns = %d", maxConns)))
		stores = append(stores, s)
	}
	return scanners, servers, stores
}

// 500 clients come at once to a pool that takes 50. None is refused, and no
// scanner has more than its ten at a time, but all have these.
//
// Fails if sessions do not wait, if a place is given away that is not free, if
// one that is free is not given away, or if those who wait in the one loop are
// not woken by the other.
func TestQueueServesEverybody(t *testing.T) {
	t.Parallel()
	const slots, clients = 10, 500
	needFiles(t, 4*clients)
	for _, method := range []string{"round_robin", "least_conn"} {
		scanners, servers, stores := fullPool(t, 5, slots, smtptest.Script{Dot: smtptest.Step{Wait: 50 * time.Millisecond, Jitter: 50 * time.Millisecond}})
		client := &ledger.Client{Addr: freeAddr(t), Sessions: clients, Concurrency: clients, Timeout: time.Minute}
		p := smtptest.Start(t, workers(2)+"worker_rlimit_nofile = 4096\n"+queued("500\nmethod = '"+method+"'", servers...)+proxy(client.Addr, "scanners"))
		begun := time.Now()
		client.Run(t.Context())
		t.Logf("%s: %d mails in %v, %v", method, clients, time.Since(begun), client.Tally().Banner)
		requireAll(t, client, stores...)
		for _, s := range scanners {
			require.EqualValues(t, slots, s.most.Load(), "connections at a time")
		}
		require.Zero(t, p.Count("queue is full"))
	}
}

// from is a way to connect with a source address.
func from(ip string) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext
}

// One address with 400 sessions has all places and most of the queue, when 100
// others come, each with one session. These have had their turn by the time that
// each address has had one: 101 places further on.
//
// Fails if sessions are served in the order in which they come.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	const slots, greedy, others = 50, 400, 100
	needFiles(t, 4*(greedy+others))
	open := make(chan struct{})
	_, servers, stores := fullPool(t, 5, slots/5, smtptest.Script{Quit: smtptest.Step{Until: open}})
	addr := freeAddr(t)
	p := smtptest.Start(t, workers(2)+"worker_rlimit_nofile = 4096\n"+queued("{ size = 500, timeout = '2m' }", servers...)+proxy(addr, "scanners"))

	var (
		served atomic.Int64
		mu     sync.Mutex
		turns  []int // of the others
		all    sync.WaitGroup
	)
	come := func(client *ledger.Client, note bool) {
		all.Go(func() {
			h, err := client.Hold(t.Context())
			if err != nil {
				t.Errorf("refused: %v", err)
				return
			}
			if n := int(served.Add(1)); note {
				mu.Lock()
				turns = append(turns, n)
				mu.Unlock()
			}
			if err := h.Finish(); err != nil {
				t.Error(err)
			}
		})
	}
	base := len(settledFDs(t, p))
	inside := func(n int) {
		smtptest.Eventually(t, patience, "clients wait", func() bool { return len(smtptest.FDs(t, p.Pid())) >= base+n+slots })
	}
	glutton := &ledger.Client{Addr: addr, Dial: from("127.0.0.2"), Timeout: time.Minute}
	for range greedy {
		come(glutton, false)
	}
	inside(greedy)
	smtptest.Eventually(t, patience, "all places are taken", func() bool { return served.Load() == slots })
	for i := range others {
		come(&ledger.Client{Addr: addr, Dial: from(fmt.Sprintf("127.0.1.%d", i+1)), Timeout: time.Minute}, true)
	}
	inside(greedy + others)
	close(open)
	all.Wait()
	require.EqualValues(t, greedy+others, served.Load())
	slices.Sort(turns)
	t.Logf("the last of the others was the %dth of %d to be served", turns[others-1], served.Load())
	// Clients may note their greetings in another order than they got them in,
	// as far as they have a place at the same time; a few of a busy machine's
	// have theirs for long before they do.
	require.LessOrEqual(t, turns[others*9/10], slots+others+1+slots, "%v", turns)
	requireAll(t, glutton, of{glutton, stores[0]}, of{glutton, stores[1]}, of{glutton, stores[2]}, of{glutton, stores[3]}, of{glutton, stores[4]})
}

// wait connects, to wait for a greeting.
func wait(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn, bufio.NewReader(conn)
}

// waits waits until the program has n descriptors more than at first.
func waits(t testing.TB, p *smtptest.Process) func(n int) {
	base := len(settledFDs(t, p))
	return func(n int) {
		t.Helper()
		smtptest.Eventually(t, patience, fmt.Sprintf("%d clients wait", n), func() bool { return len(smtptest.FDs(t, p.Pid())) >= base+n })
	}
}

const tooMany = `^421 4\.3\.2 \S+ Too many sessions, try again later\r\n$`

// Who has waited for too long is told so, who finds the queue full is told at
// once, and who leaves it makes room.
//
// Fails if there is no time-out, if it is not that of the queue, if the queue
// has no end, or if those who left still count.
func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, verbose+queued("{ size = 1, timeout = '5s' }", server(a.Addr(), "max_conns = 1"))+
		proxy(client.Addr, "scanners", "proxy_next_upstream_timeout = '500ms'"))
	more := waits(t, p)
	hold(t, client, 1)
	leaver, _ := wait(t, client.Addr)
	more(3)
	full, in := wait(t, client.Addr)
	begun := time.Now()
	said, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Regexp(t, tooMany, string(said))
	require.Less(t, time.Since(begun), timeout/2, "a full queue refuses at once")
	full.Close()
	leaver.Close()
	p.Await(`session ended .*"end": "client closed"`, 1)

	begun = time.Now()
	_, in = wait(t, client.Addr)
	said, err = io.ReadAll(in)
	require.NoError(t, err)
	require.Regexp(t, tooMany, string(said))
	require.GreaterOrEqual(t, time.Since(begun), timeout-10*time.Millisecond)
	p.Await(`session ended .*"end": "queue time-out"`, 1)
	p.Await(`session ended .*"end": "queue full"`, 1)
}

// A reload that lets a server have more sessions serves those who wait.
//
// Fails if only the end of a session makes room.
func TestQueueAfterReload(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t)}
	config := func(maxConns int) string {
		return queued("10", server(a.Addr(), fmt.Sprintf("max_conns = %d", maxConns))) + proxy(client.Addr, "scanners")
	}
	p := smtptest.Start(t, config(1))
	more := waits(t, p)
	hold(t, client, 1)
	_, in := wait(t, client.Addr)
	more(3)
	require.Equal(t, 1, a.Accepted())
	reload(t, p, config(2))
	greeting, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, greeting, "220 a")
}

// A server dies while sessions wait. Whoever is given its place goes back to the
// queue, and is served by the other.
//
// Fails if a session that was given a dead server is refused.
func TestQueueWhenServerDies(t *testing.T) {
	t.Parallel()
	a, b := mx(t, "a"), mx(t, "b")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, workers(2)+queued("10", server(a.Addr(), "max_conns = 1"), server(b.Addr(), "max_conns = 1"))+
		proxy(client.Addr, "scanners"))
	more := waits(t, p)
	held := hold(t, client, 2)
	require.Equal(t, "b", nameIn(held[1].Greeting()))
	var readers []*bufio.Reader
	var conns []net.Conn
	for range 3 {
		conn, in := wait(t, client.Addr)
		conns, readers = append(conns, conn), append(readers, in)
	}
	more(7)
	a.Kill()
	held[0].Abandon()
	p.Await("connect failed", 1)
	require.NoError(t, held[1].Finish())
	// One after the other, whatever their order.
	served := make(chan error, len(readers))
	for i, in := range readers {
		go func() {
			greeting, err := in.ReadString('\n')
			if err == nil && greeting[:5] != "220 b" {
				err = fmt.Errorf("want a greeting of b, got %q", greeting)
			}
			conns[i].Close()
			served <- err
		}()
	}
	for range readers {
		require.NoError(t, <-served)
	}
}

// At a stop, those who wait are told.
//
// Fails if a stop waits for them, or they are cut off without a word.
func TestQueueAtStop(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, queued("10", server(a.Addr(), "max_conns = 1"))+proxy(client.Addr, "scanners"))
	more := waits(t, p)
	hold(t, client, 1)
	_, in := wait(t, client.Addr)
	more(3)
	p.Signal(syscall.SIGTERM)
	said, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Regexp(t, `^421 4\.3\.2 \S+ Service is shutting down, try again later\r\n$`, string(said))
	require.Zero(t, p.Exit(patience))
}
