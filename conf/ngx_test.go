package conf

import (
	"net/netip"
	"os"
	"path/filepath"
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
