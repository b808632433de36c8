package conf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a file does not say has the defaults that mail wants, which are not all
// nginx's.
func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(`
[[upstream]]
name = "a"
servers = ["h:25"]
[[server]]
listen = "127.0.0.1:25"
proxy_pass = "A"
`))
	require.NoError(t, err)
	on := Keepalive{On: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4}
	at := func(line, col int) Position { return Position{"t.toml", line, col} }
	require.Equal(t, &Config{
		Files:                 []string{"t.toml"},
		WorkerProcesses:       0,
		WorkerShutdownTimeout: 15 * time.Minute,
		StopTimeout:           10 * time.Second,
		ErrorLogs:             []ErrorLog{{Path: "stderr", Level: "notice"}},
		ErrorLogFormat:        "smtplb",
		Upstreams: []Upstream{{
			Position: at(3, 8),
			Name:     "a",
			Method:   Method{Position: at(3, 8), Type: "round_robin"},

			ProxyProtocol: "off",
			Check:         Check{Position: at(3, 8)},
			Servers: []UpstreamServer{{
				Position:    at(4, 12),
				Address:     Address{Text: "h:25", Host: "h", Port: 25},
				Weight:      1,
				MaxFails:    3,
				FailTimeout: 10 * time.Second,
				SlowStart:   30 * time.Second,
				MaxPending:  64,
			}},
		}},
		Servers: []Server{{
			Position: at(5, 1),
			Listen: []Listen{{
				Position:  at(6, 10),
				Address:   Address{Text: "127.0.0.1:25", Host: "127.0.0.1", Port: 25},
				Backlog:   4096,
				IPv6Only:  true,
				Keepalive: on,
			}},
			ProxyPass:           "a",
			ProxyPassPosition:   at(7, 14),
			ProxyProtocol:       "off",
			ConnectTimeout:      5 * time.Second,
			Timeout:             11 * time.Minute,
			NextUpstream:        true,
			NextUpstreamTries:   3,
			NextUpstreamTimeout: 150 * time.Second,
			HalfClose:           true,
			SocketKeepalive:     on,
			BufferSize:          16 << 10,
			NoDelay:             true,
			ProxyHeaderTimeout:  5 * time.Second,
			LimitLogLevel:       "error",
			SMTP: SMTP{
				On:              true,
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

func TestEveryKey(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(`
worker_processes = 4
worker_rlimit_nofile = 65536
worker_shutdown_timeout = 0
stop_timeout = "1500ms"
pid = "/run/smtplb.pid"
error_log = { path = "/var/log/smtplb.log", level = "debug" }
daemon = true
user = "smtplb:mail"
working_directory = "/var/lib"
env = ["TZ=UTC", "LANG"]

[[upstream]]
name = "a"
method = "round_robin"
proxy_protocol = "v1"
  [[upstream.servers]]
  address = "[2001:DB8::1]:25"
  weight = 5
  max_conns = 100
  max_fails = 0
  fail_timeout = "1M"
  slow_start = 0
  max_pending = 5
  [[upstream.servers]]
  address = "unix:/run/a.sock"
  backup = true
  down = true

[[server]]
listen = [
  "*:2525",
  "mx.example.org.:25",
  "127.0.0.1:10025-10026",
  { address = "[::]:25", backlog = 10, rcvbuf = "64k", sndbuf = 4096, fastopen = 7, reuseport = true, ipv6only = false, so_keepalive = "1m::10", proxy_protocol = true },
  { address = "unix:/run/b.sock", so_keepalive = false },
]
proxy_pass = "a"
proxy_connect_timeout = "1m30s"
proxy_timeout = 900
proxy_next_upstream = false
proxy_next_upstream_tries = 0
proxy_next_upstream_timeout = 0
proxy_bind = "[::1]:2000"
proxy_half_close = false
proxy_socket_keepalive = false
proxy_socket_rcvbuf = "1m"
proxy_socket_sndbuf = 8192
proxy_buffer_size = 32768
tcp_nodelay = false
set_real_ip_from = ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "::1"]
proxy_upload_rate = "100k"
proxy_download_rate = "1m"
proxy_protocol_timeout = "3s"
access = ["deny 192.0.2.7", "allow 192.0.2.0/24", "allow unix:", "deny all"]
smtp = false
smtp_greeting_timeout = "500ms"
smtp_pregreet = "hold"
smtp_hostname = "mx.example.org"
smtp_replies = { unavailable = "a", limit = "b", too_many = "f", shutdown = "c", pregreet = "d", denied = "e" }
`))
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
	require.Equal(t, 4, c.WorkerProcesses)
	require.Equal(t, uint64(65536), c.WorkerRlimitNofile)
	require.Zero(t, c.WorkerShutdownTimeout)
	require.Equal(t, 1500*time.Millisecond, c.StopTimeout)
	require.Equal(t, "/run/smtplb.pid", c.Pid)
	require.Equal(t, []ErrorLog{{Position{"t.toml", 7, 13}, "/var/log/smtplb.log", "debug"}}, c.ErrorLogs)
	require.True(t, c.Daemon)
	require.Equal(t, []string{"smtplb", "mail"}, []string{c.User, c.Group})
	require.Equal(t, "/var/lib", c.WorkingDirectory)
	require.Equal(t, []string{"TZ=UTC", "LANG"}, c.Env)

	a, b := c.Upstreams[0].Servers[0], c.Upstreams[0].Servers[1]
	require.Equal(t, UpstreamServer{
		Position:    Position{"t.toml", 17, 3},
		Address:     Address{Text: "[2001:DB8::1]:25", Host: "2001:db8::1", Port: 25},
		Weight:      5,
		MaxConns:    100,
		FailTimeout: 30 * 24 * time.Hour,
		MaxPending:  5,
	}, a)
	require.Equal(t, Address{Text: "unix:/run/a.sock", Path: "/run/a.sock"}, b.Address)
	require.True(t, b.Backup)
	require.True(t, b.Down)

	s := c.Servers[0]
	var listening []Address
	for _, l := range s.Listen {
		listening = append(listening, l.Address)
	}
	require.Equal(t, []Address{
		{Text: "*:2525", Port: 2525},
		{Text: "mx.example.org.:25", Host: "mx.example.org.", Port: 25},
		{Text: "127.0.0.1:10025", Host: "127.0.0.1", Port: 10025},
		{Text: "127.0.0.1:10026", Host: "127.0.0.1", Port: 10026},
		{Text: "[::]:25", Host: "::", Port: 25},
		{Text: "unix:/run/b.sock", Path: "/run/b.sock"},
	}, listening)
	require.Equal(t, Listen{
		Position:  Position{"t.toml", 35, 3},
		Address:   listening[4],
		Backlog:   10,
		RcvBuf:    64 << 10,
		SndBuf:    4096,
		FastOpen:  7,
		ReusePort: true,
		Keepalive: Keepalive{On: true, Idle: time.Minute, Count: 10},

		ProxyProtocol: true,
	}, s.Listen[4])
	require.Zero(t, s.Listen[5].Keepalive)
	require.Equal(t, 90*time.Second, s.ConnectTimeout)
	require.Equal(t, 15*time.Minute, s.Timeout)
	require.False(t, s.NextUpstream)
	require.Zero(t, s.NextUpstreamTries)
	require.Zero(t, s.NextUpstreamTimeout)
	require.Equal(t, &Bind{Host: "::1", Port: 2000, Position: s.Bind.Position}, s.Bind)
	require.False(t, s.HalfClose)
	require.Zero(t, s.SocketKeepalive)
	require.Equal(t, []int{1 << 20, 8192, 32 << 10}, []int{s.SocketRcvBuf, s.SocketSndBuf, s.BufferSize})
	require.False(t, s.NoDelay)
	require.Equal(t, "v1", c.Upstreams[0].ProxyProtocol)
	require.Equal(t, []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"),
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("::1/128"),
	}, s.RealIPFrom)
	require.Equal(t, Rate{Bytes: 100 << 10}, s.UploadRate)
	require.Equal(t, Rate{Bytes: 1 << 20}, s.DownloadRate)
	require.Equal(t, 3*time.Second, s.ProxyHeaderTimeout)
	require.Equal(t, []AccessRule{
		{Deny: true, Prefix: netip.MustParsePrefix("192.0.2.7/32")},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		{Unix: true},
		{Deny: true, All: true},
	}, s.Access)
	require.Equal(t, SMTP{
		GreetingTimeout: 500 * time.Millisecond,
		Pregreet:        "hold",
		Hostname:        "mx.example.org",
		Replies:         SMTPReplies{"a", "b", "f", "c", "d", "e"},
	}, s.SMTP)
	requireSame(t, c)
}

// Every way to write a method.
//
// Fails if a key goes into another's field.
func TestMethods(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Method{
		`"round_robin"`:                   {Type: "round_robin"},
		`"least_conn"`:                    {Type: "least_conn"},
		`"random"`:                        {Type: "random"},
		`{ type = "random", two = true }`: {Type: "random", Two: true},
		`{ type = "hash", key = "client_address" }`:                    {Type: "hash", Key: "$remote_addr"},
		`{ type = "hash", key = "${remote_addr}" }`:                    {Type: "hash", Key: "$remote_addr"},
		`{ type = "hash", key = "$pool:$server_port" }`:                {Type: "hash", Key: "$pool:$server_port"},
		`{ type = "hash", key = "client_address", consistent = true }`: {Type: "hash", Key: "$remote_addr", Consistent: true},
		`{ type = "least_time", of = "connect" }`:                      {Type: "least_time", Of: "connect"},
		`{ type = "least_time", of = "last_byte", inflight = true }`:   {Type: "least_time", Of: "last_byte", Inflight: true},
		`{ type = "least_time", of = "first_byte", inflight = false }`: {Type: "least_time", Of: "first_byte"},
	} {
		c, err := Parse("t.toml", []byte(sound+"[[upstream]]\nname = 'other'\nservers = ['h:1', 'h:2']\nmethod = "+text))
		require.NoError(t, err, text)
		want.Position = c.Upstreams[1].Method.Position
		require.Equal(t, want, c.Upstreams[1].Method, text)
	}
}

// A plain address in proxy_pass makes a group of its own with nginx's defaults,
// one for all that name it.
func TestImplicitUpstream(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(`
[[server]]
listen = 1
proxy_pass = "MX.example.org:25"
[[server]]
listen = 2
proxy_pass = "mx.example.org:25"
[[server]]
listen = 3
proxy_pass = "unix:/run/A"
[[server]]
listen = 4
proxy_pass = "unix:/run/a"
`))
	require.NoError(t, err)
	require.Len(t, c.Upstreams, 3)
	at := Position{"t.toml", 4, 14}
	require.Equal(t, Upstream{
		Position:      at,
		Name:          "MX.example.org:25",
		Implicit:      true,
		Method:        Method{Position: at, Type: "round_robin"},
		ProxyProtocol: "off",
		Check:         Check{Position: at},
		Servers: []UpstreamServer{{
			Position:    at,
			Address:     Address{Text: "MX.example.org:25", Host: "mx.example.org", Port: 25},
			Weight:      1,
			MaxFails:    1,
			FailTimeout: 10 * time.Second,
		}},
	}, c.Upstreams[0])
	require.Equal(t, "MX.example.org:25", c.Servers[1].ProxyPass)
	require.Equal(t, "unix:/run/A", c.Servers[2].ProxyPass)
	require.Equal(t, "unix:/run/a", c.Servers[3].ProxyPass)
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	c, err := Parse("t.toml", []byte(sound+"proxy_timeout = '599s'\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"t.toml:8:17: proxy_timeout below 600s cuts off servers that are slow to take a message, " +
		"which then arrives twice (RFC 5321 section 4.5.3.2.6)"}, c.Warnings)
	c, err = Parse("t.toml", []byte(sound+"proxy_timeout = 600\n"))
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
}

// A server that takes the balancer for its client is an open relay if it
// trusts the balancer's network: everybody who listens where strangers may come
// is warned, and nobody else.
//
// Fails if any part of the condition in validator.clients is left out.
func TestOpenRelayWarning(t *testing.T) {
	t.Parallel()
	const relay, smtps = "OPEN RELAY HAZARD", "on port 465 the client speaks first"
	for _, c := range []struct{ listen, upstream, server, want string }{
		{`25`, ``, ``, relay},
		{`"[::]:25"`, ``, ``, relay},
		{`"10.0.0.1:25"`, ``, ``, relay},
		{`"mx.example.org:25"`, ``, ``, relay},
		{`["127.0.0.1:25", "192.0.2.1:25"]`, ``, ``, relay},
		{`["127.0.0.1:25", "[::1]:25", "localhost:26", "unix:/a"]`, ``, ``, ``},
		{`25`, `proxy_protocol = "v1"`, ``, ``},
		{`25`, `proxy_protocol = "v2"`, ``, ``},
		{`25`, ``, `smtp = false`, ``},
		{`"127.0.0.1:465"`, ``, ``, smtps},
		{`"127.0.0.1:465"`, ``, `smtp = false`, ``},
	} {
		c2, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\nservers = 'h:1'\n"+c.upstream+
			"\n[[server]]\nproxy_pass = 'a'\nlisten = "+c.listen+"\n"+c.server+"\n"))
		require.NoError(t, err)
		if c.want == "" {
			require.Empty(t, c2.Warnings, "%+v", c)
			continue
		}
		require.Len(t, c2.Warnings, 1, "%+v", c)
		require.Contains(t, c2.Warnings[0], c.want)
		require.True(t, strings.HasPrefix(c2.Warnings[0], "t.toml:"), "%+v", c)
	}
}
