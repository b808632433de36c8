package conf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The natural form of variables, logs and limits in TOML, and all ways to write
// them.
//
// Fails if entries of a table are not in the order of the file, or if a text is
// changed on its way.
func TestVariables(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(`
[[log_format]]
name = "Mail"
format = ["$remote_addr", "x \t\"$status\""]
[[log_format]]
name = "json"
escape = "json"
format = ""
[[map]]
source = "$remote_addr"
variable = "pool"
hostnames = true
default = "mx"
entries = { z = "1", "127.0.0.1" = "local", a = "$1", "" = "" }
[[map]]
source = ""
variable = "more"
volatile = true
entries = [["~^a{2}", "b"], ["default", "\u0001ä"]]
[[geo]]
variable = "where"
ranges = true
entries = { "10.0.0.0-10.0.0.9" = "office" }
[[geo]]
source = "$realip_remote_addr"
variable = "near"
default = "0"
entries = [["10.0.0.0/8", "1"], ["delete", "10.0.0.0/8"]]
[[split_clients]]
source = "$remote_addr"
variable = "half"
parts = { "50%" = "a", "*" = "b" }
[[limit_conn_zone]]
name = "addr"
key = "$binary_remote_addr"
[[upstream]]
name = "mx"
servers = ["h:1", "h:2"]
proxy_protocol = "v1"
method = { type = "hash", key = "$half" }
[[server]]
listen = 1
proxy_pass = "$pool"
set = { b = "1", a = "$b" }
access_log = { path = "/a", format = "mail", gzip = 6, flush = "1m", if = "$near" }
limit_conn = { zone = "addr", connections = 5 }
limit_conn_dry_run = true
[[server]]
listen = 2
return = "421 4.3.2 closed\r\n"
set = [["a", "x"], ["a", "$a$a"]]
access_log = [{ path = "/$a", format = "json" }, { path = "/b", format = "Mail", buffer = "4k" }]
limit_conn_log_level = "notice"
[[server]]
listen = 3
return = ""
access_log = "off"
`))
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
	require.Equal(t, Position{"t.toml", 13, 11}, c.Maps[0].Entries[0].Position)
	require.Equal(t, Position{"t.toml", 14, 13}, c.Maps[0].Entries[1].Position)
	require.Equal(t, Position{"t.toml", 19, 12}, c.Maps[1].Entries[0].Position)
	require.Equal(t, Position{"t.toml", 43, 14}, c.Servers[0].ProxyPassPosition)
	require.True(t, c.Upstreams[0].Check.On, "a server that may pass to it speaks SMTP, none does not")
	requireSame(t, c)

	require.Equal(t, []LogFormat{
		{Name: "Mail", Escape: "default", Texts: []string{"$remote_addr", "x \t\"$status\""}},
		{Name: "json", Escape: "json", Texts: []string{""}},
	}, c.LogFormats)
	require.Equal(t, []Map{
		{Variable: "$pool", Source: "$remote_addr", Hostnames: true, Entries: []Entry{
			{Key: "default", Value: "mx"},
			{Key: "z", Value: "1"}, {Key: "127.0.0.1", Value: "local"}, {Key: "a", Value: "$1"}, {},
		}},
		{Variable: "$more", Volatile: true, Entries: []Entry{{Key: "~^a{2}", Value: "b"}, {Key: "default", Value: "\x01ä"}}},
	}, c.Maps)
	require.Equal(t, []Geo{
		{Variable: "$where", Ranges: true, Entries: []Entry{{Key: "10.0.0.0-10.0.0.9", Value: "office"}}},
		{Variable: "$near", Source: "$realip_remote_addr", Entries: []Entry{
			{Key: "default", Value: "0"}, {Key: "10.0.0.0/8", Value: "1"}, {Key: "delete", Value: "10.0.0.0/8"},
		}},
	}, c.Geos)
	require.Equal(t, []Split{{Variable: "$half", Source: "$remote_addr", Parts: []Entry{{Key: "50%", Value: "a"}, {Key: "*", Value: "b"}}}}, c.Splits)
	require.Equal(t, []LimitZone{{Name: "addr", Key: "$binary_remote_addr", Size: 1 << 20}}, c.LimitZones)

	one, two, three := c.Servers[0], c.Servers[1], c.Servers[2]
	require.Equal(t, []any{"", "$pool", (*Text)(nil)}, []any{one.ProxyPass, one.ProxyPassText, one.Return})
	require.Equal(t, []Set{{Variable: "$b", Value: "1"}, {Variable: "$a", Value: "$b"}}, one.Sets)
	require.Equal(t, []AccessLog{{Path: "/a", Format: "Mail", Buffer: 64 << 10, Flush: time.Minute, Gzip: 6, If: "$near"}}, one.AccessLogs)
	require.Equal(t, []Limit{{Zone: "addr", Connections: 5}}, one.Limits)
	require.Equal(t, []any{"error", true}, []any{one.LimitLogLevel, one.LimitDryRun})
	require.Equal(t, &Text{Text: "421 4.3.2 closed\r\n"}, two.Return)
	require.Equal(t, []Set{{Variable: "$a", Value: "x"}, {Variable: "$a", Value: "$a$a"}}, two.Sets)
	require.Equal(t, []AccessLog{{Path: "/$a", Format: "json"}, {Path: "/b", Format: "Mail", Buffer: 4 << 10}}, two.AccessLogs)
	require.Equal(t, []any{"notice", false}, []any{two.LimitLogLevel, two.LimitDryRun})
	require.Equal(t, &Text{}, three.Return)
	require.Empty(t, three.AccessLogs)
}

// Lists are taken as a whole by servers that have none of their own; "off" is one.
//
// Fails if those of a server are added to those of its stream block.
func TestNginxInheritedLogs(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `stream {
    log_format f $status; limit_conn_zone a zone=a:1m; limit_conn_zone b zone=b:1m;
    access_log a f; access_log b f; limit_conn a 1; limit_conn_dry_run on;
    server { listen 1; proxy_pass h:1; }
    server { listen 2; proxy_pass h:1; access_log c f; limit_conn b 2; limit_conn_dry_run off; }
    server { listen 3; proxy_pass h:1; access_log off; }
    server { listen 4; proxy_pass h:1; access_log c f; access_log off; }
}`)
	for i, want := range []string{"a b 1 true", "c 2 false", " 1 true", " 1 true"} {
		s := c.Servers[i]
		var paths []string
		for _, l := range s.AccessLogs {
			paths = append(paths, l.Path)
		}
		require.Equal(t, want, fmt.Sprint(strings.Join(paths, " "), " ", s.Limits[0].Connections, " ", s.LimitDryRun))
	}
}

// Of proxy_pass and return the last one is what a server does.
//
// Fails if the first one stays.
func TestNginxLastHandler(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `stream {
upstream a { server h:1; check type=smtp; }
server { listen 1; proxy_pass a; return x; }
server { listen 2; return x; proxy_pass a; }
server { listen 127.0.0.1:3; return x; proxy_pass $x; }
server { listen 4; proxy_pass $x; return y; }
}`)
	var got []string
	for _, s := range c.Servers {
		text := ""
		if s.Return != nil {
			text = s.Return.Text
		}
		got = append(got, fmt.Sprint(s.ProxyPass, "|", s.ProxyPassText, "|", text, "|", s.SMTP.On))
	}
	require.Equal(t, []string{"||x|false", "a|||true", "|$x||true", "||y|false"}, got)
	require.Equal(t, `"return" takes the place of the proxy_pass in n.conf:3 in n.conf:3`, c.Warnings[0])
	require.Equal(t, `"proxy_pass" takes the place of the return in n.conf:4 in n.conf:4`, c.Warnings[1])
	requireSame(t, c)
}

// Who may pass to any upstream wants the same header of all.
//
// Fails if a variable hides that servers would get two.
func TestNginxHeaderForAny(t *testing.T) {
	t.Parallel()
	const text = "stream { upstream a { server h:1; } upstream b { server h:2; }\n" +
		"server { listen 1; proxy_pass $x; proxy_protocol on; }\nserver { listen 2; proxy_pass b; %s }\nserver { listen 3; proxy_pass $x; proxy_protocol on; } }"
	c := mustParseNginx(t, fmt.Sprintf(text, "proxy_protocol on;"))
	require.Equal(t, []string{"v1", "v1"}, []string{c.Upstreams[0].ProxyProtocol, c.Upstreams[1].ProxyProtocol})
	_, err := parseNginx(fmt.Sprintf(text, ""))
	require.EqualError(t, err, `"proxy_protocol" is off here and v1 for the server in n.conf:2, but both may pass to upstream "b", `+
		`whose servers expect one of them in n.conf:3`)
}

// What each session evaluates of its way, in TOML and as an nginx.conf has it.
//
// Fails if a text is taken for a value, or the client's address for a text; if a
// doubtful one is not warned of; or if an address with a port concerns upstreams.
func TestTextsOfSessions(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(`
[[server]]
listen = "127.0.0.1:1"
proxy_pass = "$ip:25"
proxy_protocol = "v2"
proxy_bind = "$own"
proxy_upload_rate = "${up}k"
proxy_download_rate = "$down"
[[server]]
listen = "127.0.0.1:2"
proxy_pass = "a"
proxy_bind = { address = "$remote_addr:$remote_port", transparent = true }
[[server]]
listen = "127.0.0.1:3"
proxy_pass = "$ip:25"
proxy_bind = { address = "$own:25", transparent = true }
smtp = false
[[upstream]]
name = "a"
servers = ["h:1", "h:2"]
method = { type = "hash", key = "gold" }
`))
	require.NoError(t, err)
	at := func(line int) Position { return Position{"t.toml", line, 14} }
	one, two, three := c.Servers[0], c.Servers[1], c.Servers[2]
	require.Equal(t, &Bind{Position: at(6), Text: "$own"}, one.Bind)
	require.Equal(t, Rate{Text: &Text{Position{"t.toml", 7, 21}, "${up}k"}}, one.UploadRate)
	require.Equal(t, "$down", one.DownloadRate.Text.Text)
	require.Equal(t, []any{"", "$ip:25", "v2"}, []any{one.ProxyPass, one.ProxyPassText, one.ProxyProtocol})
	require.Equal(t, &Bind{Position: at(12), ClientPort: true, Transparent: true}, two.Bind)
	require.Equal(t, &Bind{Position: at(16), Text: "$own:25", Transparent: true}, three.Bind)
	require.True(t, c.Upstreams[0].Check.On, "whoever passes to addresses does not use it")
	require.Equal(t, []string{`t.toml:21:10: method: key "gold" has no variables: all sessions of upstream "a" go to one server, and to another only while that is out`}, c.Warnings)
	requireSame(t, c)

	c = mustParseNginx(t, `stream {
upstream a { hash gold; server h:1; check type=smtp; }
upstream b { hash ""; server h:1; }
split_clients $remote_addr $x { 50% a b; }
server { listen 127.0.0.1:1; proxy_pass $ip:25; proxy_bind $remote_addr; proxy_protocol on; proxy_upload_rate $up; }
server { listen 127.0.0.1:2; proxy_pass a; }
}`)
	require.Equal(t, []string{
		`"hash" by an empty text is round robin in n.conf:3`,
		`"b" has no effect: the value is "a" in n.conf:4`,
		`"$remote_addr" in "proxy_bind" without "transparent": only the addresses of clients on this host can be bound in n.conf:5`,
		`method: key "gold" has no variables: all sessions of upstream "a" go to one server, and to another only while that is out in n.conf:2`,
	}, c.Warnings)
	require.Equal(t, "round_robin", c.Upstreams[1].Method.Type)
	require.Equal(t, []any{"v1", "off"}, []any{c.Servers[0].ProxyProtocol, c.Upstreams[0].ProxyProtocol})
	require.Equal(t, []any{false, true}, []any{c.Servers[0].SMTP.On, c.Servers[1].SMTP.On})
	requireSame(t, c)
}
