package integration

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// What the error log says of sessions, at level info: nginx and smtplb run on
// the same nginx.conf, have the same sessions one after the other, and are then
// told to quit while one is open. Each session's lines must be the same, in
// their order, with level, addresses and all four numbers of bytes; only time,
// process, the number of the connection and ephemeral ports are not compared,
// and what notAlike names.
//
// Fails if a line is missing, one too many, at another level or in another
// place among those of its session, or if a word or a number in it differs; and
// if a difference that notAlike names is no longer there, or is another one.
func TestLogsAsNginx(t *testing.T) {
	t.Parallel()
	w := newLogWorld(t)
	scenes := w.scenes(t)
	var servers strings.Builder
	for i := range scenes {
		scenes[i].port, scenes[i].group = smtptest.FreePort(t), fmt.Sprintf("group%d", i)
		fmt.Fprintf(&servers, "upstream %s { server %s; }\nserver { listen %s; proxy_pass %s; %s }\n",
			scenes[i].group, strings.Join(scenes[i].servers, "; server "), scenes[i].listens(), cmp.Or(scenes[i].pass, scenes[i].group), scenes[i].lines)
	}
	sides := quietly(t, scenes[0].port, "", "error_log stderr info;\n"+servers.String())

	var logs [2]sessionLog
	t.Run("at", func(t *testing.T) {
		for i, s := range sides {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				logs[i] = w.playAll(t, s, scenes)
			})
		}
	})
	if t.Failed() {
		return
	}
	lines := 0
	for _, scene := range scenes {
		t.Run(scene.name, func(t *testing.T) {
			theirs, ours := logs[0][scene.name], logs[1][scene.name]
			require.Len(t, theirs, max(scene.times, 1))
			text := strings.Join(theirs, "\n")
			lines += strings.Count(strings.Join(theirs, ""), "\n")
			if d, ok := notAlike[scene.name]; ok {
				said := regexp.MustCompile("(?m)" + d.nginx)
				require.Regexp(t, said, text, "no longer so: %s", d.why)
				text = said.ReplaceAllString(text, d.smtplb)
			}
			require.Equal(t, text, strings.Join(ours, "\n"))
		})
	}
	for name := range notAlike {
		require.True(t, slices.ContainsFunc(scenes, func(x logScene) bool { return x.name == name }), name)
	}
	t.Logf("%d lines of %d kinds of session compared", lines, len(scenes))
}

// playAll has all scenes at one side, and returns its log.
func (w *logWorld) playAll(t *testing.T, s leaving, scenes []logScene) sessionLog {
	t.Helper()
	var last net.Conn // the session that is open at the end
	for _, scene := range scenes {
		if scene.play == nil {
			last = scene.dial(t, s.side)
			w.greeted(t, last)
			continue
		}
		for range max(scene.times, 1) {
			c := scene.dial(t, s.side)
			scene.play(t, c)
			c.Close()
		}
	}
	left := make(chan string, 1)
	go func() {
		defer last.Close()
		left <- toEnd(last)
	}()
	s.quit()
	require.Equal(t, "EOF", <-left)
	return readSessionLog(t, s, scenes)
}

// A difference is what smtplb says in place of what nginx does, a pattern.
type difference struct{ nginx, smtplb, why string }

var (
	ofTheServer = difference{`^\[warn\] upstream server temporarily disabled while .*\n`, "",
		"smtplb says so of the server, in a line of its own, and not of a session"}
	noticed = difference{`^\[error\] upstream timed out .*\n`, "[info] client disconnected" + nothingMoved + "\n",
		"smtplb notices while it connects that the client has gone, and gives up"}
)

const nothingMoved = ", bytes from/to client:0/0, bytes from/to upstream:0/0"

// notAlike has the scenes with a difference. It must be there, and be all.
var notAlike = map[string]difference{
	"one refuses and is out":         ofTheServer,
	"no live upstreams":              ofTheServer,
	"client closes while connecting": noticed,
	"client resets while connecting": {noticed.nginx, `[info] recv() failed (104: Connection reset by peer)` +
		` while proxying and reading from client, client: 127.0.0.1, server: LISTEN, upstream: "GROUP"` + nothingMoved + "\n" + noticed.smtplb, noticed.why},
	"header, refused": {"while proxying connection", "while connecting to upstream",
		"nginx takes words that it has read before as a sign that it proxies already"},
	"broken header, lines": {`"EHLO me\r$`, `"EHLO me\x0D\x0AMAIL FROM:<>\x0D\x0A" while reading PROXY protocol, client: 127.0.0.1, server: LISTEN`,
		"smtplb escapes, so that a client cannot begin lines of the log"},
	"broken header, bytes": {`"\x16\x03\x01\x00"\\\t.\x7f"`, `"\x16\x03\x01\x00\x22\\\x09\xFC\x7F"`,
		"smtplb escapes, so that a client cannot write to a terminal that shows the log"},
	"half a header": {`\[error\] broken header: "PROXY TCP4 203"`, "[info] client timed out (110: Connection timed out)",
		"smtplb waits for the rest, which may come in another segment"},
}

// A logScene is one listener and what happens to the sessions there.
type logScene struct {
	name    string
	network string   // "" means "tcp" to $host; "tcp6", "unix"
	option  string   // of listen
	servers []string // and their parameters
	pass    string   // where, by a variable; "" means to the upstream of these servers
	lines   string   // of the server block
	times   int      // sessions; 0 means one
	play    func(t *testing.T, c net.Conn)

	port  int
	group string // its upstream
}

func (x *logScene) listens() string {
	switch x.network {
	case "tcp6":
		return fmt.Sprintf("[::1]:$six %s", x.option)
	case "unix":
		return fmt.Sprintf("unix:$dir/%d %s", x.port, x.option)
	}
	return fmt.Sprintf("$host:%d %s", x.port, x.option)
}

// addr is where a side listens for the scene, as logs have it.
func (x *logScene) addr(s side) string {
	switch x.network {
	case "tcp6":
		return net.JoinHostPort("::1", strconv.Itoa(s.six))
	case "unix":
		return fmt.Sprintf("unix:%s/%d", s.dir, x.port)
	}
	return s.at(x.port)
}

func (x *logScene) dial(t *testing.T, s side) net.Conn {
	t.Helper()
	network := "tcp"
	if x.network == "unix" {
		network = "unix"
	}
	c, err := net.Dial(network, strings.TrimPrefix(x.addr(s), "unix:"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// logWorld has the servers of all scenes.
type logWorld struct {
	talker, talker6, talkerUnix string // greet, and then do as the client says
	refused, refused2, refused6 string
	hole                        string // drops all packets
	dir                         string
}

const hi, bye = "220 hi\r\n", "221 bye\r\n"

func newLogWorld(t *testing.T) *logWorld {
	w := &logWorld{
		talker:  serveRaw(t, obey),
		refused: smtptest.Refused(t), refused2: smtptest.Refused(t),
		refused6: net.JoinHostPort("::1", strconv.Itoa(smtptest.FreePort(t))),
		dir:      openDir(t),
	}
	six, err := net.Listen("tcp6", "[::1]:0")
	require.NoError(t, err)
	w.talker6 = smtptest.Serve(t, six, obey).Addr()
	path := filepath.Join(w.dir, "talker")
	smtptest.Serve(t, openSocket(t, path), obey)
	w.talkerUnix = "unix:" + path
	hole := smtptest.NewServer(t, smtptest.Script{})
	require.NoError(t, hole.Blackhole(true))
	w.hole = hole.Addr()
	return w
}

// obey serves a session, as the client wants it to end. To the client's end of
// file it says goodbye.
func obey(c net.Conn) {
	defer c.Close()
	_, _ = io.WriteString(c, hi)
	b := make([]byte, 100)
	for {
		n, err := c.Read(b)
		switch said := string(b[:n]); {
		case err != nil || strings.Contains(said, "QUIT"):
			_, _ = io.WriteString(c, bye)
			return
		case strings.Contains(said, "RST"):
			_ = smtptest.Abort(c)
			return
		case strings.Contains(said, "FIN"):
			_ = smtptest.CloseWrite(c)
		}
	}
}

func (w *logWorld) greeted(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, len(hi))
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, hi, string(b))
}

// ends waits for the end of a session, whatever is said before.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// scenes are the kinds of session. The one without a play stays until the end.
func (w *logWorld) scenes(t *testing.T) []logScene {
	says := func(words string) func(*testing.T, net.Conn) {
		return func(t *testing.T, c net.Conn) {
			_, err := io.WriteString(c, words)
			require.NoError(t, err)
			ends(t, c)
		}
	}
	hears := func(then func(*testing.T, net.Conn)) func(*testing.T, net.Conn) {
		return func(t *testing.T, c net.Conn) {
			w.greeted(t, c)
			then(t, c)
		}
	}
	closes := func(_ *testing.T, c net.Conn) { c.Close() }
	resets := func(t *testing.T, c net.Conn) { require.NoError(t, smtptest.Abort(c)) }
	finishes := func(t *testing.T, c net.Conn) {
		require.NoError(t, smtptest.CloseWrite(c))
		ends(t, c)
	}

	quits := hears(says("QUIT\r\n"))
	one := func(server string) []string { return []string{server} }
	const (
		halfClose   = "proxy_half_close on;"
		believed    = "set_real_ip_from 127.0.0.0/8; proxy_protocol_timeout 1500ms;"
		believedOut = believed + " proxy_protocol on;"
		header      = "PROXY TCP4 203.0.113.5 127.0.0.9 40000 10025\r\n" // as long as one with an address of ours
	)
	return []logScene{
		{name: "a session", servers: one(w.talker), play: quits, times: 3},
		{name: "client closes", servers: one(w.talker), play: hears(closes)},
		{name: "client resets", servers: one(w.talker), play: hears(resets)},
		{name: "server resets", servers: one(w.talker), play: hears(says("RST\r\n"))},
		{name: "client ends", servers: one(w.talker), play: hears(finishes)},
		{name: "server ends", servers: one(w.talker), play: hears(says("FIN\r\n"))},
		{name: "client ends, half_close", servers: one(w.talker), lines: halfClose, play: hears(finishes)},
		{name: "server ends, half_close", servers: one(w.talker), lines: halfClose, play: quits},
		{name: "server ends first, half_close", servers: one(w.talker), lines: halfClose, play: hears(says("FIN\r\n"))},
		{name: "client speaks first", servers: one(w.talker), play: says("QUIT\r\n")},

		{name: "one refuses", servers: []string{w.refused + " weight=9 max_fails=0", w.talker}, play: quits, times: 3},
		{name: "one refuses and is out", servers: []string{w.refused + " weight=9 fail_timeout=1h", w.talker}, play: quits, times: 3},
		{name: "all refuse", servers: []string{w.refused + " max_fails=0", w.refused2 + " max_fails=0"}, play: ends, times: 2},
		{name: "no live upstreams", servers: []string{w.refused + " fail_timeout=1h", w.refused2 + " fail_timeout=1h"}, play: ends, times: 3},
		{name: "all down", servers: []string{w.talker + " down", w.refused + " down"}, play: ends},
		{name: "backup", servers: []string{w.refused + " max_fails=0", w.talker + " backup"}, play: quits},
		{name: "one try", servers: []string{w.refused + " max_fails=0", w.refused2 + " max_fails=0"}, lines: "proxy_next_upstream_tries 1;", play: ends},
		{name: "no next", servers: []string{w.refused + " max_fails=0", w.refused2 + " max_fails=0"}, lines: "proxy_next_upstream off;", play: ends},

		{name: "connect timeout", servers: one(w.hole), lines: "proxy_connect_timeout 300ms;", play: ends},
		{name: "connect timeout, then next", servers: []string{w.hole + " weight=9 max_fails=0", w.talker}, lines: "proxy_connect_timeout 300ms;", play: quits},
		{name: "connect timeouts", servers: []string{w.hole + " max_fails=0", w.hole + " max_fails=0"},
			lines: "proxy_connect_timeout 300ms; proxy_next_upstream_timeout 200ms;", play: ends},
		{name: "client closes while connecting", servers: one(w.hole), lines: "proxy_connect_timeout 1500ms;", play: closes},
		{name: "client resets while connecting", servers: one(w.hole), lines: "proxy_connect_timeout 1500ms;", play: resets},
		{name: "client speaks while connecting", servers: one(w.hole), lines: "proxy_connect_timeout 1500ms;", play: says("EHLO me\r\n")},
		{name: "idle", servers: one(w.talker), lines: "proxy_timeout 1500ms;", play: hears(ends)},
		{name: "idle after words", servers: one(w.talker), lines: "proxy_timeout 1500ms;", play: hears(says("EHLO me\r\n"))},

		{name: "denied", servers: one(w.talker), lines: "deny 127.0.0.1; allow all;", play: ends},
		{name: "allowed", servers: one(w.talker), lines: "allow 127.0.0.1; deny all;", play: quits},

		{name: "header", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says(header + "QUIT\r\n")},
		{name: "header in and out", option: "proxy_protocol", servers: one(w.talker), lines: believedOut, play: says(header + "QUIT\r\n")},
		{name: "header out", servers: one(w.talker), lines: "proxy_protocol on;", play: quits},
		{name: "header, refused", option: "proxy_protocol", servers: one(w.refused), lines: believed, play: says(header)},
		{name: "header, denied", option: "proxy_protocol", servers: one(w.talker), lines: believed + " deny 203.0.113.5;", play: says(header)},
		{name: "broken header", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says("EHLO me")},
		{name: "broken header, lines", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says("EHLO me\r\nMAIL FROM:<>\r\n")},
		{name: "broken header, bytes", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says("\x16\x03\x01\x00\"\\\t\xfc\x7f")},
		{name: "long header", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says("PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n")},
		{name: "half a header", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: says("PROXY TCP4 203")},
		{name: "no header", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: closes},
		{name: "no header, reset", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: resets},
		{name: "header too late", option: "proxy_protocol", servers: one(w.talker), lines: believed, play: ends},

		{name: "unix client", network: "unix", servers: one(w.talker), play: quits},
		{name: "unix client, refused", network: "unix", servers: one(w.refused), play: ends},
		{name: "unix client, idle", network: "unix", servers: one(w.talker), lines: "proxy_timeout 1500ms;", play: ends},
		{name: "unix client, denied", network: "unix", servers: one(w.talker), lines: "deny unix:;", play: ends},
		{name: "unix server", servers: one(w.talkerUnix), play: quits},
		{name: "unix server resets", servers: one(w.talkerUnix), play: hears(says("RST\r\n"))},
		{name: "unix server idle", servers: one(w.talkerUnix), lines: "proxy_timeout 1500ms;", play: ends},
		{name: "no unix server", servers: one("unix:" + w.dir + "/none"), play: ends},
		{name: "unix server refuses", servers: one("unix:" + nobodyListens(t, w.dir)), play: ends},
		{name: "unix server, then next", servers: []string{"unix:" + w.dir + "/none weight=9 max_fails=0", w.talker}, play: quits},
		{name: "IPv6 client", network: "tcp6", servers: one(w.refused), play: ends},
		{name: "IPv6 server", servers: one(w.talker6), play: quits},
		{name: "IPv6 server refuses", servers: one(w.refused6), play: ends},
		{name: "bound", servers: one(w.talker), lines: "proxy_bind 127.0.0.9;", play: quits},
		{name: "cannot be bound", servers: one(w.talker), lines: "proxy_bind 192.0.2.77;", play: ends},

		{name: "bound by a variable", servers: one(w.talker), lines: "set $own 127.0.0.9; proxy_bind $own;", play: quits},
		{name: "bound to nothing", servers: one(w.talker), lines: `set $own ""; proxy_bind $own;`, play: quits},
		{name: "bound to no address", servers: one(w.talker), lines: "set $own off; proxy_bind $own;", play: quits},
		{name: "bound to a host without a port", servers: one(w.talker), lines: "set $own 127.0.0.9; proxy_bind $own:;", play: quits},
		{name: "bound to the client", servers: one(w.talker), lines: "proxy_bind $remote_addr;", play: quits},
		{name: "bound to the client's socket", network: "unix", servers: one(w.talker), lines: "proxy_bind $remote_addr;", play: quits},
		{name: "cannot be bound by a variable", servers: one(w.talker), lines: "set $own 192.0.2.77; proxy_bind $own:25;", play: ends},
		{name: "cannot be bound by a constant", servers: one(w.talker), lines: "proxy_bind 192.0.2.77:25;", play: ends},
		{name: "rates", servers: one(w.talker), lines: "set $rate 1; proxy_upload_rate ${rate}m; proxy_download_rate ${rate}00k;", play: quits},
		{name: "no rates", servers: one(w.talker), lines: "set $rate fast; proxy_upload_rate $rate; proxy_download_rate $rate$upstream_addr;", play: quits},
		{name: "rates without a server", servers: one(w.refused), lines: "set $rate fast; proxy_upload_rate $rate;", play: ends},

		{name: "to an address", servers: one(w.talker), pass: "127.0.0.1:$to", lines: "set $to " + portIn(w.talker) + ";", play: quits},
		{name: "to a unix socket", servers: one(w.talker), pass: "unix:$to", lines: "set $to " + strings.TrimPrefix(w.talkerUnix, "unix:") + ";", play: quits},
		{name: "to an IPv6 address", servers: one(w.talker), pass: "[::1]:$to", lines: "set $to " + portIn(w.talker6) + ";", play: quits},
		{name: "to an address that refuses", servers: one(w.talker), pass: "127.0.0.1:$to", lines: "set $to " + portIn(w.refused) + ";", times: 2, play: ends},
		{name: "to no unix socket", servers: one(w.talker), pass: "unix:$to", lines: "set $to /none;", play: ends},
		{name: "to an address that is told", servers: one(w.talker), pass: "127.0.0.1:$to",
			lines: "set $to " + portIn(w.talker) + "; proxy_protocol on;", play: quits},
		{name: "to a name", servers: one(w.talker), pass: "$to:25", lines: "set $to mx.example.org;", play: ends},
		{name: "to nobody", servers: one(w.talker), pass: "$to:25", lines: `set $to "";`, play: ends},
		{name: "to no port", servers: one(w.talker), pass: "$to:0", lines: "set $to 127.0.0.1;", play: ends},
		{name: "to an upstream's port", servers: one(w.talker), pass: "$to:25", lines: "set $to group0;", play: ends},
		{name: "to half an address", servers: one(w.talker), pass: "$to:1", lines: `set $to "[::1";`, play: ends},

		{name: "open at the end", servers: one(w.talker)},
	}
}

func portIn(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// nobodyListens is a unix socket that is left over.
func nobodyListens(t *testing.T, dir string) string {
	path := filepath.Join(dir, "left")
	ln := openSocket(t, path)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	return path
}

// leaving is a side that can be told to quit.
type leaving struct {
	side
	quit func() // returns when all of it is gone
}

// quietly is beside, for sides that quit, and then within half a second. The
// stream block says where to log.
func quietly(t *testing.T, port int, main, stream string) [2]leaving {
	t.Helper()
	const grace = "worker_shutdown_timeout 500ms;"
	on := func(s side, text string) string {
		return strings.NewReplacer("$host", s.host, "$six", strconv.Itoa(s.six), "$dir", s.dir).Replace(text)
	}
	nginx := side{name: "nginx", host: "127.0.0.1", six: smtptest.FreePort(t), dir: openDir(t)}
	// A stream block is all that can be given; after it another one, of no use.
	d := peers.NginxStream(t, nginx.at(port), on(nginx, stream)+"}\n"+grace+on(nginx, main)+"\nhttp {")
	nginx.log = d.Log
	smtplb := side{name: "smtplb", host: "127.0.0.2", six: smtptest.FreePort(t), dir: openDir(t)}
	conf := filepath.Join(smtplb.dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, []byte(
		"daemon off;\nworker_processes 1;\nerror_log stderr notice;\n"+grace+on(smtplb, main)+"\nevents {}\nstream {\n"+on(smtplb, stream)+"}\n"), 0o600))
	p := smtptest.Launch{Args: []string{"-c", conf}}.Start(t, "# not read: the last -c counts\n")
	p.Ready()
	smtplb.log = p.Log
	return [2]leaving{
		{nginx, func() {
			master := d.PIDs()[0]
			require.NoError(t, syscall.Kill(master, syscall.SIGQUIT))
			smtptest.Eventually(t, patience, "nginx has quit", func() bool { return len(d.PIDs()) == 0 })
		}},
		{smtplb, func() {
			p.Signal(syscall.SIGQUIT)
			require.Zero(t, p.Exit(patience))
		}},
	}
}

// sessionLog has the lines of each session of each scene, "[level] text\n".
type sessionLog map[string][]string

var (
	sessionLine = regexp.MustCompile(`(?m)^\S+ \S+ (\[\w+\]) \d+#\d+: \*(\d+) (.*)$`)
	sourcePort  = regexp.MustCompile(`((?:client|proxy) (?:127\.0\.0\.\d|203\.0\.113\.5|\[::1\]):)\d+ connected`)
)

// readSessionLog sorts the lines of a log that is complete. Those of a
// connection belong to the scene that its first line names the listener of.
func readSessionLog(t *testing.T, s leaving, scenes []logScene) sessionLog {
	t.Helper()
	type place struct {
		*logScene
		nth int
	}
	log, of := sessionLog{}, map[string]place{}
	for _, m := range sessionLine.FindAllStringSubmatch(s.log(), -1) {
		level, number, text := m[1], m[2], m[3]
		at, known := of[number]
		if !known {
			_, listener, found := strings.Cut(text, " connected to ")
			i := slices.IndexFunc(scenes, func(x logScene) bool { return x.addr(s.side) == listener })
			require.True(t, found && i >= 0, "%s: %s", s.name, m[0])
			at = place{&scenes[i], len(log[scenes[i].name])}
			of[number] = at
			log[at.name] = append(log[at.name], "")
		}
		text = strings.NewReplacer(at.addr(s.side), "LISTEN", `"`+at.group+`"`, `"GROUP"`).Replace(text)
		text = sourcePort.ReplaceAllString(text, "${1}PORT connected")
		log[at.name][at.nth] += level + " " + text + "\n"
	}
	return log
}
