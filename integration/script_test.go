package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/script"
	"smtplb/internal/smtptest"
)

// scripts is a set of definitions for nginx and for us.
type scripts struct {
	maps   []script.Map
	geos   []script.Geo
	splits []script.Split
}

// nginx is the definitions as blocks of its stream block.
func (s *scripts) nginx() string {
	var b strings.Builder
	flag := func(on bool, name string) {
		if on {
			fmt.Fprintf(&b, "\t%s;\n", name)
		}
	}
	entries := func(list []script.Entry) {
		for _, e := range list {
			fmt.Fprintf(&b, "\t%s %s;\n", quoted(e.Key), quoted(e.Value))
		}
		b.WriteString("}\n")
	}
	for _, g := range s.geos {
		fmt.Fprintf(&b, "geo %s %s {\n", g.Source, g.Variable)
		flag(g.Ranges, "ranges")
		entries(g.Entries)
	}
	for _, m := range s.maps {
		fmt.Fprintf(&b, "map %s %s {\n", quoted(m.Source), m.Variable)
		flag(m.Hostnames, "hostnames")
		flag(m.Volatile, "volatile")
		entries(m.Entries)
	}
	for _, c := range s.splits {
		fmt.Fprintf(&b, "split_clients %s %s {\n", quoted(c.Source), c.Variable)
		entries(c.Parts)
	}
	return b.String()
}

// scope is the definitions as ours, or what is wrong with them.
func (s *scripts) scope() (*script.Scope, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	scope := script.NewScope(script.Process{Version: "1.22.1", Hostname: host})
	for _, g := range s.geos {
		if _, err := scope.Geo(g); err != nil {
			return nil, err
		}
	}
	for _, m := range s.maps {
		if err := scope.Map(m); err != nil {
			return nil, err
		}
	}
	for _, c := range s.splits {
		if err := scope.Split(c); err != nil {
			return nil, err
		}
	}
	return scope, scope.Build()
}

func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// told is what the server says to a client with the addresses, after the client
// has said the header.
func told(t *testing.T, from, to net.Addr, header string) (said string, client net.Addr) {
	t.Helper()
	d := net.Dialer{LocalAddr: from, Timeout: patience}
	c, err := d.Dial(to.Network(), to.String())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	if header != "" { // else the server may have closed already
		_, err = io.WriteString(c, header)
		require.NoError(t, err)
	}
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(b), c.LocalAddr()
}

// Values as nginx prints them, for clients of all kinds of address, real ones
// and such as a PROXY header says. Maps get keys of any text by way of a geo
// block over the many addresses of the loopback network.
//
// Fails if in a map the longest prefix is looked up before the longest suffix, an
// expression is tried on an empty key, or $1 does not outlive the map; if a geo
// block looks an address of no family up nowhere; if a duplicate range does not
// replace the former; if the rest of a hash is mixed in twice; if a port is
// appended to unix: or $status is not padded.
func TestScriptAsNginx(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 22))
	keys := mapKeys(random)
	defs := definitions(random, keys)
	scope, err := defs.scope()
	require.NoError(t, err)

	const values = "$remote_addr $remote_port $realip_remote_addr $realip_remote_port $server_addr $server_port " +
		"$protocol $status $bytes_received [$limit_conn_status] [$upstream_addr] $hostname ${nginx_version} " +
		"[$key] $exact $exact $host $moved $always $net $range $SPLIT $some " +
		"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port " +
		"$far_net $far_range $far_split $binary_remote_addr " +
		"$match$1$2 [$first|$second]" // last, since a match changes $1 for what goes before, and nginx gives up
	value, err := scope.Compile(values)
	require.NoError(t, err)
	type logged struct {
		name   string
		escape script.Escape
		texts  []string
	}
	logs := []logged{
		{"default", script.EscapeDefault, []string{`$binary_remote_addr "$key" $upstream_addr `, `$status é $bytes_sent $exact`}},
		{"json", script.EscapeJSON, []string{`{"a": "$binary_remote_addr", "k": "$key", "u": "$upstream_addr", "m": "$match"}`}},
		{"none", script.EscapeNone, []string{`<$key$upstream_addr>`}},
	}

	dir := t.TempDir()
	plain, far, v6 := freeAddr(t), freeAddr(t), fmt.Sprintf("[::1]:%d", smtptest.FreePort(t))
	path := filepath.Join(dir, "socket")
	var b strings.Builder
	b.WriteString("map_hash_max_size 8192; map_hash_bucket_size 256; variables_hash_bucket_size 128;\n" + defs.nginx())
	for _, l := range logs {
		fmt.Fprintf(&b, "log_format %s escape=%s", l.name, l.name)
		for _, text := range l.texts {
			b.WriteString(" " + quoted(text))
		}
		fmt.Fprintf(&b, ";\naccess_log %s %s;\n", filepath.Join(dir, l.name), l.name)
	}
	for _, listen := range []string{plain, far + " proxy_protocol", v6, "unix:" + path} {
		fmt.Fprintf(&b, "server { listen %s; return %s; }\n", listen, quoted(values))
	}
	peers.NginxStream(t, plain, b.String())

	session := &script.Session{}
	want := make([]bytes.Buffer, len(logs))
	formats := make([]*script.Format, len(logs))
	for i, l := range logs {
		formats[i], err = scope.Format(l.escape, l.texts...)
		require.NoError(t, err)
	}
	compare := func(from, to net.Addr, header string, facts func(*script.Facts)) {
		t.Helper()
		theirs, client := told(t, from, to, header)
		session.Begin(scope)
		if a, ok := client.(*net.TCPAddr); ok {
			session.Client = a.AddrPort()
			session.Server = to.(*net.TCPAddr).AddrPort()
		} else {
			session.ServerPath = path
		}
		session.Front = session.Client
		facts(&session.Facts)
		ours := value.Append(nil, session)
		require.Equal(t, theirs, string(ours), "client %v, header %q", client, header)
		session.Status, session.BytesSent, session.BytesReceived = 200, int64(len(ours)), 0
		for i, f := range formats {
			want[i].Write(append(f.Append(nil, session), '\n'))
		}
	}
	nothing := func(*script.Facts) {}
	for i := range keys {
		compare(tcp(keyAddr(i)), tcp(plain), "", nothing)
	}
	for range 200 {
		compare(tcp(fmt.Sprintf("127.%d.%d.%d:0", random.IntN(4), random.IntN(256), 1+random.IntN(254))), tcp(plain), "", nothing)
	}
	for range 3 {
		compare(nil, tcp(v6), "", nothing)
		compare(nil, &net.UnixAddr{Name: path, Net: "unix"}, "", nothing)
	}
	for range 300 {
		src := netip.AddrPortFrom(someAddr(random), uint16(random.IntN(65536)))
		dst := netip.AddrPortFrom(someAddr(random), uint16(random.IntN(3)))
		family := "TCP6"
		if src.Addr().Is4() {
			family = "TCP4"
		}
		header := fmt.Sprintf("PROXY %s %s %s %d %d\r\n", family, src.Addr(), dst.Addr(), src.Port(), dst.Port())
		compare(nil, tcp(far), header, func(f *script.Facts) { f.ProxySource, f.ProxyDestination = src, dst })
	}
	compare(nil, tcp(far), "PROXY UNKNOWN\r\n", nothing)
	for i, l := range logs {
		theirs, err := os.ReadFile(filepath.Join(dir, l.name))
		require.NoError(t, err)
		if l.escape == script.EscapeJSON {
			theirs = asJSON(theirs)
		}
		require.Equal(t, string(theirs), want[i].String(), l.name)
	}
}

// asJSON makes JSON of what nginx takes for it: it does not touch DEL, the C1
// controls and what is not UTF-8.
func asJSON(log []byte) (valid []byte) {
	for i := 0; i < len(log); {
		r, size := utf8.DecodeRune(log[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			valid = append(valid, `\ufffd`...)
		case r >= 0x7f && r < 0xa0:
			valid = fmt.Appendf(valid, `\u%04X`, r)
		default:
			valid = append(valid, log[i:i+size]...)
		}
		i += size
	}
	return valid
}

// Times as nginx prints them: within its own second, in the same format.
func TestScriptTimesAsNginx(t *testing.T) {
	t.Parallel()
	const text = "$time_local|$time_iso8601|$msec|$session_time"
	addr := freeAddr(t)
	peers.NginxStream(t, addr, fmt.Sprintf("server { listen %s; return %q; }", addr, text))
	scope := script.NewScope(script.Process{})
	require.NoError(t, scope.Build())
	value, err := scope.Compile(text)
	require.NoError(t, err)
	theirs, _ := told(t, nil, tcp(addr), "")
	fields := strings.Split(theirs, "|")
	var seconds, ms int64
	_, err = fmt.Sscanf(fields[2], "%d.%03d", &seconds, &ms)
	require.NoError(t, err)
	session := &script.Session{}
	session.Begin(scope)
	session.Now = (seconds*1000+ms)*1e6 + 999_999
	require.Equal(t, theirs, string(value.Append(nil, session)))
}

// What came of each server tried, as nginx prints it: facts read from its lines
// make the same lines. Fails if attempts are joined by another text, what did not
// happen is zero, or milliseconds are not padded.
func TestScriptAttemptsAsNginx(t *testing.T) {
	t.Parallel()
	greeter := loopback(t)
	go func() {
		for {
			c, err := greeter.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 mx\r\n")
			_ = c.Close()
		}
	}()
	dead, live := freeAddr(t), greeter.Addr().String()
	next, none, spent := freeAddr(t), freeAddr(t), freeAddr(t)
	const text = "$status $limit_conn_status|$upstream_addr|$upstream_bytes_sent|$upstream_bytes_received|" +
		"$upstream_connect_time|$upstream_first_byte_time|$upstream_session_time"
	file := filepath.Join(t.TempDir(), "log")
	peers.NginxStream(t, next, fmt.Sprintf(`
limit_conn_zone $binary_remote_addr zone=clients:32k;
log_format attempts %q;
access_log %s attempts;
upstream next { server %s; server %s; }
upstream none { server %s; }
upstream spent { server %s; server %s down; }
server { listen %s; proxy_pass next; limit_conn clients 9; }
server { listen %s; proxy_pass none; }
server { listen %s; proxy_pass spent; }`, text, file, dead, live, dead, dead, live, next, none, spent))

	scope := script.NewScope(script.Process{})
	require.NoError(t, scope.Build())
	format, err := scope.Format(script.EscapeDefault, text)
	require.NoError(t, err)
	session := &script.Session{}
	for _, to := range []string{next, next, none, none, spent, spent} {
		_, _ = told(t, nil, tcp(to), "")
	}
	var lines []string
	smtptest.Eventually(t, patience, "6 lines in the log", func() bool {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		lines = strings.SplitAfter(string(b), "\n")
		return len(lines) == 7
	})
	attempts := 0
	for _, theirs := range lines[:6] {
		theirs = strings.TrimSuffix(theirs, "\n")
		session.Begin(scope)
		f := strings.Split(theirs, "|")
		session.Status = int(number(t, f[0][:3]))
		if strings.HasSuffix(f[0], "PASSED") {
			session.LimitConn = script.LimitPassed
		}
		for i, addr := range strings.Split(f[1], ", ") {
			nth := func(field int) int64 { return number(t, strings.Split(f[field], ", ")[i]) }
			session.Attempts = append(session.Attempts, script.Attempt{
				Addr: addr, BytesSent: nth(2), BytesReceived: nth(3), Connect: nth(4), FirstByte: nth(5), Session: nth(6)})
			attempts++
		}
		require.Equal(t, theirs, string(format.Append(nil, session)))
	}
	require.Greater(t, attempts, 6, lines)
}

// number reads an integer, or milliseconds from seconds, or a dash.
func number(t *testing.T, text string) int64 {
	t.Helper()
	if text == "-" {
		return script.Absent
	}
	n, err := strconv.ParseInt(strings.Replace(text, ".", "", 1), 10, 64)
	require.NoError(t, err)
	return n
}

func tcp(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }
