package stream

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/errorlog"
	"smtplb/internal/smtptest"
)

func nginxLog(p *plan) { p.NginxLog = true }

// ngxLevels are the names of the levels that occur.
var ngxLevels = map[zapcore.Level]string{
	errorlog.Info: "info", errorlog.Warn: "warn", errorlog.Error: "error", errorlog.Crit: "crit", errorlog.Alert: "alert",
}

var ephemeral = regexp.MustCompile(`(client|proxy) (127\.0\.0\.1|\[::1\]):\d+ connected`)

// ngxLines are the lines so far, with names in place of what differs from run
// to run.
func (g *rig) ngxLines(servers ...string) (lines []string) {
	names := []string{g.port.name, "LISTEN"}
	for i, s := range servers {
		names = append(names, s, "SERVER"+string(rune('1'+i)))
	}
	for _, e := range g.logs.All() {
		require.Empty(g.t, e.Context, e.Message)
		line := "[" + ngxLevels[e.Level] + "] " + strings.NewReplacer(names...).Replace(e.Message)
		lines = append(lines, ephemeral.ReplaceAllString(line, "$1 $2:PORT connected"))
	}
	return lines
}

// talk writes, and reads to the end.
func talk(t *testing.T, c net.Conn, words string) string {
	t.Helper()
	_, err := io.WriteString(c, words)
	require.NoError(t, err)
	saw, _ := io.ReadAll(c) // a reset is an end, too
	c.Close()
	return string(saw)
}

// reset closes a connection with a reset.
func reset(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.(*net.TCPConn).SetLinger(0))
	c.Close()
}

// What nginx 1.22.1 has written for the same sessions, but for the addresses.
const (
	ngxClient   = `[info] *1 client 127.0.0.1:PORT connected to LISTEN`
	ngxProxy    = `[info] *1 proxy 127.0.0.1:PORT connected to SERVER1`
	ngxFrom     = `, client: 127.0.0.1, server: LISTEN`
	ngxNothing  = `, bytes from/to client:0/0, bytes from/to upstream:0/0`
	ngxRefused  = `[error] *1 connect() failed (111: Connection refused) while connecting to upstream` + ngxFrom
	ngxGreeted  = `, bytes from/to client:0/8, bytes from/to upstream:8/0`
	ngxQuit     = `, bytes from/to client:6/17, bytes from/to upstream:17/6`
	ngxReset    = `, bytes from/to client:5/8, bytes from/to upstream:8/5`
	ngxHeaderIn = ` while reading PROXY protocol` + ngxFrom
)

// Each session is logged as nginx would. It fails if a word, a comma, a level or
// one of the four numbers differs, if a line is missing or one too many, and for
// the half-closed ones if the side that ended first is named.
func TestNginxLines(t *testing.T) {
	t.Parallel()
	// The server greets, answers QUIT, and resets at RST.
	serverAddr := serve(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "220 hi\r\n")
		b := make([]byte, 100)
		for {
			n, err := c.Read(b)
			switch {
			case err != nil:
				return
			case strings.Contains(string(b[:n]), "QUIT"):
				_, _ = io.WriteString(c, "221 bye\r\n")
				return
			case strings.Contains(string(b[:n]), "RST"):
				_ = c.(*net.TCPConn).SetLinger(0)
				return
			}
		}
	})
	refused1, refused2 := smtptest.Refused(t), smtptest.Refused(t)
	noSocket := "unix:" + t.TempDir() + "/none"
	greeted := func(t *testing.T, c net.Conn) {
		b := make([]byte, len("220 hi\r\n"))
		_, err := io.ReadFull(c, b)
		require.NoError(t, err)
	}
	quits := func(t *testing.T, c net.Conn) { greeted(t, c); talk(t, c, "QUIT\r\n") }
	halfClose := func(on bool) func(*plan) { return func(p *plan) { p.HalfClose = on } }
	nothing := func(t *testing.T, c net.Conn) { talk(t, c, "") }
	d := newDiary(t)
	taken := NewZone("taken", 1<<20)
	_, _ = taken.claim([]byte("x"), 1)
	behind := func(p *plan) {
		p.Fronts = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		p.HeaderTimeout = patience
	}
	for name, x := range map[string]struct {
		servers []string
		options []func(*plan)
		do      func(t *testing.T, c net.Conn)
		want    []string
	}{
		"all refuse": {[]string{refused1, refused2}, nil, nothing, []string{
			ngxClient, ngxRefused + `, upstream: "SERVER1"` + ngxNothing, ngxRefused + `, upstream: "SERVER2"` + ngxNothing}},
		"one refuses": {[]string{refused1, serverAddr}, nil, quits, []string{
			ngxClient, ngxRefused + `, upstream: "SERVER1"` + ngxNothing,
			`[info] *1 proxy 127.0.0.1:PORT connected to SERVER2`, `[info] *1 upstream disconnected` + ngxQuit}},
		"none is up": {[]string{refused1}, []func(*plan){func(p *plan) { p.servers[0].Down = true }}, nothing, []string{
			ngxClient, `[error] *1 no live upstreams while connecting to upstream` + ngxFrom + `, upstream: "test"` + ngxNothing}},
		"no socket": {[]string{noSocket}, nil, nothing, []string{
			ngxClient, `[crit] *1 connect() to SERVER1 failed (2: No such file or directory) while connecting to upstream` + ngxFrom +
				`, upstream: "SERVER1"` + ngxNothing}},
		"no such address": {[]string{refused1}, []func(*plan){func(p *plan) { p.Bind.Addr = netip.MustParseAddrPort("192.0.2.77:0") }}, nothing, []string{
			ngxClient, `[crit] *1 bind(192.0.2.77) failed (99: Cannot assign requested address) while connecting to upstream` + ngxFrom +
				`, upstream: "SERVER1"` + ngxNothing}},
		"the client closes": {[]string{serverAddr}, nil, func(t *testing.T, c net.Conn) { greeted(t, c); c.Close() }, []string{
			ngxClient, ngxProxy, `[info] *1 client disconnected` + ngxGreeted}},
		"the server closes": {[]string{serverAddr}, nil, quits, []string{
			ngxClient, ngxProxy, `[info] *1 upstream disconnected` + ngxQuit}},
		"the client resets": {[]string{serverAddr}, nil, func(t *testing.T, c net.Conn) { greeted(t, c); reset(t, c) }, []string{
			ngxClient, ngxProxy,
			`[info] *1 recv() failed (104: Connection reset by peer) while proxying and reading from client` + ngxFrom + `, upstream: "SERVER1"` + ngxGreeted,
			`[info] *1 client disconnected` + ngxGreeted}},
		"the server resets": {[]string{serverAddr}, nil, func(t *testing.T, c net.Conn) { greeted(t, c); talk(t, c, "RST\r\n") }, []string{
			ngxClient, ngxProxy,
			`[error] *1 recv() failed (104: Connection reset by peer) while proxying and reading from upstream` + ngxFrom + `, upstream: "SERVER1"` + ngxReset,
			`[info] *1 upstream disconnected` + ngxReset}},
		"the client half-closes": {[]string{serverAddr}, []func(*plan){halfClose(true)}, func(t *testing.T, c net.Conn) {
			greeted(t, c)
			require.NoError(t, closeWrite(c))
			_, _ = io.ReadAll(c)
		}, []string{ngxClient, ngxProxy, `[info] *1 upstream disconnected` + ngxGreeted}},
		"the server half-closes": {[]string{serverAddr}, []func(*plan){halfClose(true)}, quits, []string{
			ngxClient, ngxProxy, `[info] *1 client disconnected` + ngxQuit}},
		"idle": {[]string{serverAddr}, []func(*plan){func(p *plan) { p.Timeout = time.Second }}, nothing, []string{
			ngxClient, ngxProxy,
			`[info] *1 connection timed out (110: Connection timed out) while proxying connection` + ngxFrom + `, upstream: "SERVER1"` + ngxGreeted}},
		"denied": {[]string{serverAddr}, []func(*plan){access(denyAll)}, func(_ *testing.T, c net.Conn) { _, _ = io.ReadAll(c) }, []string{
			ngxClient, `[error] *1 access forbidden by rule while initializing session` + ngxFrom}},
		"limited": {[]string{serverAddr}, []func(*plan){limited(d, Limit{NewZone("one", 0), d.value("x"), 1})}, func(_ *testing.T, c net.Conn) { _, _ = io.ReadAll(c) }, []string{
			ngxClient, `[error] *1 no memory in limit_conn_zone "one" while initializing session` + ngxFrom}},
		"limited behind a front": {[]string{serverAddr}, []func(*plan){behind, limited(d, Limit{taken, d.value("x"), 1})}, func(_ *testing.T, c net.Conn) {
			talk(t, c, "PROXY TCP4 203.0.113.5 203.0.113.25 40000 25\r\n")
		}, []string{ngxClient, `[warn] *1 limiting connections by zone "taken" while initializing session` + strings.ReplaceAll(ngxFrom, "127.0.0.1", "203.0.113.5")}},
		"returned": {nil, []func(*plan){func(p *plan) { p.Scope, p.Return = d.scope, d.value("421\r\n") }}, nothing, []string{ngxClient}},
		"no header": {[]string{serverAddr}, []func(*plan){behind}, func(t *testing.T, c net.Conn) { talk(t, c, "EHLO x\x01\r\nfoo") }, []string{
			ngxClient, `[error] *1 broken header: "EHLO x\x01\x0D\x0Afoo"` + ngxHeaderIn}},
		"no header at all": {[]string{serverAddr}, []func(*plan){behind}, func(_ *testing.T, c net.Conn) { c.Close() }, []string{
			ngxClient, `[error] *1 broken header: ""` + ngxHeaderIn}},
		"header too late": {[]string{serverAddr}, []func(*plan){behind, unintroduced}, nothing, []string{
			ngxClient, `[info] *1 client timed out (110: Connection timed out)` + ngxHeaderIn}},
		"header": {[]string{refused1}, []func(*plan){behind}, func(t *testing.T, c net.Conn) {
			talk(t, c, "PROXY TCP4 203.0.113.5 203.0.113.25 40000 25\r\n")
		}, []string{ngxClient, strings.ReplaceAll(ngxRefused, "127.0.0.1", "203.0.113.5") + `, upstream: "SERVER1"` + ngxNothing}},
		"told": {[]string{serverAddr}, []func(*plan){behind, func(p *plan) { p.Header = HeaderV1 }}, func(t *testing.T, c net.Conn) {
			_, err := io.WriteString(c, "PROXY TCP4 203.0.113.5 203.0.113.25 40000 25\r\n") // of 46 bytes, and told as such
			require.NoError(t, err)
			quits(t, c)
		}, []string{ngxClient, ngxProxy, `[info] *1 upstream disconnected, bytes from/to client:6/17, bytes from/to upstream:17/52`}},
		"a source that is no address": {[]string{serverAddr}, []func(*plan){func(p *plan) {
			p.Scope, p.Bind = d.scope, Bind{Value: d.value("of $remote_addr")}
		}}, quits, []string{
			ngxClient, `[error] *1 invalid local address "of 127.0.0.1"` + ngxFrom + ngxNothing, ngxProxy, `[info] *1 upstream disconnected` + ngxQuit}},
		"a source with a port": {[]string{refused1}, []func(*plan){func(p *plan) {
			p.Scope, p.Bind = d.scope, Bind{Value: d.value("192.0.2.77:25")}
		}}, nothing, []string{
			ngxClient, `[crit] *1 bind(192.0.2.77:25) failed (99: Cannot assign requested address) while connecting to upstream` + ngxFrom +
				`, upstream: "SERVER1"` + ngxNothing}},
		"a rate that is no size": {[]string{serverAddr}, []func(*plan){func(p *plan) {
			p.Scope, p.UploadRate.Value = d.scope, d.value("$remote_addr")
		}}, quits, []string{
			ngxClient, ngxProxy, `[error] *1 invalid size "127.0.0.1" while connecting to upstream` + ngxFrom + `, upstream: "SERVER1"` + ngxNothing,
			`[info] *1 upstream disconnected` + ngxQuit}},
		"nowhere to pass to": {nil, []func(*plan){func(p *plan) {
			p.Scope, p.ProxyPass = d.scope, d.value("mx.$remote_addr:25")
		}}, nothing, []string{
			ngxClient, `[error] *1 no resolver defined to resolve mx.127.0.0.1` + ngxFrom + ngxNothing}},
		"IPv6": {[]string{serverAddr}, []func(*plan){func(p *plan) { p.listen = "[::1]:0" }}, quits, []string{
			`[info] *1 client [::1]:PORT connected to LISTEN`, ngxProxy, `[info] *1 upstream disconnected` + ngxQuit}},
		"IPv6, refused": {[]string{refused1}, []func(*plan){func(p *plan) { p.listen = "[::1]:0" }}, nothing, []string{
			`[info] *1 client [::1]:PORT connected to LISTEN`,
			strings.ReplaceAll(ngxRefused, "127.0.0.1", "::1") + `, upstream: "SERVER1"` + ngxNothing}},
		"a unix socket's client": {[]string{serverAddr}, []func(*plan){func(p *plan) { p.listen = "unix:" + t.TempDir() + "/in" }}, quits, []string{
			`[info] *1 client unix: connected to LISTEN`, ngxProxy, `[info] *1 upstream disconnected` + ngxQuit}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, x.servers, append([]func(*plan){nginxLog, halfClose(false), backups}, x.options...)...)
			c := g.dial()
			x.do(t, c)
			c.Close()
			smtptest.Eventually(t, patience, "client accepted", func() bool { return g.logs.Len() > 0 })
			g.gone(patience)
			require.Equal(t, x.want, g.ngxLines(x.servers...))
		})
	}
}

// A server that hangs, which no loopback does by itself.
func TestNginxLineOfAHangingServer(t *testing.T) {
	t.Parallel()
	mute := hole(t)
	g := newRig(t, []string{mute}, nginxLog, func(p *plan) { p.ConnectTimeout = 200 * time.Millisecond })
	talk(t, g.dial(), "")
	g.gone(patience)
	require.Equal(t, []string{ngxClient,
		`[error] *1 upstream timed out (110: Connection timed out) while connecting to upstream` + ngxFrom + `, upstream: "SERVER1"` + ngxNothing,
	}, g.ngxLines(mute))
}

// The gate's complaints have the shape of nginx's, and a server's words in them
// are escaped. It fails if they are taken as they are.
func TestNginxLinesOfTheGate(t *testing.T) {
	t.Parallel()
	hostile := newWitness(t, greet("HTTP/1.0 400\x1b[31m\x07\r\n"))
	mute := newWitness(t, silent)
	for name, x := range map[string]struct {
		server *witness
		gate   func(*plan)
		want   string
	}{
		"words":   {hostile, gated, `server does not greet as SMTP does: "HTTP/1.0 400\x1B[31m\x07"`},
		"silence": {mute, func(p *plan) { gated(p); p.NextTimeout = 500 * time.Millisecond }, `no greeting in time`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, []string{x.server.addr}, x.gate, nginxLog)
			require.Equal(t, unavailableReply, talk(t, g.dial(), ""))
			g.gone(patience)
			require.Equal(t, []string{ngxClient, ngxProxy,
				`[error] *1 ` + x.want + ` while reading greeting from upstream` + ngxFrom + `, upstream: "SERVER1"` + ngxNothing,
			}, g.ngxLines(x.server.addr))
		})
	}
}
