package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// loggedVariables are those of both balancers: nginx's of 1.22, and those that
// accessLogConf defines. They are logged in this order.
var loggedVariables = strings.Fields(`
	remote_addr remote_port server_addr server_port protocol status connection pid
	bytes_sent bytes_received session_time msec time_local time_iso8601 hostname nginx_version
	upstream_addr upstream_bytes_sent upstream_bytes_received
	upstream_connect_time upstream_first_byte_time upstream_session_time
	realip_remote_addr realip_remote_port
	proxy_protocol_addr proxy_protocol_port proxy_protocol_server_addr proxy_protocol_server_port
	limit_conn_status near family net part word odd
	ssl_alpn_protocol ssl_cipher ssl_ciphers ssl_client_cert ssl_client_escaped_cert ssl_client_fingerprint
	ssl_client_i_dn ssl_client_raw_cert ssl_client_s_dn ssl_client_serial ssl_client_v_end ssl_client_v_remain
	ssl_client_v_start ssl_client_verify ssl_curve ssl_curves ssl_protocol ssl_server_name ssl_session_id
	ssl_session_reused ssl_preread_alpn_protocols ssl_preread_protocol ssl_preread_server_name
	binary_remote_addr`)

// accessLogConf is the stream block but for its servers: with the formats, and
// where logs lie whose names have variables.
const accessLogConf = `
map $remote_addr $near { volatile; default far; 127.0.0.9 near; "192.0.2.1" told; unix: local; }
map $remote_addr $family { "~^(?<head>\d+)\.\d+\." "four-$head"; ~: six; default "$near"; }
map $status $failed { ~^5 1; 403 0; default ""; }
map $failed $pleased { "" yes; default ""; }
map $server_port $chosen { default named; }
map $near $ssl_curve { default "$near $ssl_protocol|$ssl_preread_protocol"; }
geo $net { default none; 127.0.0.0/8 loop; 127.0.0.9 "nine"; ::1 loop6; 192.0.2.0/24 doc; }
split_clients "$remote_addr$near" $part { 30%% a; 30%% b; * c; }
limit_conn_zone $remote_addr zone=each:1m;
set_real_ip_from 127.0.0.0/8;
proxy_protocol_timeout 2s;
%s
access_log %s/$host-$near-$status.log byDefault;
access_log $dir/default.log byDefault;
access_log $dir/json.log asJSON;
access_log $dir/failed.log byDefault if=$failed;
access_log $dir/pleased.log byDefault if=$pleased;
`

func accessLogFormats() string {
	var plain, object strings.Builder
	for i, name := range loggedVariables {
		if i > 0 {
			plain.WriteString("\t")
		}
		fmt.Fprintf(&plain, "${%s}", name)
		if name != "binary_remote_addr" { // which JSON cannot say
			fmt.Fprintf(&object, `,"%s":"${%s}"`, name, name)
		}
	}
	return fmt.Sprintf("log_format byDefault '%s';\nlog_format asJSON escape=json '{' '%s' '}';", plain.String(), object.String()[1:])
}

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

const (
	greeting = "220 a\r\n"
	quit     = "QUIT\r\n"
	quitted  = greeting + "221 bye\r\nEOF"
)

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

// fieldDifference is a field that smtplb has otherwise, by intention.
type fieldDifference struct{ nginx, smtplb, why string }

const early = "a client that leaves while its server is being connected is noticed at once"

// accessLogDifferences are by scene, line and variable.
var accessLogDifferences = map[string]fieldDifference{
	"server mute 0 upstream_first_byte_time":      {"0.000", "-", "there was no byte: nginx takes the end of the stream for one"},
	"client leaves early 0 status":                {"502", "200", early},
	"client leaves early 0 session_time":          {"1.500", "0.000", early},
	"client leaves early 0 upstream_session_time": {"1.500", "0.000", early},
	"return 0 bytes_sent":                         {"0", "22", "nginx remembers for the log what it was when the text was made"},
}

// An access log of all variables tells of the same sessions what nginx's does,
// field by field, escaped in both ways and with conditions, but for what
// accessLogDifferences says.
//
// Fails if a client that is denied has status 502; the PROXY header is not in
// $upstream_bytes_sent; the time of the first byte does not count from the
// beginning; an empty value is taken for a condition that holds; or a variable of
// TLS is set to nothing, which is no dash.
func TestAccessLogAsNginx(t *testing.T) {
	t.Parallel()
	scenes, upstreams := accessLogScenes(t)
	ready := smtptest.FreePort(t)
	var conf strings.Builder
	named := openDir(t)
	require.NoError(t, os.Chmod(named, 0o777)) // nginx's worker makes files there
	fmt.Fprintf(&conf, accessLogConf, accessLogFormats(), named)
	fmt.Fprintf(&conf, "%s\nserver { listen $host:%d; access_log off; return ''; }\n", upstreams, ready)
	ports := make([]int, len(scenes))
	for i, sc := range scenes {
		ports[i] = smtptest.FreePort(t)
		fmt.Fprintf(&conf, "server { listen $host:%d %s; %s }\n", ports[i], sc.flags, sc.conf)
	}
	sides := beside(t, ready, conf.String())

	var lines [2][]map[string]string
	t.Run("at", func(t *testing.T) {
		for i, s := range sides {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				lines[i] = playAll(t, s, scenes, ports, named)
			})
		}
	})
	if t.Failed() {
		return
	}

	used, n := map[string]bool{}, 0
	for _, sc := range scenes {
		for i, status := range strings.Fields(sc.want) {
			theirs, ours := lines[0][n], lines[1][n]
			n++
			if status != theirs["status"] {
				t.Errorf("%s %d: nginx's status is %s, not %s", sc.name, i, theirs["status"], status)
				continue
			}
			require.Len(t, ours, len(theirs), sc.name)
			for name := range theirs {
				equalOrKnown(t, used, sc.name, i, name, theirs[name], ours[name])
			}
		}
	}
	for key := range accessLogDifferences {
		require.True(t, used[key], "%s differs no more", key)
	}
}

// equalOrKnown compares one field.
func equalOrKnown(t *testing.T, used map[string]bool, scene string, line int, name, theirs, ours string) bool {
	t.Helper()
	key := fmt.Sprintf("%s %d %s", scene, line, name)
	if d, ok := accessLogDifferences[key]; ok {
		used[key] = true
		if same(name, d.nginx, theirs) && same(name, d.smtplb, ours) {
			return true
		}
		t.Errorf("%s: known to differ as %q and %q, but nginx has %q, and smtplb %q", key, d.nginx, d.smtplb, theirs, ours)
		return false
	}
	if same(name, theirs, ours) {
		return true
	}
	t.Errorf("%s: nginx has %q, and smtplb %q", key, theirs, ours)
	return false
}

// playAll plays the scenes at one side and returns what its default log says,
// with words for what has to differ. The JSON says the same, and the other two
// logs, and those named by variables, have the lines that they are to have.
func playAll(t *testing.T, s side, scenes []scene, ports []int, named string) (all []map[string]string) {
	t.Helper()
	read := func(name string) []string {
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.dir, name)
		}
		text, err := os.ReadFile(name)
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		return strings.SplitAfter(string(text), "\n")[:strings.Count(string(text), "\n")]
	}
	others := map[string][]string{} // lines by logs
	for i, sc := range scenes {
		p := &player{t: t, s: s, port: ports[i], lines: func() int { return min(len(read("default.log")), len(read("json.log"))) }}
		p.begun = p.lines()
		sc.play(p)
		n := len(strings.Fields(sc.want))
		p.logged(n)
		plain, object := read("default.log"), read("json.log")
		require.Len(t, plain, p.begun+n, "%s: %s", s.name, sc.name)
		for j, line := range plain[p.begun:] {
			values := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			require.Len(t, values, len(loggedVariables), line)
			record := map[string]string{}
			for k, name := range loggedVariables {
				record[name] = values[k]
			}
			var said map[string]string
			require.NoError(t, json.Unmarshal([]byte(object[p.begun+j]), &said), object[p.begun+j])
			for name, value := range said {
				if name == "odd" || value == "" {
					record["json "+name] = value
					continue
				}
				require.Equal(t, record[name], value, "%s: %s", s.name, name)
			}
			own := fmt.Sprintf("%s/%s-%s-%s.log", named, s.host, record["near"], record["status"])
			others[own] = append(others[own], line)
			switch {
			case record["status"][0] == '5':
				others["failed.log"] = append(others["failed.log"], line)
			case record["status"] != "403":
				others["pleased.log"] = append(others["pleased.log"], line)
			}
			all = append(all, withWords(record, s, p.calls[j]))
		}
	}
	for name, want := range others {
		smtptest.Eventually(t, patience, s.name+" writes "+name, func() bool { return len(read(name)) >= len(want) })
		require.Equal(t, want, read(name), "%s: %s", s.name, name)
	}
	return all
}

// withWords puts words for what differs between sides and clients, where each
// has to be.
func withWords(record map[string]string, s side, port string) map[string]string {
	for _, word := range []struct{ name, value, word string }{
		{"server_addr", s.host, "HOST"},
		{"server_addr", "unix:" + s.dir + "/in", "HOST"},
		{"server_port", strconv.Itoa(s.six), "SIX"},
		{"remote_port", port, "CLIENT"},
		{"realip_remote_port", port, "CLIENT"},
	} {
		if record[word.name] == word.value {
			record[word.name] = word.word
		}
	}
	return record
}

var digits = regexp.MustCompile(`\d+`)

// same reports whether two values are equal or near.
func same(name, theirs, ours string) bool { return theirs == ours || near(name, theirs, ours) }

// near reports whether two values that depend on the time, or on who logs them,
// have the same shape and, if they are times of a session, differ by less than
// the pauses of the scenes. Numbers are counters, and must be positive.
func near(name, theirs, ours string) bool {
	name = strings.TrimPrefix(name, "json ")
	switch {
	case name == "connection" || name == "pid":
		n, err := strconv.Atoi(ours)
		return err == nil && n > 0
	case name == "time_local" || name == "time_iso8601":
		return digits.ReplaceAllString(theirs, "0") == digits.ReplaceAllString(ours, "0") && len(theirs) == len(ours)
	case name != "msec" && !strings.HasSuffix(name, "_time"):
		return false
	}
	a, b := strings.Split(theirs, ", "), strings.Split(ours, ", ")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, err := strconv.ParseFloat(a[i], 64)
		y, err2 := strconv.ParseFloat(b[i], 64)
		tolerance := 1.4
		if name == "msec" {
			tolerance = patience.Seconds()
		}
		switch {
		case a[i] == b[i]:
		case err != nil || err2 != nil || math.Abs(x-y) > tolerance:
			return false
		case len(a[i])-strings.Index(a[i], ".") != len(b[i])-strings.Index(b[i], "."):
			return false
		}
	}
	return true
}
