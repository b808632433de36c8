package integration

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

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

const (
	greeting = "220 a\r\n"
	quit     = "QUIT\r\n"
	quitted  = greeting + "221 bye\r\nEOF"
)

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
