package script

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// built returns a scope with what define defines.
func built(t testing.TB, define func(*Scope)) *Scope {
	t.Helper()
	scope := NewScope(Process{Version: "1.22.1", Hostname: "MX.example", PID: 42})
	if define != nil {
		define(scope)
	}
	require.NoError(t, scope.Build())
	return scope
}

func compiled(t testing.TB, scope *Scope, text string) *Value {
	t.Helper()
	v, err := scope.Compile(text)
	require.NoError(t, err)
	return v
}

func begun(scope *Scope) *Session {
	s := &Session{}
	s.Begin(scope)
	return s
}

// someFacts are those of a session in which everything has happened.
func someFacts(f *Facts) {
	f.Client = netip.MustParseAddrPort("192.0.2.7:40000")
	f.Front = netip.MustParseAddrPort("[2001:db8::1]:50000")
	f.Server = netip.MustParseAddrPort("198.51.100.1:25")
	f.ProxySource, f.ProxyDestination = f.Client, netip.MustParseAddrPort("203.0.113.1:2525")
	f.ServerName = "mx.example.org"
	f.Connection = 77
	f.Now = time.Date(2026, 11, 22, 0, 5, 24, 7_999_999, time.Local).UnixNano()
	f.SessionTime = 61_005
	f.BytesSent, f.BytesReceived = 1234, 5678
	f.Status = 200
	f.LimitConn = LimitRejectedDryRun
	f.Attempts = append(f.Attempts[:0],
		Attempt{Addr: "10.0.0.1:25", Connect: Absent, FirstByte: Absent, Session: 3000},
		Attempt{Addr: "unix:/a\"b", Connect: 1, FirstByte: 12, Session: 58004, BytesSent: 5678, BytesReceived: 1234})
	f.BannerCode, f.BannerTime = 220, 12
	f.End = End{Who: "client", Phase: "relay", Why: "closed"}
}

// The formats of nginx's modules; what is not set is nothing in a value and a
// dash in a log. Fails if a status is not padded, or Begin leaves a fact.
func TestVariables(t *testing.T) {
	t.Parallel()
	scope := built(t, nil)
	full, empty := begun(scope), begun(scope)
	someFacts(&full.Facts)
	now := time.Unix(0, full.Now)
	table := map[string]struct{ full, empty string }{
		"remote_addr":                {"192.0.2.7", "unix:"},
		"binary_remote_addr":         {"\xc0\x00\x02\x07", "unix:"},
		"remote_port":                {"40000", ""},
		"server_addr":                {"198.51.100.1", "unix:"},
		"server_port":                {"25", ""},
		"server_name":                {"mx.example.org", ""},
		"realip_remote_addr":         {"2001:db8::1", "unix:"},
		"realip_remote_port":         {"50000", ""},
		"proxy_protocol_addr":        {"192.0.2.7", "unset"},
		"proxy_protocol_port":        {"40000", "unset"},
		"proxy_protocol_server_addr": {"203.0.113.1", "unset"},
		"proxy_protocol_server_port": {"2525", "unset"},
		"bytes_sent":                 {"1234", "0"},
		"bytes_received":             {"5678", "0"},
		"session_time":               {"61.005", "0.000"},
		"status":                     {"200", "000"},
		"connection":                 {"77", "0"},
		"protocol":                   {"TCP", "TCP"},
		"nginx_version":              {"1.22.1", "1.22.1"},
		"hostname":                   {"mx.example", "mx.example"},
		"pid":                        {"42", "42"},
		"msec":                       {strconv.FormatInt(now.Unix(), 10) + ".007", "0.000"},
		"time_local":                 {now.Format("02/Jan/2006:15:04:05 -0700"), time.Unix(0, 0).Format("02/Jan/2006:15:04:05 -0700")},
		"time_iso8601":               {now.Format("2006-01-02T15:04:05-07:00"), time.Unix(0, 0).Format("2006-01-02T15:04:05-07:00")},
		"upstream_addr":              {"10.0.0.1:25, unix:/a\"b", "unset"},
		"upstream_bytes_sent":        {"0, 5678", "unset"},
		"upstream_bytes_received":    {"0, 1234", "unset"},
		"upstream_connect_time":      {"-, 0.001", "unset"},
		"upstream_first_byte_time":   {"-, 0.012", "unset"},
		"upstream_session_time":      {"3.000, 58.004", "unset"},
		"limit_conn_status":          {"REJECTED_DRY_RUN", "unset"},
		"smtp_banner_code":           {"220", "unset"},
		"smtp_banner_time":           {"0.012", "unset"},
		"session_end":                {"client/relay/closed", "unset"},
	}
	require.Len(t, table, len(builtins)+len(scope.process), "a variable is missing here")
	for name, want := range table {
		value := compiled(t, scope, "${"+strings.ToUpper(name)+"}")
		line, err := scope.Format(EscapeNone, "$"+name)
		require.NoError(t, err)
		dash, err := scope.Format(EscapeDefault, "$"+name)
		require.NoError(t, err)
		require.Equal(t, want.full, string(value.Append(nil, full)), name)
		require.Equal(t, want.full, string(line.Append(nil, full)), name)
		if want.empty == "unset" {
			require.Equal(t, "-", string(dash.Append(nil, empty)), name)
			want.empty = ""
		}
		require.Equal(t, want.empty, string(value.Append(nil, empty)), name)
		require.Equal(t, want.empty, string(line.Append(nil, empty)), name)
	}
	full.Begin(scope)
	full.clock, full.Attempts = empty.clock, empty.Attempts // whose memory stays
	require.Equal(t, empty.Facts, full.Facts)
	six := begun(scope)
	six.Client = netip.MustParseAddrPort("[2001:db8::2]:1")
	six.ServerPath = "/run/smtp"
	require.Equal(t, "2001:db8::2|\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02|unix:/run/smtp|",
		string(compiled(t, scope, "$remote_addr|$binary_remote_addr|$server_addr|$server_port").Append(nil, six)))
}

// The two times change with the second, also backwards. Fails if their text is
// made once, or for two seconds.
func TestClock(t *testing.T) {
	t.Parallel()
	scope := built(t, nil)
	value, s := compiled(t, scope, "$time_iso8601"), begun(scope)
	for _, ns := range []int64{0, 999_999_999, 1e9, 1e9 + 1, 5e9, 4e9} {
		s.Begin(scope)
		s.Now = ns
		require.Equal(t, time.Unix(0, ns).Format("2006-01-02T15:04:05-07:00"), string(value.Append(nil, s)))
	}
}

func TestConstant(t *testing.T) {
	t.Parallel()
	scope := built(t, nil)
	for text, want := range map[string]string{"": "", "a}b{": "a}b{", "${hostname}:25": "mx.example:25", "$pid$pid": "4242"} {
		got, ok := compiled(t, scope, text).Constant()
		require.True(t, ok, text)
		require.Equal(t, want, got)
		require.Equal(t, "x"+want, string(compiled(t, scope, text).Append([]byte("x"), begun(scope))))
	}
	for _, text := range []string{"$status", "a$1", "a${remote_addr}b"} {
		_, ok := compiled(t, scope, text).Constant()
		require.False(t, ok, text)
	}
}

// Every byte, as ngx_stream_log_escape writes it; and as ngx_escape_json does, less
// what would be no JSON, or could command a terminal. Fails if DEL is not escaped,
// or if a byte that is not UTF-8 stays.
func TestEscape(t *testing.T) {
	t.Parallel()
	scope := built(t, nil)
	s := begun(scope)
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	s.ServerName = string(all)
	var want strings.Builder
	for _, c := range all {
		if c < 32 || c > 126 || c == '"' || c == '\\' {
			want.WriteString(`\x` + string(hex[c/16]) + string(hex[c%16]))
		} else {
			want.WriteByte(c)
		}
	}
	json := strings.NewReplacer("\"", `\"`, "\\", `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\b", `\b`, "\f", `\f`,
		"\x00", `\u0000`, "\x0b", `\u000B`, "\x1f", `\u001F`, "\x7f", `\u007F`, "\u009b", `\u009B`, "\xff", `\ufffd`)
	text := string(all[:1]) + string(all[8:14]) + string(all[31:128]) + "\u009b\u00a0é€\ufffd😀\xff"
	for escape, test := range map[Escape][2]string{
		EscapeDefault: {string(all), want.String()},
		EscapeNone:    {string(all), string(all)},
		EscapeJSON:    {text, json.Replace(text)},
	} {
		s.ServerName = test[0]
		f, err := scope.Format(escape, "\x01\"", "$server_name<", "$server_port")
		require.NoError(t, err)
		require.Equal(t, "\x01\""+test[1]+"<", string(f.Append(nil, s)))
	}
	_, err := ParseEscape("html")
	require.EqualError(t, err, `unknown log format escaping "html"`)
}

// A value is evaluated once a session unless its variable is volatile, and what
// set has said stays. Fails if Begin leaves values, or volatile is not heeded.
func TestCache(t *testing.T) {
	t.Parallel()
	all := []Entry{{Key: "default", Value: "<$status>"}}
	scope := built(t, func(s *Scope) {
		require.NoError(t, s.Map(Map{Variable: "$once", Source: "x", Entries: all}))
		require.NoError(t, s.Map(Map{Variable: "$always", Source: "x", Entries: all, Volatile: true}))
		require.NoError(t, s.Map(Map{Variable: "$said", Source: "x", Entries: all, Volatile: true}))
		require.NoError(t, s.Set("$said"))
		require.NoError(t, s.Set("$mine"))
	})
	value := compiled(t, scope, "$once $always $said $mine")
	said, err := scope.Assign("$SAID", "set at $status")
	require.NoError(t, err)
	mine, err := scope.Assign("$mine", "$mine+")
	require.NoError(t, err)
	s := begun(scope)
	for range 2 {
		s.Begin(scope)
		s.Status = 1
		require.Equal(t, "<001> <001> <001> ", string(value.Append(nil, s)))
		said.Run(s)
		mine.Run(s)
		mine.Run(s)
		s.Status = 2
		require.Equal(t, "<001> <002> set at 001 ++", string(value.Append(nil, s)))
	}
}

// Any number of goroutines evaluate by one scope. Run by the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	scope := defined(t)
	format, err := scope.Format(EscapeDefault, tenVariables+" $pool $net $range $part")
	require.NoError(t, err)
	lines := make(chan string)
	const goroutines = 4
	for range goroutines {
		go func() {
			s := &Session{}
			var line []byte
			for range 50 {
				s.Begin(scope)
				someFacts(&s.Facts)
				line = format.Append(line[:0], s)
			}
			lines <- string(line)
		}()
	}
	want := <-lines
	require.Contains(t, want, `"10.0.0.1:25, unix:/a\x22b" -, 0.001 77 mx-`)
	for range goroutines - 1 {
		require.Equal(t, want, <-lines)
	}
}

// Names may be used before they are defined; problems are found by Build, all of
// them; a variable must not need itself. Fails if a value is appended to the held
// memory before the variables in it are evaluated.
func TestBuild(t *testing.T) {
	t.Parallel()
	to := func(value string) []Entry { return []Entry{{Key: "default", Value: value}} }
	define := func(t *testing.T, s *Scope, variable, source, value string) {
		t.Helper()
		require.NoError(t, s.Map(Map{Variable: variable, Source: source, Entries: to(value)}))
	}
	scope := built(t, func(s *Scope) {
		define(t, s, "$a", "$b", "$c")
		define(t, s, "$b", "$c", "x")
		define(t, s, "$c", "x", "last")
		define(t, s, "$session_end", "x", "ours no more")
	})
	require.Equal(t, "last, ours no more", string(compiled(t, scope, "$a, $session_end").Append(nil, begun(scope))))

	scope = NewScope(Process{})
	define(t, scope, "$a", "$x", "1")
	define(t, scope, "$b", "1", "$y")
	err := scope.Build()
	require.EqualError(t, err, "variable $a: unknown \"x\" variable\nvariable $b: unknown \"y\" variable")
	var problem *Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, "a", problem.Variable)

	scope = NewScope(Process{})
	define(t, scope, "$a", "$b", "1")
	_, err = scope.Geo(Geo{Variable: "$b", Source: "$c"})
	require.NoError(t, err)
	require.NoError(t, scope.Split(Split{Variable: "$c", Source: "-$a"}))
	require.ErrorContains(t, scope.Build(), "variable $a: cycle while evaluating variable: $a, $b, $c, $a")
}

func TestFormatErrors(t *testing.T) {
	t.Parallel()
	scope := built(t, nil)
	for text, want := range map[string]string{
		"a$1": `unknown "1" variable`, "a$": `invalid parameter "$"`, "${": `invalid parameter "${"`, "a$-b": `invalid parameter "$-b"`, "${a": `the closing bracket in "a" variable is missing`,
	} {
		_, err := scope.Format(EscapeDefault, "ok", text)
		require.EqualError(t, err, want, text)
	}
}

// What only PCRE has is refused by name.
func TestMapExpressions(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"(?=a)", `(a)\1`, "a++", `\h`, "(?>a)", `a\Z`} {
		err := NewScope(Process{}).Map(Map{Variable: "$x", Source: "a", Entries: []Entry{{Key: "~" + pattern, Value: "1"}}})
		require.ErrorContains(t, err, "regular expression", pattern)
		require.ErrorContains(t, err, strings.TrimPrefix(strings.ReplaceAll(pattern, `\`, `\\`), "~"))
	}
}

// The warnings of nginx, and of which entries they are.
//
// Fails if an entry is counted from where the block begins.
func TestGeoWarnings(t *testing.T) {
	t.Parallel()
	texts := func(warnings []*EntryError) (all []string) {
		for _, w := range warnings {
			all = append(all, fmt.Sprintf("%d %v", w.Entry, w))
		}
		return all
	}
	warnings, err := NewScope(Process{}).Geo(Geo{Variable: "$x", Entries: []Entry{
		{"10.1.1.1/8", "a"}, {"10.0.0.0/8", "b"}, {"delete", "11.0.0.0/8"},
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"0 low address bits of 10.1.1.1/8 are meaningless",
		`1 duplicate network "10.0.0.0/8", value: "b", old value: "a"`, `2 no network "11.0.0.0/8" to delete`}, texts(warnings))
	warnings, err = NewScope(Process{}).Geo(Geo{Variable: "$x", Ranges: true, Entries: []Entry{
		{"default", "a"}, {"default", "b"}, {"1.1.1.1-1.1.1.2", "c"}, {"1.1.1.1-1.1.1.2", "d"}, {"delete", "1.1.1.1-1.1.1.1"},
	}})
	require.NoError(t, err)
	require.Equal(t, []string{`1 duplicate default geo range value: "b", old value: "a"`,
		`3 duplicate range "1.1.1.1-1.1.1.2", value: "d", old value: "c"`, `4 no address range "1.1.1.1-1.1.1.1" to delete`}, texts(warnings))
}

// A range that is given twice is odd once, however many pieces nginx makes of it.
//
// Fails if each piece has a warning, which were megabytes for a line.
func TestRangeIsOddOnce(t *testing.T) {
	t.Parallel()
	warnings, err := NewScope(Process{}).Geo(Geo{Variable: "$x", Ranges: true, Entries: []Entry{
		{"0.0.0.0-255.255.255.254", "a"}, {"0.0.0.0-255.255.255.254", "b"},
	}})
	require.NoError(t, err)
	require.Equal(t, 1, len(warnings)) // not Len, which would print them
}

// What is wrong with an entry is said of that entry, which has a line.
//
// Fails if any block gives its own place for it.
func TestEntryErrors(t *testing.T) {
	t.Parallel()
	s := NewScope(Process{})
	_, network := s.Geo(Geo{Variable: "$a", Entries: []Entry{{"default", ""}, {"x", ""}}})
	_, ranges := s.Geo(Geo{Variable: "$b", Ranges: true, Entries: []Entry{{"default", ""}, {"1.1.1.1", ""}}})
	for _, err := range []error{
		network, ranges,
		s.Map(Map{Variable: "$c", Entries: []Entry{{"a", ""}, {"A", ""}}}),
		s.Split(Split{Variable: "$d", Parts: []Entry{{"99%", ""}, {"2%", ""}}}),
		s.Split(Split{Variable: "$e", Parts: []Entry{{"99%", ""}, {"2", ""}}}),
	} {
		var of *EntryError
		require.ErrorAs(t, err, &of)
		require.Equal(t, 1, of.Entry, "%v", err)
	}
}
