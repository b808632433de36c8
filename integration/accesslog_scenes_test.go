package integration

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// A scene is one session or a few with a server of their own, whose lines come
// in an order that does not depend on time.
type scene struct {
	name  string
	conf  string // of the server, without listen
	flags string // of listen
	want  string // the status of each line
	play  func(*player)
}

// player is the clients of a scene at one side.
type player struct {
	t     *testing.T
	s     side
	port  int
	calls []string // the clients' ports
	lines func() int
	begun int // lines there were
}

// call connects from an address and says something, if it is not empty.
func (p *player) call(first string) net.Conn {
	c := openFrom(p.t, "127.0.0.9", p.s.at(p.port), first)
	p.calls = append(p.calls, portOf(c))
	return c
}

func portOf(c net.Conn) string { return strconv.Itoa(c.LocalAddr().(*net.TCPAddr).Port) }

// greeted is call and the reading of n bytes.
func (p *player) greeted(first string, n int64) net.Conn {
	c := p.call(first)
	_, err := io.CopyN(io.Discard, c, n)
	require.NoError(p.t, err, p.s.name)
	return c
}

// logged waits for n lines of the scene.
func (p *player) logged(n int) {
	smtptest.Eventually(p.t, patience, p.s.name+" logs", func() bool { return p.lines() >= p.begun+n })
}

// session is a whole one, with what is said first.
func session(first string) func(*player) {
	return func(p *player) { require.Equal(p.t, quitted, toEnd(p.call(first+quit))) }
}

// sentAway is a session that gets no server.
func sentAway(first string) func(*player) {
	return func(p *player) { toEnd(p.call(first)) }
}

func several(n int, play func(*player)) func(*player) {
	return func(p *player) {
		for i := range n {
			play(p)
			p.logged(i + 1)
		}
	}
}

// accessLogScenes are played at one side after the other line by line.
func accessLogScenes(t *testing.T) (scenes []scene, upstreams string) {
	t.Helper()
	const pause = 1500 * time.Millisecond // more than what times may differ by
	untilQuit := func(c net.Conn) {
		var text strings.Builder
		for one := make([]byte, 1); !strings.HasSuffix(text.String(), quit); text.WriteByte(one[0]) {
			if _, err := c.Read(one); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, "221 bye\r\n")
	}
	greets := func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		untilQuit(c)
	}
	a, behind := serveRaw(t, greets), serveRaw(t, greets)
	slow := serveRaw(t, func(c net.Conn) {
		time.Sleep(pause)
		greets(c)
	})
	leaves := serveRaw(t, func(c net.Conn) { _, _ = io.WriteString(c, "421 bye\r\n") })
	mute := serveRaw(t, func(net.Conn) {})
	aborts := serveRaw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		_, _ = c.Read(make([]byte, 1))
		_ = smtptest.Abort(c)
	})
	hears := serveRaw(t, func(c net.Conn) {
		toEnd(c)
		_, _ = io.WriteString(c, "221 bye\r\n")
	})
	gone := mx(t, "gone")
	require.NoError(t, gone.Blackhole(true))
	local := filepath.Join(openDir(t), "mx")
	smtptest.Serve(t, openSocket(t, local), greets)
	dead := smtptest.Refused(t)

	upstreams = fmt.Sprintf(`
upstream next { server %[1]s; server %[2]s; }
upstream dead { server %[1]s; server %[1]s; }
upstream lone { server %[1]s; }
upstream once { server %[1]s; server %[2]s; }
upstream lost { server %[3]s; }
upstream late { server %[3]s; server %[2]s; }
upstream full { server %[2]s max_conns=1; }
upstream down { server %[2]s down; server %[2]s down; }
upstream named { server %[2]s; }`, dead, a, gone.Addr())

	pass := func(to string) string { return "proxy_pass " + to + ";" }
	const v1 = "PROXY TCP4 192.0.2.1 198.51.100.1 1234 25\r\n"
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\x04\xd2\x00\x19"
	return []scene{
		{"normal", pass(a) + `set $word "$near $server_port-$status";`, "", "200", session("")},
		{"escapes", pass(a) + "set $odd \"a\\\"b\\\\c\\t\\r\\n\x01\x1f\x7f é | ~\";", "", "200", session("")},
		{"client closes", pass(a), "", "200", func(p *player) { p.greeted("", 7).Close() }},
		{"client aborts", pass(a), "", "200", func(p *player) { require.NoError(p.t, smtptest.Abort(p.greeted("", 7))) }},
		{"client ends", pass(hears), "", "200", func(p *player) {
			c := p.call("EHLO\r\n")
			require.NoError(p.t, smtptest.CloseWrite(c))
			toEnd(c)
		}},
		{"half close", pass(hears) + "proxy_half_close on;", "", "200", func(p *player) {
			c := p.call("EHLO\r\n")
			require.NoError(p.t, smtptest.CloseWrite(c))
			require.Equal(p.t, "221 bye\r\nEOF", toEnd(c))
		}},
		{"server first", pass(leaves), "", "200", func(p *player) { require.Equal(p.t, "421 bye\r\nEOF", toEnd(p.call(""))) }},
		{"server mute", pass(mute), "", "200", sentAway("")},
		{"nobody speaks", pass(hears) + "proxy_timeout 300ms;", "", "200", sentAway("")},
		{"server aborts", pass(aborts), "", "200", func(p *player) { toEnd(begin(p.t, p.greeted("", 7), "x")) }},
		{"slow server", pass(slow), "", "200", session("")},
		{"unix server", pass("unix:" + local), "", "200", session("")},
		{"next upstream", pass("next"), "", "200", session("")},
		{"all refused", pass("dead"), "", "502 502", several(2, sentAway(""))},
		{"lone refused", pass("lone"), "", "502 502", several(2, sentAway(""))},
		{"no next upstream", pass("once") + "proxy_next_upstream off;", "", "502", sentAway("")},
		{"connect timeout", pass("late") + "proxy_connect_timeout 1500ms;", "", "200", session("")},
		{"client leaves early", pass("lost") + "proxy_connect_timeout 1500ms;", "", "502", func(p *player) { p.call("").Close() }},
		{"refused alone", pass(dead), "", "502", sentAway("")},
		{"all full", pass("full"), "", "502 200", func(p *player) {
			c := p.greeted("", 7)
			sentAway("")(p)
			p.logged(1)
			toEnd(begin(p.t, c, quit))
			p.calls[0], p.calls[1] = p.calls[1], p.calls[0]
		}},
		{"all down", pass("down"), "", "502", sentAway("")},
		{"denied", pass(a) + "deny 127.0.0.9;", "", "403", sentAway("")},
		{"limited", pass(a) + "limit_conn each 1;", "", "503 200", limited},
		{"dry run", pass(a) + "limit_conn each 1; limit_conn_dry_run on;", "", "200 200", limited},
		{"idle", pass(a) + "proxy_timeout 1500ms;", "", "200", func(p *player) { toEnd(p.greeted("", 7)) }},
		{"header out", pass(behind) + "proxy_protocol on;", "", "200", func(p *player) { p.greeted("", 7).Close() }},
		{"header", pass(a), "proxy_protocol", "200", session(v1)},
		{"header 6", pass(a), "proxy_protocol", "200", session("PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n")},
		{"header 2", pass(a), "proxy_protocol", "200", session(v2)},
		{"header unknown", pass(a), "proxy_protocol", "200", session("PROXY UNKNOWN\r\n")},
		{"header local", pass(a), "proxy_protocol", "200", session(v2[:12] + "\x20\x00\x00\x00")},
		{"header broken", pass(a), "proxy_protocol", "400", sentAway("EHLO me\r\n")},
		{"header cut", pass(a), "proxy_protocol", "400", sentAway("\r\n\r\n\x00\r\nQUIT\n\x11\x11\x00\x00")},
		{"header empty", pass(a), "proxy_protocol", "400", func(p *player) { require.NoError(p.t, smtptest.CloseWrite(p.call(""))) }},
		{"header late", pass(a), "proxy_protocol", "200", sentAway("")},
		{"header denied", pass(a) + "deny 192.0.2.0/24;", "proxy_protocol", "403", sentAway(v1)},
		{"return", `return "421 $remote_addr $near $bytes_sent\r\n";`, "", "200", func(p *player) {
			require.Equal(p.t, "421 127.0.0.9 near 0\r\nEOF", toEnd(p.call("")))
		}},
		{"return nothing", `return "";`, "", "200", sentAway("")},
		{"at a unix socket", `listen unix:$dir/in; return "$remote_addr:$remote_port $server_port\n";`, "", "200", func(p *player) {
			p.calls = append(p.calls, "")
			require.Equal(p.t, "unix:: \nEOF", toEnd(open(p.t, "unix", p.s.dir+"/in", "")))
		}},
		{"at IPv6", "listen [::1]:$six;" + pass(a), "", "200", func(p *player) {
			c := openFrom(p.t, "::1", net.JoinHostPort("::1", strconv.Itoa(p.s.six)), quit)
			p.calls = append(p.calls, portOf(c))
			require.Equal(p.t, quitted, toEnd(c))
		}},
		{"pass to a variable", pass("$chosen"), "", "200", session("")},
		{"pass to nobody", pass("$word"), "", "500", sentAway("")},
	}, upstreams
}

// limited are two sessions of one client at once.
func limited(p *player) {
	c := p.greeted("", 7)
	second := p.call("")
	if n, _ := io.CopyN(io.Discard, second, 7); n == 7 {
		second.Close()
	}
	p.logged(1)
	toEnd(begin(p.t, c, quit))
	p.calls[0], p.calls[1] = p.calls[1], p.calls[0]
}
