package stream

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"smtplb/internal/accesslog"
	"smtplb/internal/script"
	"smtplb/internal/smtptest"
)

// diary is an access log, and the variables of its lines.
type diary struct {
	t     testing.TB
	scope *script.Scope
	set   *accesslog.Set
	log   *accesslog.Log
	dir   string
}

// newDiary must be called before newRig: the log has to outlive the sessions.
func newDiary(t testing.TB, define ...func(*script.Scope) error) *diary {
	t.Helper()
	b := &diary{t: t, scope: script.NewScope(script.Process{}), set: accesslog.NewSet(zap.NewNop()), dir: t.TempDir()}
	t.Cleanup(func() { require.NoError(t, b.set.Close(patience)) })
	for _, f := range define {
		require.NoError(t, f(b.scope))
	}
	require.NoError(t, b.scope.Build())
	var err error
	b.log, err = b.set.Open(accesslog.Target{Path: b.dir + "/log"})
	require.NoError(t, err)
	return b
}

func (b *diary) value(text string) *script.Value {
	b.t.Helper()
	v, err := b.scope.Compile(text)
	require.NoError(b.t, err)
	return v
}

// keeps has a rig log in the format.
func (b *diary) keeps(format string) func(*plan) {
	b.t.Helper()
	f, err := b.scope.Format(script.EscapeDefault, format)
	require.NoError(b.t, err)
	return func(p *plan) {
		p.Scope = b.scope
		p.AccessLogs = append(p.AccessLogs, AccessLog{Log: b.log, Format: f})
	}
}

// lines waits for n lines.
func (b *diary) lines(n int) []string {
	b.t.Helper()
	var text []byte
	smtptest.Eventually(b.t, patience, fmt.Sprint(n, " lines logged"), func() bool {
		text, _ = os.ReadFile(b.dir + "/log")
		return strings.Count(string(text), "\n") >= n
	})
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(b.t, lines, n)
	return lines
}

// speak writes what the client says, and fails no test: it may have been left.
func speak(c net.Conn, text string) { _, _ = io.WriteString(c, text) }

func greetingOf(t *testing.T, c net.Conn) {
	saw, _, err := readUntil(c, goodGreeting, false)
	require.NoError(t, err)
	require.Equal(t, goodGreeting, saw)
}

// How each session ends in the log: $status as nginx sets it, and who ended it
// in which phase and why.
//
// Fails if any of causes is another, if clientLeft is no broken header before
// the header has come, or if a time-out is always blamed on one side.
func TestEnds(t *testing.T) {
	t.Parallel()
	ends := func(name, want string, server act, client func(*testing.T, *rig), options ...func(*plan)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newDiary(t)
			w := newWitness(t, server)
			g := newRig(t, []string{w.addr}, append([]func(*plan){gated, b.keeps("$status $session_end")}, options...)...)
			client(t, g)
			require.Equal(t, want, b.lines(1)[0])
		})
	}
	plain := func(p *plan) { p.Gate = nil }
	impatient := func(p *plan) { p.Timeout = time.Second }
	reset := func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	greeted := func(then func(*testing.T, *rig, net.Conn)) func(*testing.T, *rig) {
		return func(t *testing.T, g *rig) {
			c := g.dial()
			greetingOf(t, c)
			then(t, g, c)
		}
	}
	dials := func(_ *testing.T, g *rig) { g.dial() }
	dialsAs := func(then func(net.Conn)) func(*testing.T, *rig) {
		return func(_ *testing.T, g *rig) { then(g.dialFrom(frontAddr)) }
	}

	ends("server closes", "200 server/relay/closed", good, greeted(func(_ *testing.T, _ *rig, c net.Conn) {
		speak(c, quit)
		_, _ = io.ReadAll(c)
		c.Close()
	}))
	ends("client closes", "200 client/relay/closed", good, greeted(func(_ *testing.T, _ *rig, c net.Conn) { c.Close() }))
	ends("client resets", "200 client/relay/reset", good, greeted(func(_ *testing.T, _ *rig, c net.Conn) { reset(c) }))
	ends("server resets", "200 server/relay/reset", func(v *visit) bool {
		v.say(goodGreeting)
		_ = v.receive()
		reset(v.Conn)
		return false
	}, greeted(func(_ *testing.T, _ *rig, c net.Conn) {
		speak(c, quit)
		_, _ = io.ReadAll(c)
	}))
	ends("client is silent", "200 client/relay/timeout", good, greeted(func(*testing.T, *rig, net.Conn) {}), impatient)
	ends("server is silent", "200 server/relay/timeout", func(v *visit) bool { return v.say(goodGreeting) && silent(v) },
		greeted(func(_ *testing.T, _ *rig, c net.Conn) { speak(c, quit) }), impatient)
	ends("stopped", "200 us/relay/shutdown", good, greeted(func(_ *testing.T, g *rig, _ net.Conn) { g.End() }))
	ends("panic", "500 us/relay/error", good, greeted(func(_ *testing.T, _ *rig, c net.Conn) { speak(c, early) }), func(p *plan) {
		p.noise = true
		p.prepare = func(w *worker) {
			w.engine.onEvent = func(s *session) {
				if relaying(s) {
					panic("on purpose")
				}
			}
		}
	})

	ends("client leaves", "200 client/greeting/closed", silent, func(_ *testing.T, g *rig) {
		c := g.dial()
		g.comes(func(s *session) bool { return s.state == stateGreeting })
		c.Close()
	})
	ends("early talker", "400 client/greeting/pregreet", silent, func(_ *testing.T, g *rig) { speak(g.dial(), early) }, pregreet(PregreetReject))
	ends("silence", "502 server/greeting/timeout", silent, dials, func(p *plan) { p.NextTimeout = gateTimeout })
	ends("garbage", "502 server/greeting/garbage", greet("hello\r\n"), dials)
	ends("closed before the greeting", "502 server/greeting/closed", func(*visit) bool { return false }, dials)
	ends("busy", "200 server/relay/closed", func(v *visit) bool { v.say("421 4.3.2 busy\r\n"); return false }, func(_ *testing.T, g *rig) {
		c := g.dial()
		_, _ = io.ReadAll(c)
		c.Close()
	})
	ends("refused", "502 server/connect/refused", good, dials, func(p *plan) { p.servers[0].Addr = parseAddr(noListener(t)) })
	ends("none is up", "502 us/connect/no-server", good, dials, func(p *plan) { p.servers[0].Down = true })

	ends("denied", "403 us/accept/denied", good, dials, access(denyAll))
	ends("denied in silence", "403 us/accept/denied", good, dials, access(denyAll), plain)
	ends("session limit", "503 us/accept/session-limit", good, dials, func(p *plan) { p.MaxSessions = 0 })

	ends("bad header", "400 client/header/malformed", good, dialsAs(func(c net.Conn) { speak(c, early) }), fronted)
	ends("late header", "200 client/header/timeout", good, dialsAs(func(net.Conn) {}), fronted, unintroduced)
	ends("closed in place of a header", "400 client/header/closed", good, dialsAs(func(c net.Conn) { c.Close() }), fronted)
	ends("reset in place of a header", "200 client/header/reset", good, dialsAs(reset), fronted)
}

// One session, all that its line can say, and the same of one that tries three
// servers.
//
// Fails if bytes are counted on the wrong side, without the header that servers
// get, or for another attempt than the last, or if one attempt is not booked.
func TestFacts(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	w := newWitness(t, good)
	nobody := noListener(t)
	busy := newWitness(t, greet("421 busy\r\n"))
	g := newRig(t, []string{nobody, busy.addr, w.addr}, gated, backups, fronted, tell(HeaderV1), b.keeps(
		"$remote_addr $remote_port $realip_remote_addr $proxy_protocol_addr $proxy_protocol_server_port $server_addr:$server_port $server_name $connection "+
			"$bytes_received/$bytes_sent $upstream_addr|$upstream_bytes_sent|$upstream_bytes_received|$smtp_banner_code $limit_conn_status"),
		func(p *plan) { p.ServerName = "mx.example" })

	header := fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", claimed.Addr(), claimedTo.Addr(), claimed.Port(), claimedTo.Port())
	served(t, g, w, g.dialFrom(frontAddr), header)
	require.Equal(t, fmt.Sprintf("%s %d %s %s %d %s mx.example 1 %d/%d %s, %s, %s|0, %d, %d|0, 0, %d|220 -",
		claimed.Addr(), claimed.Port(), frontAddr, claimed.Addr(), claimedTo.Port(), g.port.name,
		len(quit), len(goodGreeting+goodbye), nobody, busy.addr, w.addr,
		len(header), len(header+quit), len(goodGreeting+goodbye)), b.lines(1)[0])
}

// The times of the servers tried are of each one, and what did not happen has
// none.
//
// Fails if a time is left out, or counted from the session's beginning.
func TestTimesOfAttempts(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	slowly := newWitness(t, func(v *visit) bool { return v.say("22") && silent(v) })
	addr := serve(t, func(c net.Conn) {
		time.Sleep(slow) // it is as slow as that
		speak(c, goodGreeting)
		_, _ = io.Copy(io.Discard, c)
	})
	g := newRig(t, []string{slowly.addr, noListener(t), addr}, gated, backups, func(p *plan) { p.Gate.Timeout = 3 * slow },
		b.keeps("$upstream_connect_time;$upstream_first_byte_time;$upstream_session_time;$smtp_banner_time;$session_time"))
	c := g.dial()
	greetingOf(t, c)
	c.Close()
	line := b.lines(1)[0]
	var connect, first, session [3]float64
	var banner, all float64
	n, err := fmt.Sscanf(line, "%f, -, %f;%f, -, %f;%f, %f, %f;%f;%f",
		&connect[0], &connect[2], &first[0], &first[2], &session[0], &session[1], &session[2], &banner, &all)
	require.NoError(t, err, line)
	require.Equal(t, 9, n, line)
	// However busy the machine is, each of these is one attempt's, and together
	// they are the session.
	const rounding = 0.003
	for i := range session {
		require.LessOrEqual(t, connect[i], first[i]+rounding, line)
		require.LessOrEqual(t, first[i], session[i]+rounding, line)
	}
	require.GreaterOrEqual(t, session[0], 3*slow.Seconds()-rounding, line)
	require.GreaterOrEqual(t, first[2], slow.Seconds()-rounding, line)
	require.InDelta(t, first[2]-connect[2], banner, rounding, line)
	require.LessOrEqual(t, session[0]+session[1]+session[2], all+rounding, line)
	require.Less(t, first[0], session[0], "the first words came long before the time was over: %s", line)
}

// A group of which no server can be tried is an attempt by its name.
//
// Fails if try does not book it.
func TestNoAttempt(t *testing.T) {
	t.Parallel()
	b := newDiary(t)
	g := newRig(t, []string{noListener(t)}, b.keeps("$upstream_addr $upstream_connect_time $upstream_session_time"),
		func(p *plan) { p.servers[0].Down = true })
	_, _ = io.ReadAll(g.dial())
	require.Equal(t, "test - 0.000", b.lines(1)[0])
}

// A session is logged where its condition holds, and to the path that its
// variables make.
//
// Fails if "0" counts as a condition that holds, or lines of one log are left
// out for another.
func TestConditionAndPath(t *testing.T) {
	t.Parallel()
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$loud", Source: "$status", Entries: []script.Entry{{Key: "403", Value: "1"}, {Key: "default", Value: "0"}}})
	})
	files, err := b.set.Open(accesslog.Target{Path: "by status", Variable: true})
	require.NoError(t, err)
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, b.keeps("$status never"), b.keeps("$status loud"), b.keeps("$status path"),
		access(denied("127.0.0.9/32")), func(p *plan) {
			p.AccessLogs[0].If = b.value("")
			p.AccessLogs[1].If = b.value("$loud")
			p.AccessLogs[2].Log, p.AccessLogs[2].Path = files, b.value(b.dir+"/$status.log")
		})
	for _, from := range []string{"127.0.0.1", "127.0.0.9"} {
		c := g.dialFrom(from)
		speak(c, quit)
		_, _ = io.ReadAll(c)
		c.Close()
	}
	require.Equal(t, []string{"403 loud"}, b.lines(1))
	require.NoError(t, b.set.Close(patience))
	for _, status := range []string{"200", "403"} {
		text, err := os.ReadFile(filepath.Join(b.dir, status+".log"))
		require.NoError(t, err)
		require.Equal(t, status+" path\n", string(text))
	}
}

// What a variable was worth at a session's start, it is worth in the log, and
// no other session's.
//
// Fails if keeps is always false, if keep does not begin the memory anew, or if
// two sessions share it.
func TestValuesAreKept(t *testing.T) {
	t.Parallel()
	const waves, atOnce = 2, 3
	b := newDiary(t,
		func(s *script.Scope) error {
			return s.Map(script.Map{Variable: "$when", Source: "$status", Entries: []script.Entry{{Key: "000", Value: "start-$remote_port"}, {Key: "default", Value: "end-$remote_port"}}})
		},
		func(s *script.Scope) error { return s.Set("$mine") })
	mine, err := b.scope.Assign("$mine", "${remote_port}x")
	require.NoError(t, err)
	w := newWitness(t, good)
	tests := []struct {
		option func(*plan)
		want   string
	}{
		{func(*plan) {}, "end-PORT "},
		{func(p *plan) { p.KeyValue = b.value("$remote_port") }, "end-PORT "},
		{func(p *plan) { p.KeyValue = b.value("$when") }, "start-PORT "},
		{func(p *plan) { p.Limits = []Limit{{NewZone("z", 1<<20), b.value("$when"), 1}} }, "start-PORT "},
		{func(p *plan) { p.Sets = []*script.Assignment{mine} }, "end-PORT PORTx"},
	}
	for _, test := range tests {
		g := newRig(t, []string{w.addr}, b.keeps("$remote_port $when $mine"), test.option)
		for range waves {
			var clients []net.Conn
			for range atOnce {
				clients = append(clients, g.dial())
			}
			for _, c := range clients {
				greetingOf(t, c)
			}
			for _, c := range clients {
				c.Close()
			}
			g.gone(patience)
		}
	}
	for i, line := range b.lines(waves * atOnce * len(tests)) {
		port, rest, _ := strings.Cut(line, " ")
		require.Equal(t, strings.ReplaceAll(tests[i/(waves*atOnce)].want, "PORT", port), rest)
	}
}

const tenVariables = `$remote_addr:$remote_port [$time_local] $status $bytes_sent $bytes_received $session_time "$upstream_addr" $upstream_connect_time $connection`

// bareSessions returns what runs a session between plain blocking descriptors,
// and its end.
func bareSessions(t testing.TB, options ...func(*plan)) func() {
	t.Helper()
	l := bareSocket(t)
	require.NoError(t, unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(l, 8))
	name, err := unix.Getsockname(l)
	require.NoError(t, err)
	in4 := name.(*unix.SockaddrInet4)
	g := newRig(t, []string{fmt.Sprintf("127.0.0.1:%d", in4.Port)}, append(options, func(p *plan) {
		p.Logger = zap.NewNop()
		p.listen = "0.0.0.0:0"
	})...)
	to := parseAddr(g.port.name).TCP
	target := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(to.Port())}
	talk := &bareTalk{rig: g, up: make([]byte, 40), down: make([]byte, 60), scratch: make([]byte, 100)}
	return func() {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(client, target)
		}
		if err != nil {
			panic(err)
		}
		server, _, err := unix.Accept(l)
		if err != nil {
			panic(err)
		}
		talk.client, talk.server = client, server
		talk.exchange()
		unix.Close(client)
		if n, _ := unix.Read(server, talk.scratch); n != 0 {
			panic("no end")
		}
		unix.Close(server)
	}
}

// A log of ten variables, a limit, and a key with a map cost a session no
// allocation. Of what allocates once for many lines there is a little.
//
// Fails if the record is made anew for each session, or the line is.
func TestLogIsNotAllocated(t *testing.T) {
	b := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$pool", Source: "$remote_addr", Entries: []script.Entry{{Key: "default", Value: "mx-$remote_addr"}}})
	})
	const rounds = 2000
	count := func(options ...func(*plan)) float64 {
		session := bareSessions(t, options...)
		for range rounds / 4 {
			session()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			session()
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / rounds
	}
	without := count()
	with := count(b.keeps(tenVariables), func(p *plan) {
		p.KeyValue = b.value("$pool")
		p.Limits = []Limit{{NewZone("z", 1<<20), b.value("$pool"), 9}}
	})
	t.Logf("allocations for each session: %.3f without, %.3f with", without, with)
	require.InDelta(t, without, with, 0.1)
}

// An idle session, which has been evaluated at its start and tries its second
// server, is still small.
//
// Fails if a record holds what a pool could.
func TestSessionIsSmall(t *testing.T) {
	t.Parallel()
	n := unsafe.Sizeof(session{}) + unsafe.Sizeof(record{}) + 2*unsafe.Sizeof(attempt{}) + 2*unsafe.Sizeof(new(counter))
	t.Log(n, "bytes")
	require.Less(t, n, uintptr(1024))
}

// BenchmarkSession is the time of one session, and what the processors spend on
// it, peers and the writer of the log included.
func BenchmarkSession(b *testing.B) {
	for _, x := range []struct {
		name   string
		logs   bool
		buffer int
	}{{"without", false, 0}, {"ten-variables", true, 0}, {"ten-variables-buffered", true, 64 << 10}} {
		b.Run(x.name, func(b *testing.B) {
			var options []func(*plan)
			if x.logs {
				d := newDiary(b)
				log, err := d.set.Open(accesslog.Target{Path: d.dir + "/buffered", Buffer: x.buffer})
				require.NoError(b, err)
				d.log = log
				options = append(options, d.keeps(tenVariables))
			}
			session := bareSessions(b, options...)
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				session()
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
