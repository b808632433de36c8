package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// placeless is c without what depends on the file it was read from.
func placeless(c *Config) *Config {
	c.Files, c.Warnings = nil, nil
	nowhere := func(entries []Entry) {
		for i := range entries {
			entries[i].Position = Position{}
		}
	}
	c.PidPosition = Position{}
	for i := range c.ErrorLogs {
		c.ErrorLogs[i].Position = Position{}
	}
	for i := range c.LogFormats {
		c.LogFormats[i].Position = Position{}
	}
	for i := range c.Maps {
		c.Maps[i].Position = Position{}
		nowhere(c.Maps[i].Entries)
	}
	for i := range c.Geos {
		c.Geos[i].Position = Position{}
		nowhere(c.Geos[i].Entries)
	}
	for i := range c.Splits {
		c.Splits[i].Position = Position{}
		nowhere(c.Splits[i].Parts)
	}
	for i := range c.LimitZones {
		c.LimitZones[i].Position = Position{}
	}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		u.Position, u.Check.Position, u.Method.Position = Position{}, Position{}, Position{}
		u.Agent.Position, u.Queue.Position = Position{}, Position{}
		u.Implicit = u.Implicit && u.ProxyProtocol == "off" // else it must be written
		for j := range u.Servers {
			u.Servers[j].Position = Position{}
		}
	}
	for i := range c.Servers {
		s := &c.Servers[i]
		s.Position, s.ProxyPassPosition = Position{}, Position{}
		if s.Return != nil {
			s.Return.Position = Position{}
		}
		for j := range s.ErrorLogs {
			s.ErrorLogs[j].Position = Position{}
		}
		if s.Pass != nil {
			s.Pass.Position = Position{}
		}
		for j := range s.Sets {
			s.Sets[j].Position = Position{}
		}
		for j := range s.AccessLogs {
			s.AccessLogs[j].Position = Position{}
		}
		for j := range s.Limits {
			s.Limits[j].Position = Position{}
		}
		if s.Bind != nil {
			s.Bind.Position = Position{}
		}
		for _, r := range []Rate{s.UploadRate, s.DownloadRate} {
			if r.Text != nil {
				r.Text.Position = Position{}
			}
		}
		for j := range s.Listen {
			s.Listen[j].Position = Position{}
		}
	}
	return c
}

// Whatever a file of either syntax says can be said in TOML, and is the same
// Config again.
//
// Fails if a field of Config is not written.
func TestAppendTOML(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"../default.toml", "../examples/*.toml", "../examples/*.conf",
		"../integration/testdata/nginx/good/*.conf", "../integration/testdata/nginx/ours/*.conf",
	} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			t.Run(filepath.Base(path), func(t *testing.T) {
				t.Parallel()
				c, err := Load(path)
				require.NoError(t, err)
				requireSame(t, c)
			})
		}
	}
}

func requireSame(t *testing.T, c *Config) {
	t.Helper()
	text := AppendTOML(nil, c)
	again, err := Parse("again.toml", text)
	require.NoError(t, err, "%s", text)
	require.Equal(t, placeless(c), placeless(again), "%s", text)
}

// The explanation of a vendor's configuration, and that it is TOML, too.
//
// Fails if a difference is said of what does not have it.
func TestExplain(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `events { worker_connections 1024; }
stream {
upstream cluster_smtp {
    server gw1.example.com:10025 max_fails=3 fail_timeout=3s;
    server gw2.example.com:10025 backup;
    check interval=5000 rise=2 fall=5 timeout=2000 type=smtp;
}
server { listen 127.0.0.1:10025; proxy_pass cluster_smtp; }
server { listen 127.0.0.1:26; proxy_pass h:26; proxy_bind $remote_addr transparent; }
}`)
	text := string(Explain(c))
	require.Equal(t, `worker_processes = 1
worker_shutdown_timeout = 0
stop_timeout = "3s"
error_log = { path = "stderr", level = "error", format = "nginx" }
daemon = true

[[upstream]]
name = "cluster_smtp"
method = "round_robin"
proxy_protocol = "off"
check = { type = "smtp", interval = "5s", down_interval = "5s", timeout = "2s", rise = 2, fall = 5, default_down = false, cert_warning = "14d", verb = "ehlo", proxy_protocol = "off", tls = "off" }
servers = [
  { address = "gw1.example.com:10025", weight = 1, max_conns = 0, max_fails = 3, fail_timeout = "3s", backup = false, down = false, slow_start = 0, max_pending = 0 },
  { address = "gw2.example.com:10025", weight = 1, max_conns = 0, max_fails = 1, fail_timeout = "10s", backup = true, down = false, slow_start = 0, max_pending = 0 },
]

[[server]]
listen = [
  { address = "127.0.0.1:10025", backlog = 511, rcvbuf = 0, sndbuf = 0, fastopen = 0, reuseport = false, ipv6only = true, so_keepalive = false, proxy_protocol = false },
]
proxy_pass = "cluster_smtp"
proxy_connect_timeout = "1m"
proxy_timeout = "10m"
proxy_next_upstream = true
proxy_next_upstream_tries = 3
proxy_next_upstream_timeout = "150s"
proxy_bind = "off"
proxy_half_close = false
proxy_socket_keepalive = false
proxy_socket_rcvbuf = 0
proxy_socket_sndbuf = 0
proxy_buffer_size = 16384
tcp_nodelay = true
proxy_upload_rate = 0
proxy_download_rate = 0
proxy_protocol_timeout = "30s"
limit_conn_log_level = "error"
limit_conn_dry_run = false
smtp = true
smtp_greeting_timeout = "20s"
smtp_pregreet = "pass"
[server.smtp_replies]
unavailable = "Service not available, closing transmission channel"
limit = "Too many sessions, try again later"
too_many = "Too many connections from you"
shutdown = "Service is shutting down, try again later"
pregreet = "Error: SMTP protocol synchronization"
denied = "Access denied"
`, text[:strings.LastIndex(text, "\n[[server]]")])
	require.Equal(t, `
# Warnings:
# - "worker_connections" has no effect: worker_rlimit_nofile bounds the sessions in n.conf:1

# Other than in nginx:
# - A reload keeps sessions and what is known of servers; there is one process, whose event loops share all counts.
# - Upstream "cluster_smtp": servers are in until probes have failed, not out until probes have been good.
# - Upstream "cluster_smtp": a probe waits for the greeting, reads whole replies, and ends with QUIT.
# - Upstream "cluster_smtp": failures of sessions take a server out only if a probe confirms them.
# - At 127.0.0.1:10025: a client sees no server before that has greeted with 2xx; the next is tried instead, and when there is none the client gets 421.
# - At 127.0.0.1:10025: proxy_next_upstream_timeout ends a running try, too.
`, text[strings.Index(text, "\n# "):])
	again, err := Parse("again.toml", []byte(text))
	require.NoError(t, err)
	require.Equal(t, placeless(c), placeless(again))
}

// Fails if a name with a line feed ends a comment.
func TestExplainOddName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a\nb.conf")
	require.NoError(t, os.WriteFile(path, []byte("events { worker_connections 1; } stream { server { listen 1; return x; } }"), 0o600))
	c, err := Load(path)
	require.NoError(t, err)
	require.NotEmpty(t, c.Warnings)
	again, err := Parse("again.toml", Explain(c))
	require.NoError(t, err)
	require.Equal(t, placeless(c), placeless(again))
}

// Fails if a difference of variables, limits or logs is not said, or is where there
// are none.
func TestExplainVariables(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `stream {
log_format f $status; limit_conn_zone $remote_addr zone=a:1m;
map $remote_addr $x { ~^10 a; }
map $remote_addr $y { 10.0.0.1 a; }
upstream a { server h:1; check type=smtp; }
server { listen 127.0.0.1:1; proxy_pass $x; limit_conn a 1; access_log l f; }
server { listen 127.0.0.1:2; return bye; }
server { listen 127.0.0.1:3; pass 127.0.0.1:1; }
}`)
	text := string(Explain(c))
	require.Equal(t, `# - At 127.0.0.1:1: a client above a limit gets 421.
# - At 127.0.0.1:3: a PROXY header to a server names where the client has connected to, also after pass.
# - Variable $x: regular expressions are those of Go, not of PCRE.
# - No session waits for an access log: records that it does not take in time are lost, and counted.
`, text[strings.Index(text, "# - At 127.0.0.1:1: a client above"):])
}
