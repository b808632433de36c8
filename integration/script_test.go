package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// What nginx refuses is refused in its words.
func TestScriptRefusedAsNginx(t *testing.T) {
	t.Parallel()
	entry := func(pairs ...string) (list []script.Entry) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, script.Entry{Key: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	aMap := func(source, variable string, pairs ...string) scripts {
		return scripts{maps: []script.Map{{Variable: variable, Source: source, Entries: entry(pairs...)}}}
	}
	hosts := func(pairs ...string) scripts {
		return scripts{maps: []script.Map{{Variable: "$x", Source: "$remote_addr", Hostnames: true, Entries: entry(pairs...)}}}
	}
	geo := func(ranges bool, pairs ...string) scripts {
		return scripts{geos: []script.Geo{{Variable: "$x", Ranges: ranges, Entries: entry(pairs...)}}}
	}
	split := func(pairs ...string) scripts {
		return scripts{splits: []script.Split{{Variable: "$x", Source: "$remote_addr", Parts: entry(pairs...)}}}
	}
	for _, test := range []struct {
		message string // empty if both accept it
		scripts scripts
	}{
		{`unknown "nowhere" variable`, aMap("$nowhere", "$x", "a", "b")},
		{`unknown "nowhere" variable`, aMap("$remote_addr", "$x", "default", "a${Nowhere}b")},
		{`unknown "0" variable`, aMap("$0", "$x")},
		{`invalid variable name`, aMap("a$", "$x")},
		{`invalid variable name`, aMap("$-", "$x")},
		{`invalid variable name "x"`, aMap("a", "x")},
		{`the closing bracket in "a" variable is missing`, aMap("${a-}", "$x")},
		{`the duplicate "Remote_Addr" variable`, aMap("a", "$Remote_Addr")},
		{`the duplicate "hostname" variable`, aMap("a", "$hostname")},
		{`the duplicate "ssl_preread_protocol" variable`, aMap("a", "$ssl_preread_protocol")},
		{`unknown "ssl_xyz" variable`, aMap("$ssl_xyz", "$x")},
		{``, aMap("$ssl_preread_server_name", "$ssl_protocol")},
		{`duplicate default map parameter`, aMap("a", "$x", "default", "1", "default", "2")},
		{`conflicting parameter "a"`, aMap("a", "$x", "a", "1", "A", "2")},
		{``, aMap("a", "$x", `\default`, "1", "default", "2", "*.x", "3", "..", "4", "~a", "5", "~a", "6")},
		{`conflicting parameter ".a.b"`, hosts("a.b", "1", ".a.b", "2")},
		{`conflicting parameter "a.b"`, hosts(".a.b", "1", "a.b", "2")},
		{`conflicting parameter "*.a.b"`, hosts(".a.b", "1", "*.a.b", "2")},
		{`conflicting parameter "a.b.*"`, hosts("a.b.*", "1", "A.b.*", "2")},
		{`invalid hostname or wildcard "a*"`, hosts("a*", "1")},
		{`invalid hostname or wildcard "a..b"`, hosts("a..b", "1")},
		{`invalid hostname or wildcard "*"`, hosts("*", "1")},
		{``, hosts("a.b", "1", "*.a.b", "2", "a.b.*", "3")},
		{`invalid variable name "x"`, scripts{geos: []script.Geo{{Variable: "$x", Source: "x"}}}},
		{`unknown "nowhere" variable`, scripts{geos: []script.Geo{{Variable: "$x", Source: "$nowhere"}}, maps: []script.Map{{Variable: "$y", Source: "$x"}}}},
		{`invalid network "10.0.0.0/33"`, geo(false, "10.0.0.0/33", "1")},
		{`invalid network "proxy"`, geo(false, "proxy", "10.0.0.0/8")},
		{`invalid network "::1%lo"`, geo(false, "::1%lo", "1")},
		{``, geo(false, "10.0.0.1/8", "1", "10.0.0.0/8", "2", "delete", "11.0.0.0/8", "::/0", "3", "255.255.255.255", "4", "010.1..1", "5")},
		{`invalid range "10.0.0.2-10.0.0.1"`, geo(true, "10.0.0.2-10.0.0.1", "1")},
		{`invalid range "10.0.0.0/8"`, geo(true, "10.0.0.0/8", "1")},
		{`invalid range "224.0.0.0-255.255.255.255"`, geo(true, "224.0.0.0-255.255.255.255", "1")},
		{`range "10.0.0.5-10.0.0.20" overlaps "10.0.0.1-10.0.0.9"`, geo(true, "10.0.0.1-10.0.0.9", "1", "10.0.0.5-10.0.0.20", "2")},
		{`range "10.0.0.1-10.1.0.9" overlaps "10.0.0.0-10.0.255.254"`, geo(true, "10.0.0.0-10.0.255.254", "1", "10.0.0.1-10.1.0.9", "2")},
		{``, geo(true, "10.0.0.0-10.1.255.255", "1", "10.0.0.0-10.2.255.255", "2", "10.0.0.3-10.0.0.3", "3", "delete", "1.1.1.1-1.1.1.2")},
		{`invalid percent value "0%"`, split("0%", "1")},
		{`invalid percent value "1.234%"`, split("1.234%", "1")},
		{`invalid percent value "5"`, split("5", "1")},
		{`percent total is greater than 100%`, split("50%", "1", "50.01%", "2")},
		{`percent total is greater than 100%`, split("*", "1", "1%", "2")},
		{``, split("1.%", "1", ".5%", "2", "*", "3")},
	} {
		_, err := test.scripts.scope()
		theirs := nginxRefuses(t, test.scripts.nginx())
		if test.message == "" {
			require.NoError(t, err, test.scripts)
			require.Empty(t, theirs)
			continue
		}
		require.ErrorContains(t, err, test.message)
		require.Contains(t, theirs, test.message)
	}
}

// nginxRefuses returns what nginx -t says of a stream block it does not accept.
func nginxRefuses(t *testing.T, stream string) string {
	t.Helper()
	dir := t.TempDir()
	program := peers.Path(t, "nginx")
	module := filepath.Join(filepath.Dir(program), "../root/usr/lib/nginx/modules/ngx_stream_module.so")
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("load_module %s;\npid %s/pid;\nevents {}\nstream {\n%s}\n", module, dir, stream)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	out, err := exec.Command(program, "-t", "-e", "stderr", "-p", dir, "-c", conf).CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}

func tcp(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

// keyAddr is the client's address that gives the key.
func keyAddr(i int) string { return fmt.Sprintf("127.9.%d.%d:0", i/250, 1+i%250) }

// mapKeys are texts that may or may not be found in a map.
func mapKeys(random *rand.Rand) []string {
	keys := []string{
		"", ".", "..", "a", "A", "example.org", "EXAMPLE.org", "example.org.", ".example.org", "x.example.org",
		"a.b.example.org", "mail.example.org", "mail.example.com", "mail.", "mail", "mail.a.b", "x.mail.example.org",
		"default", "hostnames", "~tilde", `back\slash`, `"quoted"`, "tab\there", "line\nbreak", "caf\u00e9", "\x7f", "\x01",
		"user1@host", "USER22@HOST", "user1", "192.0.2.1", "aXb", "axb", "one-two", "one-", "-two",
	}
	labels := []string{"a", "b", "mail", "MX", "example", "org", "com", ""}
	for range 200 {
		var parts []string
		for range 1 + random.IntN(4) {
			parts = append(parts, labels[random.IntN(len(labels))])
		}
		keys = append(keys, strings.Join(parts, "."))
	}
	return keys
}

// definitions are those of all the variables that the test prints.
func definitions(random *rand.Rand, keys []string) *scripts {
	exact := []script.Entry{{Key: "default", Value: "none"}}
	for i := 0; i < len(keys); i += 2 {
		if k := strings.ToLower(keys[i]); !containsKey(exact, k) && k != "default" && k != "hostnames" && !strings.HasPrefix(k, "~") && !strings.HasPrefix(k, `\`) {
			exact = append(exact, script.Entry{Key: k, Value: fmt.Sprintf("e%d", i)})
		}
	}
	exact = append(exact,
		script.Entry{Key: `\default`, Value: "word"}, script.Entry{Key: `\hostnames`, Value: "word"}, script.Entry{Key: `\~tilde`, Value: "word"})
	host := []script.Entry{{Key: "*.com", Value: "com"}, {Key: "*.example.org", Value: "sub"}, {Key: ".b.example.org", Value: "dot"},
		{Key: "mail.*", Value: "mail"}, {Key: "mail.example.*", Value: "mx"}, {Key: "a", Value: "a:$key"}, {Key: "mail.example.org", Value: "exact"},
		{Key: ".a.b", Value: "ab"}, {Key: "~^[.]", Value: "leading"}}
	match := []script.Entry{
		{Key: `~^user(\d+)@(host)$`, Value: "user $1 of $2,"}, {Key: `~*^USER(\d+)(@|$)`, Value: "any $1,"},
		{Key: `~^(?<first>[a-z]+)-(?P<second>[a-z]*)$`, Value: "$second to $first"}, {Key: `~(a)|(b)x|(c)`, Value: "<$1$2$3>"},
		{Key: `~^a.b`, Value: "plain"}, {Key: "axb", Value: "exact"}, {Key: "~^$", Value: "empty"},
	}
	key := script.Geo{Variable: "$key"}
	for i, k := range keys {
		host, _, _ := net.SplitHostPort(keyAddr(i))
		key.Entries = append(key.Entries, script.Entry{Key: host, Value: k})
	}
	networks, rangesOf := someNetworks(random), someRanges(random)
	shares := []script.Entry{{Key: "0.5%", Value: "half"}, {Key: "10%", Value: "tenth"}, {Key: "33.33%", Value: "third"}, {Key: "*", Value: "rest"}}
	return &scripts{
		geos: []script.Geo{
			key,
			{Variable: "$net", Entries: networks}, {Variable: "$range", Ranges: true, Entries: rangesOf},
			{Variable: "$far_net", Source: "$proxy_protocol_addr", Entries: networks},
			{Variable: "$far_range", Source: "$proxy_protocol_addr", Ranges: true, Entries: rangesOf},
		},
		maps: []script.Map{
			{Variable: "$exact", Source: "$key", Entries: exact},
			{Variable: "$host", Source: "${key}", Hostnames: true, Entries: host},
			{Variable: "$match", Source: "$key", Entries: match},
			{Variable: "$moved", Source: "x$key-$remote_addr", Entries: []script.Entry{{Key: "~^x(.*)-", Value: "$1=$host"}}},
			{Variable: "$always", Source: "$key", Volatile: true, Entries: []script.Entry{{Key: "default", Value: "$exact!"}}},
		},
		splits: []script.Split{
			{Variable: "$split", Source: "${remote_addr}AAA$key", Parts: shares},
			{Variable: "$some", Source: "$key", Parts: shares[:3]},
			{Variable: "$far_split", Source: "$proxy_protocol_addr", Parts: shares},
		},
	}
}

func containsKey(list []script.Entry, key string) bool {
	for _, e := range list {
		if e.Key == key {
			return true
		}
	}
	return false
}

// someAddr favours few values of each octet, so that networks are hit.
func someAddr(random *rand.Rand) netip.Addr {
	octet := func() byte {
		if random.IntN(8) == 0 {
			return byte(random.IntN(256))
		}
		return [...]byte{0, 1, 9, 127, 255}[random.IntN(5)]
	}
	if random.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{127, octet(), octet(), octet()})
		if random.IntN(4) == 0 {
			return netip.AddrFrom16(a.As16())
		}
		return a
	}
	ip := [16]byte{0: 0x20, 1: 0x01}
	for i := 2; i < len(ip); i += 1 + random.IntN(6) {
		ip[i] = octet()
	}
	return netip.AddrFrom16(ip)
}

func someNetworks(random *rand.Rand) []script.Entry {
	list := []script.Entry{{Key: "default", Value: "none"}, {Key: "::1", Value: "six"}, {Key: "255.255.255.255", Value: "nowhere"}, {Key: "::ffff:127.0.0.0/100", Value: "mapped"}}
	for i := range 150 {
		a := someAddr(random)
		net := fmt.Sprintf("%v/%d", a, random.IntN(a.BitLen()+1))
		list = append(list, script.Entry{Key: net, Value: fmt.Sprintf("n%d", i)})
		if random.IntN(8) == 0 {
			list = append(list, script.Entry{Key: "delete", Value: net})
		}
	}
	return list
}

// someRanges are such as do not overlap but by containing one another.
func someRanges(random *rand.Rand) []script.Entry {
	list := []script.Entry{{Key: "127.0.0.0-127.3.255.255", Value: "runs"}, {Key: "127.1.0.0-127.1.255.255", Value: "run"}, {Key: "default", Value: "none"}}
	for i := range 200 {
		second, third, first := random.IntN(4), random.IntN(10), random.IntN(100)
		r := fmt.Sprintf("127.%d.%d.%d-127.%d.%d.%d", second, third, first, second, third+random.IntN(2), 255-first)
		longer := append(slices.Clip(list), script.Entry{Key: r, Value: fmt.Sprintf("r%d", i)})
		if random.IntN(8) == 0 {
			longer = append(longer, script.Entry{Key: "delete", Value: r})
		}
		// What we refuse wrongly goes unnoticed here, but not in the test of refusals;
		// what we accept wrongly does not: nginx does not start.
		if _, err := script.NewScope(script.Process{}).Geo(script.Geo{Variable: "$r", Ranges: true, Entries: longer}); err == nil {
			list = longer
		}
	}
	return list
}
