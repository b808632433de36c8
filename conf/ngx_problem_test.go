package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
