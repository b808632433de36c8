package stream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"smtplb/balancer"
	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
	"smtplb/listener"
	"smtplb/upstream"
)

const (
	// patience is how long anything may take that is to happen at once.
	patience = 10 * time.Second
	// shortly is patience with what must not wait for a session that lingers,
	// or for any longer timer.
	shortly = lingerTimeout * time.Millisecond * 4 / 5
)

// TestMain fails the package if any of its tests left a descriptor or a
// goroutine behind. It fails if Pipes.Discard closes one end only, or Loop.Run
// does not close its own.
func TestMain(m *testing.M) {
	// Loops wait beside the scheduler: one processor for each that a test runs,
	// and some for the peers.
	runtime.GOMAXPROCS(64)
	// What the runtime opens and starts once and for all.
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
	}
	fds, goroutines := openFDs(), runtime.NumGoroutine()
	code := m.Run()
	deadline := time.Now().Add(patience)
	for code == 0 && (openFDs() > fds || runtime.NumGoroutine() > goroutines) {
		if time.Now().After(deadline) {
			fmt.Printf("left behind: %d descriptors (before: %d), %d goroutines (before: %d)\n",
				openFDs(), fds, runtime.NumGoroutine(), goroutines)
			_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
			code = 1
		}
		runtime.GC() // io.Copy keeps pipes of its own until then
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(code)
}

func openFDs() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

// plan is what a rig is made of.
type plan struct {
	Options
	Route
	listen  string
	servers []upstream.Server
	prepare func(*worker)   // runs on every loop before the first session
	method  upstream.Method // nil: round robin
	checked bool            // somebody probes the servers
	queue   int             // sessions that may wait for one
	noise   bool            // panics and spins are what the test wants
}

// rig is an engine with one port in front of a group of servers, for tests
// that speak to both sides through real sockets. When its test ends, it stops
// and shows that nothing is left of any session: see settle.
type rig struct {
	*Engine
	t     testing.TB
	port  *Port
	epoch *Epoch
	group *upstream.Group
	logs  *observer.ObservedLogs
	noise bool
}

// newRig starts an engine in front of servers, given as "127.0.0.1:25" or
// "unix:/path".
func newRig(t testing.TB, servers []string, options ...func(*plan)) *rig {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	p := plan{
		Options: Options{Workers: 1, Pipes: 64, MaxSessions: 10_000, Logger: zap.New(core)},
		Route: Route{
			ConnectTimeout: patience,
			Timeout:        time.Minute,
			NextUpstream:   true,
			HalfClose:      true,
			NoDelay:        true,
			BufferSize:     16 << 10,
		},
		listen: "127.0.0.1:0",
	}
	for _, s := range servers {
		p.servers = append(p.servers, upstream.Server{Name: s, Addr: parseAddr(s), Weight: 1, MaxFails: 1, FailTimeout: 60})
	}
	for _, option := range options {
		option(&p)
	}
	if p.method == nil {
		p.method = balancer.RoundRobin{}
	}
	method := func([]upstream.Server) upstream.Method { return p.method }
	p.Group = upstream.NewGroup(upstream.Config{Name: "test", Method: method, Servers: p.servers, Checked: p.checked, Queue: p.queue})

	engine, err := New(p.Options)
	require.NoError(t, err)
	p.Epoch = engine.NewEpoch()
	g := &rig{Engine: engine, t: t, epoch: p.Epoch, group: p.Group, logs: logs, noise: p.noise}
	if p.prepare != nil {
		g.ask(p.prepare)
	}
	socket, err := listener.Open(listener.Options{Addr: listener.Addr(parseAddr(p.listen)), NoDelay: true})
	require.NoError(t, err)
	g.port = NewPort(socket, NewRoutes(socket.Addr(), &p.Route))
	engine.Open(g.port)
	t.Cleanup(g.settle)
	return g
}

// restRoute is a copy of the route of those who have none of their own at a port.
func (p *Port) restRoute() Route { return *p.routes.Load().rest }

// setRoute gives a port other routes.
func (p *Port) setRoute(rest *Route, own ...AddrRoute) {
	p.SetRoutes(NewRoutes(p.socket.Addr(), rest, own...))
}

func parseAddr(s string) upstream.Addr {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return upstream.Addr{Path: path}
	}
	return upstream.Addr{TCP: netip.MustParseAddrPort(s)}
}

// settle ends the engine and shows what must be true whatever the test did:
// every session can be ended, no server and no epoch has one left, every pipe is
// back and empty, and no handler panicked or span.
func (g *rig) settle() {
	wait := patience
	if g.t.Failed() {
		wait = time.Second
	}
	select {
	case <-g.port.closed:
	default:
		await(g.t, wait, g.Close(g.port), "the port did not close")
	}
	g.End()
	await(g.t, wait, g.Drained(), "sessions left after End")
	await(g.t, wait, g.epoch.End(), "sessions of the epoch left after all have ended")
	for _, s := range g.group.Snapshot(g.Seconds()) {
		if s.Conns != 0 {
			g.t.Errorf("server %s still has %d sessions", s.Name, s.Conns)
		}
	}
	g.ask(g.checkPipes)
	g.Stop()
	for _, e := range g.logs.All() {
		if !g.noise && (strings.Contains(e.Message, "panicked") || strings.Contains(e.Message, "spins")) {
			g.t.Error(e.Message, e.ContextMap())
		}
	}
}

// await fails the test if c is not closed within the time.
func await(t testing.TB, within time.Duration, c <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(within):
		t.Error(otherwise)
	}
}

// checkPipes shows that all pipes of a worker without sessions are in its free
// list, and empty: the next borrower of one that is not would send a stranger's
// bytes.
func (g *rig) checkPipes(w *worker) {
	pipes := &w.loop.Pipes
	limit, open := pipes.Limit, pipes.Open()
	pipes.Limit = 0 // what Get still has to give is free
	var free []reactor.Pipe
	for {
		p, errno := pipes.Get()
		if errno != 0 {
			break
		}
		free = append(free, p)
		if n, err := unix.IoctlGetInt(p.R, unix.TIOCINQ); n != 0 || err != nil {
			g.t.Errorf("a free pipe holds %d bytes (%v)", n, err)
		}
	}
	for _, p := range free {
		pipes.Put(p)
	}
	pipes.Limit = limit
	if len(free) != open {
		g.t.Errorf("%d of %d pipes are not back", open-len(free), open)
	}
}

// socketOption is done to a socket before it connects or listens.
type socketOption = func(network, address string, c syscall.RawConn) error

// dial connects a client.
func (g *rig) dial(option ...socketOption) net.Conn {
	g.t.Helper()
	c, err := g.connect(option...)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	return c
}

// connect is dial for any goroutine; the caller closes the connection.
func (g *rig) connect(option ...socketOption) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	for _, f := range option {
		d.Control = f
	}
	network, addr := "tcp", g.port.name
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(6 * patience))
}

// pair connects a client and takes the other end of its session from l, the
// listener of the rig's only server.
func (g *rig) pair(l net.Listener, option ...socketOption) (client, server net.Conn) {
	g.t.Helper()
	client = g.dial(option...)
	server, err := l.Accept()
	require.NoError(g.t, err)
	g.t.Cleanup(func() { server.Close() })
	require.NoError(g.t, server.SetDeadline(time.Now().Add(6*patience)))
	return client, server
}

// gone waits until the rig has no session.
func (g *rig) gone(within time.Duration) {
	g.t.Helper()
	smtptest.Eventually(g.t, within, "no session left", func() bool { return g.Sessions() == 0 })
}

// each calls f for every session, on its loop.
func (g *rig) each(f func(*session)) {
	g.ask(func(w *worker) {
		w.sessions.Each(func(_ uint32, s *session) { f(s) })
	})
}

// any reports whether f holds for any session.
func (g *rig) any(f func(*session) bool) (found bool) {
	g.each(func(s *session) { found = found || f(s) })
	return found
}

// of limits f to the session of a TCP client.
func of(client net.Conn, f func(*session) bool) func(*session) bool {
	port := client.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	return func(s *session) bool { return s.from.Port() == port && f(s) }
}

func connecting(s *session) bool { return s.state == stateConnecting }
func relaying(s *session) bool   { return s.state == stateRelaying }

// comes reports whether f soon holds for any session.
func (g *rig) comes(f func(*session) bool) bool {
	return soon(func() bool { return g.any(f) })
}

// soon reports whether f holds before long.
func soon(f func() bool) bool {
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// freeze stops loops until thaw is called, so that whatever happens meanwhile
// reaches them at one stroke.
func freeze(workers ...*worker) (thaw func()) {
	gate := make(chan struct{})
	for _, w := range workers {
		stopped := make(chan struct{})
		w.loop.Post(func() {
			close(stopped)
			<-gate
		})
		<-stopped
	}
	return func() { close(gate) }
}

// account is the log line of a session.
type account struct {
	client, peer, end                          string
	fromClient, toServer, fromServer, toClient int64
}

// accounts returns the log lines of the sessions that have ended.
func (g *rig) accounts() (all []account) {
	for _, e := range g.logs.FilterMessage("session ended").All() {
		m := e.ContextMap()
		all = append(all, account{
			client: m["client"].(string), peer: m["peer"].(string), end: m["end"].(string),
			fromClient: m["from_client"].(int64), toServer: m["to_server"].(int64),
			fromServer: m["from_server"].(int64), toClient: m["to_client"].(int64),
		})
	}
	return all
}

// serve runs f for each connection to a new server and returns its address.
func serve(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	return smtptest.Serve(t, listen(t, "tcp"), func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(6 * patience))
		f(c)
	}).Addr()
}

// listen opens a listener for servers.
func listen(t testing.TB, network string, option ...socketOption) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/server"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	for _, f := range option {
		lc.Control = f
	}
	l, err := lc.Listen(context.Background(), network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// parallel runs f for 0 to n-1, several at a time, and fails the test if one of
// them fails; those not begun are then left out.
func parallel(t testing.TB, n, width int, f func(i int) error) {
	t.Helper()
	var running sync.WaitGroup
	var begun atomic.Int64
	for range width {
		running.Go(func() {
			for i := int(begun.Add(1)) - 1; i < n && !t.Failed(); i = int(begun.Add(1)) - 1 {
				if err := f(i); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	running.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
