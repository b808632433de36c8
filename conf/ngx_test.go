package conf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/conf/nginx"
)

func parseNginx(text string) (*Config, error) {
	r := newNgxReader()
	main := &ngxBlock{context: inMain, seen: make(map[string]bool)}
	tree, err := nginx.ParseText("n.conf", text, nginx.Options{Opaque: notServed})
	r.read(main, tree, err)
	return r.finish()
}

func mustParseNginx(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parseNginx(text)
	require.NoError(t, err)
	return c
}

// Where nothing is said, an nginx.conf has nginx's defaults.
//
// Fails if any of them is another, and with those of TOML.
func TestNginxDefaults(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, "stream {\nupstream a {\nserver h:25;\n}\nserver {\nlisten 127.0.0.1:25;\nproxy_pass A;\n}}")
	at := func(line int) Position { return Position{File: "n.conf", Line: line} }
	require.Equal(t, &Config{
		Files:           []string{"n.conf"},
		WorkerProcesses: 1,
		StopTimeout:     3 * time.Second,
		ErrorLogs:       []ErrorLog{{Path: "stderr", Level: "error"}},
		ErrorLogFormat:  "nginx",
		Daemon:          true,
		Upstreams: []Upstream{{
			Position:      at(2),
			Name:          "a",
			Method:        Method{Position: at(2), Type: "round_robin"},
			ProxyProtocol: "off",
			Check:         Check{Position: at(2)},
			Servers: []UpstreamServer{{
				Position:    at(3),
				Address:     Address{Text: "h:25", Host: "h", Port: 25},
				Weight:      1,
				MaxFails:    1,
				FailTimeout: 10 * time.Second,
			}},
		}},
		Servers: []Server{{
			Position: at(5),
			Listen: []Listen{{
				Position: at(6),
				Address:  Address{Text: "127.0.0.1:25", Host: "127.0.0.1", Port: 25},
				Backlog:  511,
				IPv6Only: true,
			}},
			ProxyPass:          "a",
			ProxyPassPosition:  at(7),
			ProxyProtocol:      "off",
			ConnectTimeout:     time.Minute,
			Timeout:            10 * time.Minute,
			NextUpstream:       true,
			BufferSize:         16 << 10,
			NoDelay:            true,
			ProxyHeaderTimeout: 30 * time.Second,
			LimitLogLevel:      "error",
			SMTP: SMTP{
				GreetingTimeout: 20 * time.Second,
				Pregreet:        "pass",
				Replies: SMTPReplies{
					Unavailable: "Service not available, closing transmission channel",
					Limit:       "Too many sessions, try again later",
					TooMany:     "Too many connections from you",
					Shutdown:    "Service is shutting down, try again later",
					Pregreet:    "Error: SMTP protocol synchronization",
					Denied:      "Access denied",
				},
			},
		}},
	}, c)
}

// Every directive that is obeyed reaches its field.
//
// Fails if two of them are mixed up.
func TestNginxEveryDirective(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `
user mail postfix; worker_processes auto; worker_rlimit_nofile 65536; worker_shutdown_timeout 30m; stop_timeout 1500ms;
pid /run/x.pid; error_log /var/log/x.log debug_core; daemon off; working_directory /var/tmp; env A; env B=c;
events { }
stream {
    log_format mail $remote_addr "$A\n";
    log_format json escape=json "{}";
    map ${remote_addr}x $pool { hostnames;
        default a; ~^(\d+)\. $1;
        volatile; "" "b c";
    }
    geo $near { default 0; volatile; delete 10.0.0.0/8; }
    geo $realip_remote_addr $far { ranges; 10.0.0.1-10.0.0.9 1; }
    split_clients $remote_addr $half { 50% a; * ""; }
    limit_conn_zone $binary_remote_addr zone=addr:1m; limit_conn_zone $a$A zone=two:32k;
    upstream a {
        server [2001:DB8::1]:25 weight=5 max_conns=100 max_fails=0 fail_timeout=1M slow_start=1m max_pending=7;
        server A.example.org:25 backup down;
        queue 20 timeout=90;
        check_smtp_send "LHLO probe.example.org\r\n";
        check interval=100 down_interval=200 timeout=30 rise=4 fall=5 type=smtp default_down=true port=26 tls=starttls
            cert_warning=1d proxy_protocol=v2 mail_from=a@b rcpt_to=c@d;
    }
    server {
        listen *:2525;
        listen Localhost:1-2;
        listen [::]:25 backlog=10 rcvbuf=64k sndbuf=0 fastopen=7 reuseport ipv6only=off so_keepalive=1m::10 proxy_protocol bind;
        listen unix:/run/b.sock so_keepalive=on;
        proxy_pass a;
        proxy_connect_timeout 1m30s;
        proxy_timeout 900;
        proxy_next_upstream off;
        proxy_next_upstream_tries 9;
        proxy_next_upstream_timeout 8;
        proxy_bind [::1]:2000 transparent;
        proxy_half_close on;
        proxy_socket_keepalive on; proxy_socket_rcvbuf 64k; proxy_socket_sndbuf 1m;
        proxy_buffer_size 32768;
        tcp_nodelay off;
        proxy_upload_rate 100k;
        proxy_download_rate 1m;
        proxy_protocol v2;
        proxy_protocol_timeout 3s;
        set_real_ip_from 192.0.2.1;
        set_real_ip_from ::ffff:10.0.0.0/104;
        deny 192.0.2.7;
        allow 2001:db8::/32;
        allow unix:;
        deny all;
        smtp off;
        smtp_greeting_timeout 500ms;
        smtp_pregreet hold;
        smtp_hostname mx.example.org;
        smtp_reply_unavailable a;
        smtp_reply_limit b;
        smtp_reply_too_many f;
        set $A b$c;
        set $a "";
        access_log /var/log/a$A.log MAIL if=$a;
        access_log /var/log/b.log json gzip flush=1s;
        access_log /var/log/b.log json flush=1s gzip=1 buffer=64k;
        access_log syslog:server=unix:/dev/log mail if=;
        limit_conn addr 65535;
        limit_conn two 1;
        limit_conn_log_level info;
        limit_conn_dry_run on;
        smtp_reply_shutdown c;
        smtp_reply_pregreet d;
        smtp_reply_denied e;
    }
}`)
	require.Empty(t, c.Warnings)
	line := func(n int) Position { return Position{File: "n.conf", Line: n} }
	require.Equal(t, []LogFormat{
		{line(6), "mail", "default", []string{"$remote_addr", "$A\n"}},
		{line(7), "json", "json", []string{"{}"}},
	}, c.LogFormats)
	require.Equal(t, []Map{{line(8), "$pool", "${remote_addr}x", true, true, []Entry{
		{line(9), "default", "a"}, {line(9), `~^(\d+)\.`, "$1"}, {line(10), "", "b c"},
	}}}, c.Maps)
	require.Equal(t, []Geo{
		{line(12), "$near", "", false, true, []Entry{{line(12), "default", "0"}, {line(12), "delete", "10.0.0.0/8"}}},
		{line(13), "$far", "$realip_remote_addr", true, false, []Entry{{line(13), "10.0.0.1-10.0.0.9", "1"}}},
	}, c.Geos)
	require.Equal(t, []Split{{line(14), "$half", "$remote_addr", []Entry{{line(14), "50%", "a"}, {line(14), "*", ""}}}}, c.Splits)
	require.Equal(t, []LimitZone{{line(15), "addr", "$binary_remote_addr", 1 << 20}, {line(15), "two", "$a$A", 32 << 10}}, c.LimitZones)
	require.Equal(t, []any{
		0, uint64(65536), 30 * time.Minute, 1500 * time.Millisecond, "/run/x.pid", []ErrorLog{{Position{File: "n.conf", Line: 3}, "/var/log/x.log", "debug"}},
		false, "mail", "postfix", "/var/tmp", []string{"A", "B=c"},
	}, []any{
		c.WorkerProcesses, c.WorkerRlimitNofile, c.WorkerShutdownTimeout, c.StopTimeout, c.Pid, c.ErrorLogs,
		c.Daemon, c.User, c.Group, c.WorkingDirectory, c.Env,
	})
	u := c.Upstreams[0]
	require.Equal(t, Check{
		Position: u.Check.Position, On: true, Type: "smtp",
		Interval: 100 * time.Millisecond, DownInterval: 200 * time.Millisecond, Timeout: 30 * time.Millisecond,
		Rise: 4, Fall: 5, DefaultDown: true, Port: 26,
		ProxyProtocol: "v2", TLS: "starttls", CertWarning: day,
		Helo: "probe.example.org", Verb: "lhlo", MailFrom: "a@b", RcptTo: "c@d",
	}, u.Check)
	require.Equal(t, "v2", u.ProxyProtocol)
	require.Equal(t, Queue{u.Queue.Position, 20, 90 * time.Second}, u.Queue)
	require.Equal(t, []UpstreamServer{
		{
			Position: u.Servers[0].Position,
			Address:  Address{Text: "[2001:DB8::1]:25", Host: "2001:db8::1", Port: 25},
			Weight:   5, MaxConns: 100, FailTimeout: 30 * day, SlowStart: time.Minute, MaxPending: 7,
		},
		{
			Position: u.Servers[1].Position,
			Address:  Address{Text: "A.example.org:25", Host: "a.example.org", Port: 25},
			Weight:   1, MaxFails: 1, FailTimeout: 10 * time.Second, Backup: true, Down: true,
		},
	}, u.Servers)
	s := c.Servers[0]
	for i := range s.Listen {
		s.Listen[i].Position = Position{}
	}
	require.Equal(t, Server{
		Position: s.Position,
		Listen: []Listen{
			{Address: Address{Text: "*:2525", Port: 2525}, Backlog: 511, IPv6Only: true},
			{Address: Address{Text: "localhost:1", Host: "localhost", Port: 1}, Backlog: 511, IPv6Only: true},
			{Address: Address{Text: "localhost:2", Host: "localhost", Port: 2}, Backlog: 511, IPv6Only: true},
			{
				Address: Address{Text: "[::]:25", Host: "::", Port: 25}, Backlog: 10, RcvBuf: 64 << 10, SndBuf: 1, FastOpen: 7, ReusePort: true,
				Keepalive: Keepalive{On: true, Idle: time.Minute, Count: 10}, ProxyProtocol: true,
			},
			{
				Address: Address{Text: "unix:/run/b.sock", Path: "/run/b.sock"}, Backlog: 511, IPv6Only: true,
				Keepalive: Keepalive{On: true},
			},
		},
		ProxyPass:           "a",
		ProxyPassPosition:   s.ProxyPassPosition,
		ProxyProtocol:       "off",
		ConnectTimeout:      90 * time.Second,
		Timeout:             15 * time.Minute,
		NextUpstreamTries:   9,
		NextUpstreamTimeout: 8 * time.Second,
		Bind:                &Bind{Host: "::1", Port: 2000, Transparent: true, Position: s.Bind.Position},
		HalfClose:           true,
		SocketKeepalive:     Keepalive{On: true},
		SocketRcvBuf:        64 << 10,
		SocketSndBuf:        1 << 20,
		BufferSize:          32 << 10,
		UploadRate:          Rate{Bytes: 100 << 10},
		DownloadRate:        Rate{Bytes: 1 << 20},
		RealIPFrom:          []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("10.0.0.0/8")},
		ProxyHeaderTimeout:  3 * time.Second,
		Sets:                []Set{{line(57), "$A", "b$c"}, {line(58), "$a", ""}},
		AccessLogs: []AccessLog{
			{line(59), "/var/log/a$A.log", "mail", 0, 0, 0, "$a"},
			{line(60), "/var/log/b.log", "json", 64 << 10, time.Second, 1, ""},
			{line(61), "/var/log/b.log", "json", 64 << 10, time.Second, 1, ""},
			{line(62), "syslog:server=unix:/dev/log", "mail", 0, 0, 0, "0"},
		},
		Limits:        []Limit{{line(63), "addr", 65535}, {line(64), "two", 1}},
		LimitLogLevel: "info",
		LimitDryRun:   true,
		Access: []AccessRule{
			{Deny: true, Prefix: netip.MustParsePrefix("192.0.2.7/32")},
			{Prefix: netip.MustParsePrefix("2001:db8::/32")},
			{Unix: true},
			{Deny: true, All: true},
		},
		SMTP: SMTP{
			GreetingTimeout: 500 * time.Millisecond,
			Pregreet:        "hold",
			Hostname:        "mx.example.org",
			Replies:         SMTPReplies{"a", "b", "f", "c", "d", "e"},
		},
	}, s)
	requireSame(t, c)
}

// A server has what its stream block says, unless it says so itself; wherever
// that stands. Lists are taken as a whole.
//
// Fails if only what stands above a server counts, and if lists are joined.
func TestNginxInheritance(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `stream {
    proxy_timeout 1h; proxy_socket_rcvbuf 64k; deny 192.0.2.1; set_real_ip_from 10.0.0.1;
    server { listen 1; proxy_pass h:1; }
    server { listen 2; proxy_pass h:1; proxy_timeout 2h; proxy_socket_rcvbuf 0; allow all; set_real_ip_from 10.0.0.2; }
    proxy_half_close on; deny 192.0.2.2;
}
tcp { server { listen 3; proxy_pass h:1; } }`)
	one, two, three := c.Servers[0], c.Servers[1], c.Servers[2]
	require.Equal(t, []any{time.Hour, 2 * time.Hour, 10 * time.Minute}, []any{one.Timeout, two.Timeout, three.Timeout})
	require.Equal(t, []int{64 << 10, 0, 0}, []int{one.SocketRcvBuf, two.SocketRcvBuf, three.SocketRcvBuf})
	require.Equal(t, []any{true, true, false}, []any{one.HalfClose, two.HalfClose, three.HalfClose})
	require.Len(t, one.Access, 2)
	require.Equal(t, []AccessRule{{All: true}}, two.Access)
	require.Empty(t, three.Access)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}, two.RealIPFrom)
	require.Len(t, c.Upstreams, 1)
}

// The gate is on where the servers are checked as mail servers, or where it is
// asked for; then tries and their time are bounded, too.
//
// Fails if it is on in front of servers that may speak anything.
func TestNginxGate(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `stream {
    upstream mail { server h:1; check type=smtp; }
    upstream other { server h:2; check type=tcp; }
    server { listen 1; proxy_pass mail; }
    server { listen 2; proxy_pass other; }
    server { listen 3; proxy_pass h:3; }
    server { listen 4; proxy_pass mail; smtp off; }
    server { listen 5; proxy_pass h:3; smtp on; proxy_next_upstream_tries 0; proxy_next_upstream_timeout 7s; }
}`)
	for i, want := range []struct {
		on     bool
		tries  int
		budget time.Duration
	}{
		{true, 3, 150 * time.Second}, {}, {}, {}, {true, 0, 7 * time.Second},
	} {
		s := c.Servers[i]
		require.Equal(t, want.on, s.SMTP.On, i)
		require.Equal(t, want.tries, s.NextUpstreamTries, i)
		require.Equal(t, want.budget, s.NextUpstreamTimeout, i)
	}
	check := c.Upstreams[0].Check
	require.Equal(t, 30*time.Second, check.Interval)
	require.Equal(t, 30*time.Second, check.DownInterval)
	require.Equal(t, time.Second, check.Timeout)
	require.Equal(t, []any{2, 5, false}, []any{check.Rise, check.Fall, check.DefaultDown})
}

// What nginx does with the client's address in proxy_bind.
func TestNginxBind(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*Bind{
		"off":                                   nil,
		"192.0.2.1":                             {Host: "192.0.2.1"},
		"192.0.2.1:25":                          {Host: "192.0.2.1", Port: 25},
		"$remote_addr transparent":              {Transparent: true},
		"$remote_addr:$remote_port transparent": {Transparent: true, ClientPort: true},
		"$remote_addr":                          {Text: "$remote_addr"},
		"$a:25":                                 {Text: "$a:25"},
		"${a}b transparent":                     {Text: "${a}b", Transparent: true},
	} {
		c := mustParseNginx(t, "stream { server { listen 1; proxy_pass h:1; proxy_bind "+text+"; } }")
		if got := c.Servers[0].Bind; got != nil {
			require.Equal(t, Position{File: "n.conf", Line: 1}, got.Position)
			got.Position = Position{}
		}
		require.Equal(t, want, c.Servers[0].Bind, text)
	}
}

// inProxy is a configuration that is good but for some directives in its
// server, at line 3.
func inProxy(directives string) string {
	return "stream {\n server { listen 1; proxy_pass a;\n" + directives + "\n}\nupstream a { server h:1; } }"
}

// inGroup is the same for its upstream.
func inGroup(directives string) string {
	return "stream {\n server { listen 1; proxy_pass a; } upstream a { server h:1;\n" + directives + "\n} }"
}

// What has no nginx to compare with, and what nginx would say only at its next
// try. Messages of nginx itself are in integration.
//
// Fails if a message or line differs, or if reading ends at the first.
func TestNginxProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"many", "wroker 1;\nstream {\n proxy_timeout x;\n server { listen 1; }\n upstream a { }\n foo { bar; }\n}\npid a b;\n}", `
unknown directive "wroker" in n.conf:1
"proxy_timeout" directive invalid value in n.conf:3
no servers are inside upstream in n.conf:5
unknown directive "foo" in n.conf:6
no handler for server in n.conf:4
invalid number of arguments in "pid" directive in n.conf:8
unexpected "}" in n.conf:9`},
		{"control characters", "a\x1b[2J\x00\xff;", `unknown directive "a?[2J??" in n.conf:1`},
		{"no server", "events { }", `no server in a "stream" block of n.conf: nothing would listen`},
		{"queue", inGroup("queue 0;"), `invalid queue size "0" in n.conf:3`},
		{"queue timeout", inGroup("queue 1 timeout=0;"), `invalid parameter "timeout=0" in n.conf:3`},
		{"queue parameter", inGroup("queue 1 time=5;"), `invalid parameter "time=5" in n.conf:3`},
		{"check interval", inGroup("check interval=5s;"), `invalid parameter "interval=5s" in n.conf:3`},
		{"check zero", inGroup("check fall=0;"), `invalid parameter "fall=0" in n.conf:3`},
		{"check default_down", inGroup("check default_down=yes;"), `invalid parameter "default_down=yes" in n.conf:3`},
		{"check port", inGroup("check port=0;"), `invalid parameter "port=0" in n.conf:3`},
		{"check type", inGroup("check type=http;"), `check type "http" is not supported by this version; smtp and tcp are in n.conf:3`},
		{"check no type", inGroup("check type=smpt;"), `invalid parameter "type=smpt" in n.conf:3`},
		{"check twice", inGroup("check type=smtp; check type=smtp;"), `"check" directive is duplicate in n.conf:3`},
		{"check_smtp_send", inGroup(`check_smtp_send "QUIT\r\n";`), `"check_smtp_send" directive wants one EHLO, HELO or LHLO command; got "QUIT??" in n.conf:3`},
		{"check_smtp_expect_alive", inGroup("check_smtp_expect_alive smtp_2xx smtp_5xx;"),
			`"check_smtp_expect_alive" knows smtp_2xx only: a server that answers otherwise does not take mail; got "smtp_2xx smtp_5xx" in n.conf:3`},
		{"resolve", inGroup("server h:2 resolve;"), `"resolve" in "server" is not supported by this version; names are looked up at start and at reload in n.conf:3`},
		{"deferred", inProxy("listen 2 deferred;"), `"deferred" in "listen" is refused: it waits for the client to speak, ` +
			`but in SMTP the server speaks first, so that no session would ever begin in n.conf:3`},
		{"buffer", inProxy("proxy_socket_rcvbuf off;"), `"proxy_socket_rcvbuf" directive invalid value in n.conf:3`},
		{"multipath", inProxy("listen 2 multipath;"), `"multipath" in "listen" is not supported by this version in n.conf:3`},
		{"setfib", inProxy("listen 2 setfib=1;"), `the invalid "setfib=1" parameter in n.conf:3`},
		{"accept_filter", inProxy("listen 2 accept_filter=dataready;"), `the invalid "accept_filter=dataready" parameter in n.conf:3`},
		{"ssl", inProxy("listen 2 ssl;"), `"ssl" in "listen" is not supported by this version in n.conf:3`},
		{"too many ports", inProxy("listen 127.0.0.1:2-65535;"), `too many addresses to listen on; a configuration has at most 10000 in n.conf:3`},
		{"hash in TOML's words", inGroup("hash client_address;"), `"hash client_address" would be the same for all clients; write "hash $remote_addr" in n.conf:3`},
		{"rate", inProxy("proxy_upload_rate 2000m;"), `"proxy_upload_rate" directive invalid value in n.conf:3`},
		// In the words of ngx_stream_pass_module.c, which Debian's nginx does not have.
		{"pass to a name", inProxy("pass localhost:25;"), `"pass" directive has no addresses in n.conf:3`},
		{"pass to a port", inProxy("pass 25;"), `"pass" directive has no addresses in n.conf:3`},
		{"pass without a port", inProxy("pass 127.0.0.1;"), `"pass" directive has no port in n.conf:3`},
		{"pass to a bad port", inProxy("pass 127.0.0.1:0;"), `invalid port in "127.0.0.1:0" of the "pass" directive in n.conf:3`},
		{"pass to no path", inProxy("pass unix:;"), `no path in the unix domain socket in "unix:" of the "pass" directive in n.conf:3`},
		{"pass twice", inProxy("pass 127.0.0.1:1; pass $a;"), `"pass" directive is duplicate in n.conf:3`},
		{"pass two", inProxy("pass 127.0.0.1:1 127.0.0.1:2;"), `invalid number of arguments in "pass" directive in n.conf:3`},
		{"pass in stream", "stream { pass 127.0.0.1:1; server { listen 1; return x; } }", `"pass" directive is not allowed here in n.conf:1`},
		{"pass not UTF-8", inProxy("pass $a\xff;"), `"pass" directive: want a string in UTF-8, got "$a\xff" in n.conf:3`},
		{"pass to a broken text", inProxy(`pass "$a\n";`), `"pass" directive: want a string without control characters, got "$a\n" in n.conf:3`},
		{"proxy_pass to a broken text", strings.Replace(inProxy(""), "proxy_pass a", `proxy_pass "$a\n"`, 1),
			`"proxy_pass" directive: want a string without control characters, got "$a\n" in n.conf:2`},
		{"second dollar", inProxy("set $$a b;"), `invalid variable name "$$a" in n.conf:3`},
		{"check without a recipient", inGroup("check type=smtp mail_from=a@b;"),
			`"mail_from" in "check" needs "rcpt_to": without a recipient no sender is named in n.conf:3`},
		{"bind in one word", inProxy(`proxy_bind "$remote_addr transparent";`), `invalid address "$remote_addr transparent" in n.conf:3`},
		{"not UTF-8", inProxy("return \xff;"), `"?": not in UTF-8 in n.conf:3`},
		{"variable names", inProxy("set a b; set $ b;"), `
invalid variable name "a" in n.conf:3
invalid variable name "$" in n.conf:3`},
		{"many logs", "stream { log_format f $pid;\n" + strings.Repeat("access_log a f;", 65) + "}", `access_log: too many logs; a server has at most 64 in n.conf:2`},
		{"pregreet", inProxy("smtp_pregreet never;"), `invalid value "never" in n.conf:3`},
		{"reply", inProxy(`smtp_reply_limit "a\r\nb";`), `"smtp_reply_limit" directive: want a string without control characters, got "a\r\nb" in n.conf:3`},
		{"so_keepalive", inProxy("so_keepalive on;"), `"so_keepalive" is not supported by this version; write it behind the address, as in listen 25 so_keepalive=on in n.conf:3`},
		{"health_check", inProxy("health_check interval=5s;"), `"health_check" is not supported by this version; write "check" in the upstream in n.conf:3`},
		{"bind to a broken text", inProxy(`proxy_bind "$a\n";`), `"proxy_bind" directive: want a string without control characters, got "$a\n" in n.conf:3`},
		{"bind in TOML's words", inProxy("proxy_bind client;"), `invalid address "client" in n.conf:3`},
		{"TLS", inProxy("proxy_ssl on;"), `"proxy_ssl" is not supported by this version in n.conf:3`},
		{"TLS of clients", inProxy("ssl_preread off; ssl_certificate a; proxy_ssl_name x;"), `
"ssl_certificate" is not supported by this version in n.conf:3
"proxy_ssl_name" is not supported by this version in n.conf:3`},
		{"late module", "events {}\nload_module x;" + inProxy(""), `"load_module" directive is specified too late in n.conf:2`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseNginx(c.text)
			require.EqualError(t, err, strings.TrimPrefix(c.want, "\n"))
		})
	}
}

// What is accepted but has no effect, or not the one it seems to have, is said
// once.
//
// Fails if a directive without effect is passed over in silence.
func TestNginxWarnings(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `load_module modules/ngx_stream_module.so;
events { worker_connections 1024; multi_accept on; }
http { server { listen 80; } }
stream {
    server { listen 1 default_server; server_name a b; proxy_pass h:1; access_log off; }
    server { listen 2; server_name c; proxy_pass h:1; deny 10.0.0.1/8; }
    proxy_upstream_buffer 100;
    server { listen 127.0.0.1:3; proxy_pass h:1; smtp on; proxy_timeout 50s; }
    server { listen 127.0.0.1:4; proxy_pass h:1; proxy_timeout 50s; }
    upstream a { server h:1; check_smtp_send "EHLO b"; }
    upstream b { server h:1; check_smtp_send "EHLO b"; check type=smtp; }
}`)
	require.Equal(t, []string{
		`"worker_connections" has no effect: worker_rlimit_nofile bounds the sessions in n.conf:2`,
		`"multi_accept" has no effect: all that wait are accepted in n.conf:2`,
		`NOT SERVED: smtplb serves stream blocks only; nothing of this http block listens or answers in n.conf:3`,
		`"server_name" has no effect: an address has one server in n.conf:5`,
		`low address bits of 10.0.0.1/8 are meaningless in n.conf:6`,
		`the "proxy_upstream_buffer" directive is deprecated, use the "proxy_buffer_size" directive instead in n.conf:7`,
		`"check_smtp_send" has no effect: upstream "a" has no "check" in n.conf:10`,
		`proxy_timeout below 600s cuts off servers that are slow to take a message, which then arrives twice (RFC 5321 section 4.5.3.2.6) in n.conf:8`,
	}, c.Warnings)
	require.Equal(t, 1<<10, c.Servers[0].BufferSize)
}

// Load tells the syntaxes apart by the file's name.
func TestNginxLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.cfg")
	require.NoError(t, os.WriteFile(path, []byte("stream { server { listen 1; proxy_pass h:1; } }"), 0o600))
	c, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, []string{path}, c.Files)
}

// Directives of the command line are obeyed before those of the file, and may
// not be repeated there.
//
// Fails if they are said to be at a line.
func TestNginxGlobal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n.conf")
	require.NoError(t, os.WriteFile(path, []byte("pid a;\nstream { server { listen 1; proxy_pass h:1; } }"), 0o600))
	c, err := loadNginx(path, "daemon off;\nuser mail; ")
	require.NoError(t, err)
	require.Equal(t, []any{false, "mail", "mail", "a"}, []any{c.Daemon, c.User, c.Group, c.Pid})
	for global, want := range map[string]string{
		"pid b;":       `"pid" directive is duplicate in ` + path + `:1`,
		"damon off;":   `unknown directive "damon" in command line`,
		"daemon\nno;":  `invalid value "no" in "daemon" directive, it must be "on" or "off" in command line`,
		"daemon off":   `unexpected end of parameter, expecting ";" in command line`,
		"events {}":    `block directives are not supported in -g option in command line`,
		"daemon off;}": `unexpected "}" in command line`,
	} {
		_, err := loadNginx(path, global)
		require.EqualError(t, err, want)
	}
}

// Whatever a file holds, it is refused within a second of processor time and
// without more than 64 MiB allocated in all, garbage included. Part of T25; the
// bounds themselves are in package nginx.
//
// Fails if the lists of a stream block are copied for each of its servers.
func TestNginxBombs(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big.conf")
	require.NoError(t, os.WriteFile(big, nil, 0o600))
	require.NoError(t, os.Truncate(big, 64<<20))
	require.EqualError(t, requireCheap(t, big), `"`+big+`" is too large: a configuration has at most 16 MiB in all its files`)
	var servers strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&servers, "server { listen %d; proxy_pass h:1; }\n", i+1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"braces":    {strings.Repeat("{", 1e6), `unexpected "{" in $:1`},
		"unknown":   {strings.Repeat("a;", 99_000), `unknown directive "a" in $:1`},
		"servers":   {"stream {\n" + strings.Repeat("server { listen 1; proxy_pass h:1; }\n", 19_000), `duplicate "0.0.0.0:1" address and port pair in $:3`},
		"rules":     {"stream {\n" + strings.Repeat("deny ::1; set_real_ip_from ::1;\n", 20_000) + servers.String() + "}\nx;", `unknown directive "x" in $:23003`},
		"variables": {"stream {\nupstream a { server h:1; }" + strings.Repeat("upstream a { server h:1; } ", 1000) + strings.ReplaceAll(servers.String(), "h:1", "$a") + "}", `duplicate upstream "a" in $:2`},
		"formats":   {"stream {\n" + strings.Repeat("log_format a b; access_log c d; ", 15_000) + "}", `unknown log format "d" in $:2`},
		"limits":    {"stream {\n" + strings.Repeat("limit_conn a 1; limit_conn_zone b zone=a:1m; ", 15_000) + "}", `"limit_conn" directive is duplicate in $:2`},
		"entries":   {"stream {\nmap $a $b {" + strings.Repeat("a b; ", 40_000) + "}\nx; }", `unknown directive "x" in $:3`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bomb.conf")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			first, _, _ := strings.Cut(requireCheap(t, path).Error(), "\n")
			require.Equal(t, strings.ReplaceAll(c.want, "$", path), first)
		})
	}
}

// FuzzNginx: no text makes the reader panic; it returns Problems, or a Config that
// can be written as TOML.
func FuzzNginx(f *testing.F) {
	for _, table := range [][]ngxDirective{ngxProcess, ngxGroups, ngxSessions, ngxOurs, ngxIdle, ngxRefused} {
		for _, d := range table {
			for _, args := range []string{" on", " 1", " a b", ""} {
				f.Add(inProxy(d.name + args + ";"))
				f.Add(inGroup(d.name + args + ";"))
				f.Add(d.name + args + ";")
			}
		}
	}
	paths, err := filepath.Glob("../integration/testdata/nginx/*/*.conf")
	require.NoError(f, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // it could name any file of this machine
		}
		c, err := parseNginx(text)
		require.Equal(t, err == nil, c != nil)
		if err != nil {
			require.NotEmpty(t, err.(Problems))
			return
		}
		requireSame(t, c)
	})
}
