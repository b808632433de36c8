package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// hostileVariables are all there are, the hostname excepted: script.builtins, and a
// map's copy of the bytes that a client can choose.
var hostileVariables = strings.Fields(`
	remote_addr remote_port server_addr server_port server_name protocol status connection pid
	bytes_sent bytes_received session_time msec time_local time_iso8601 nginx_version
	upstream_addr upstream_bytes_sent upstream_bytes_received
	upstream_connect_time upstream_first_byte_time upstream_session_time
	realip_remote_addr realip_remote_port
	proxy_protocol_addr proxy_protocol_port proxy_protocol_server_addr proxy_protocol_server_port
	limit_conn_status smtp_banner_code smtp_banner_time session_end binary_remote_addr copy`)

// escapes are the modes of an access log. Each has a file and a syslog server.
var escapes = []string{"default", "json", "none"}

func hostileFormats() string {
	var plain, object []string
	for _, name := range hostileVariables {
		plain = append(plain, "${"+name+"}")
		object = append(object, fmt.Sprintf(`"%s":"${%s}"`, name, name))
	}
	var b strings.Builder
	for _, escape := range escapes {
		text := "begin " + strings.Join(plain, "|") + " end"
		if escape == "json" {
			text = "{" + strings.Join(object, ",") + "}"
		}
		fmt.Fprintf(&b, "[[log_format]]\nname = '%s'\nescape = '%s'\nformat = '%s'\n", escape, escape, text)
	}
	return b.String() + "[[map]]\nsource = '$binary_remote_addr'\nvariable = 'copy'\nentries = { '~(?s)^(?<bytes>.*)$' = '$bytes' }\n"
}

// records are the lines of a log, or the datagrams of a syslog server, without
// their ends.
type records func() []string

func (r records) count(pattern string) (n int) {
	what := regexp.MustCompile(pattern)
	for _, line := range r() {
		if what.MatchString(line) {
			n++
		}
	}
	return n
}

// fileRecords are the whole lines of a text.
func fileRecords(read func() string) records {
	return func() []string {
		lines := strings.Split(read(), "\n")
		return lines[:len(lines)-1]
	}
}

// syslogHeader is what is before the text of a datagram.
var syslogHeader = regexp.MustCompile(`^<\d+>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (\w+): `)

// syslogRecords are the datagrams at a socket, by their tags.
func syslogRecords(t *testing.T, path string) func(tag string) records {
	t.Helper()
	c, err := net.ListenPacket("unixgram", path)
	require.NoError(t, err)
	var mu sync.Mutex // protects byTag
	byTag := map[string][]string{}
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 128<<10)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			tag, text := "no header", string(buf[:n])
			if m := syslogHeader.FindStringSubmatch(text); m != nil {
				tag, text = m[1], text[len(m[0]):]
			}
			mu.Lock()
			byTag[tag] = append(byTag[tag], text)
			mu.Unlock()
		}
	}()
	return func(tag string) records {
		return func() []string {
			mu.Lock()
			defer mu.Unlock()
			return append([]string(nil), byTag[tag]...)
		}
	}
}

// Whatever those outside say, T28, it stays within the record that tells of it: in
// both formats of the error log, in the three escapes of access logs, in files and
// at syslog servers. A record is one line of bounded length with nothing that a
// terminal acts on, cannot pass for another, and has no field that the outsider
// has made up. With escape=none an access log has the bytes as they are, by
// contract, but is as many lines.
//
// Fails if errorlog.appendLine or script's escapes let a byte through; if a
// server's words are not cut; if nginx's lines quote text without minding its
// quotes; or if accesslog does not mind line feeds.
func TestOutsidersInLogs(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"smtplb", "nginx"} {
		for _, to := range []string{"file", "syslog"} {
			t.Run(format+" "+to, func(t *testing.T) {
				t.Parallel()
				testOutsiders(t, format, to)
			})
		}
	}
}

func testOutsiders(t *testing.T, format, to string) {
	o := &outsides{t: t, dir: shortDir(t)}
	socket := filepath.Join(o.dir, "log")
	tagged := syslogRecords(t, socket)
	target := func(tag string) string { return "syslog:server=unix:" + socket + ",nohostname,tag=" + tag }
	errorLog := "stderr"
	if to == "syslog" {
		errorLog = target("errors")
	}
	var all []string
	access := map[string][]records{} // by escapes
	for _, escape := range escapes {
		path := filepath.Join(o.dir, escape)
		access[escape] = []records{fileRecords(func() string {
			text, _ := os.ReadFile(path)
			return string(text)
		}), tagged(escape)}
		for _, path := range []string{path, target(escape)} {
			all = append(all, fmt.Sprintf("{ path = '%s', format = '%s' }", path, escape))
		}
	}
	o.base = fmt.Sprintf("error_log = { path = '%s', level = 'debug', format = '%s' }\n%s", errorLog, format, hostileFormats())
	addrs := make([]string, len(outsiders))
	for i, row := range outsiders {
		o.mark, o.addr, o.logs = fmt.Sprintf("row%02d", i), freeAddr(t), strings.Join(all, ", ")
		addrs[i] = o.addr
		if row.conf != nil {
			o.base += row.conf(o)
		}
	}

	o.p = smtptest.Launch{}.Start(t, o.base)
	o.errors = fileRecords(o.p.Log)
	if to == "syslog" {
		o.errors = tagged("errors")
	}
	smtptest.Eventually(t, patience, "ready", func() bool { return o.errors.count(`\] (\S+: )?ready`) > 0 })
	for i, row := range outsiders {
		o.mark, o.addr = fmt.Sprintf("row%02d", i), addrs[i]
		pattern := row.ours
		if format == "nginx" {
			pattern = row.nginx
		}
		pattern = strings.ReplaceAll(pattern, mark, o.mark)
		var before int
		if row.play != nil {
			before = o.errors.count(pattern)
		}
		smtptest.Eventually(t, patience, row.name, func() bool {
			if row.play != nil {
				row.play(o)
			}
			return pattern == "" || o.errors.count(pattern) > before
		})
	}

	sessions := 0
	smtptest.Eventually(t, patience, "all access logs have as many records", func() bool {
		counts := map[int]bool{}
		for _, logs := range access {
			for _, log := range logs {
				sessions = len(log())
				counts[sessions] = true
			}
		}
		return len(counts) == 1 && sessions > len(outsiders)/2
	})
	requireErrorRecords(t, o.errors(), format)
	for _, escape := range escapes {
		for _, log := range access[escape] {
			for _, line := range log() {
				requireAccessRecord(t, line, escape)
			}
		}
	}
	require.Empty(t, tagged("no header")())
	require.Positive(t, access["none"][0].count("\x1b"), "escape=none is without escapes")
}

// The beginnings of records, and what is within quotes.
var (
	errorRecord = map[string]*regexp.Regexp{
		"smtplb": regexp.MustCompile(`^20[2-9]\d/\d\d/\d\d \d\d:\d\d:\d\d \[(debug|info|notice|warn|error|crit|alert|emerg)\] \S`),
		"nginx":  regexp.MustCompile(`^20[2-9]\d/\d\d/\d\d \d\d:\d\d:\d\d \[(debug|info|notice|warn|error|crit|alert|emerg)\]( \d+#\d+:)? \S`),
	}
	quotedText = regexp.MustCompile(`"(\\.|[^"\\])*"`)
)

// longestRecord bounds a line of the error log, about what nginx has for one.
const longestRecord = 2048

func requireErrorRecords(t *testing.T, lines []string, format string) {
	t.Helper()
	for _, line := range lines {
		require.Regexp(t, errorRecord[format], line)
		require.LessOrEqual(t, len(line), longestRecord, line)
		require.True(t, utf8.ValidString(line), "%q", line)
		for _, r := range line {
			require.True(t, strconv.IsPrint(r), "%q in %q", r, line)
		}
		require.NotContains(t, quotedText.ReplaceAllString(line, ""), victim, line)
		if i := strings.Index(line, " {\""); i >= 0 {
			require.True(t, json.Valid([]byte(line[i:])), line)
		}
	}
}

func requireAccessRecord(t *testing.T, line, escape string) {
	t.Helper()
	switch escape {
	case "json":
		var fields map[string]string
		require.NoError(t, json.Unmarshal([]byte(line), &fields), "%q", line)
		require.Len(t, fields, len(hostileVariables), line)
		require.True(t, utf8.ValidString(line), "%q", line)
		for _, r := range line {
			require.False(t, unicode.IsControl(r), "%q in %q", r, line)
		}
		return
	case "default":
		for _, b := range []byte(line) {
			require.True(t, ' ' <= b && b <= '~', "%q in %q", b, line)
		}
	}
	require.Regexp(t, `(?s)^begin .* end$`, line)
}
