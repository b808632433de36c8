package conf

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// usualCheck is a check about which nothing but its type was said.
func usualCheck(at Position, kind string) Check {
	return Check{
		Position:      at,
		On:            true,
		Type:          kind,
		Interval:      10 * time.Second,
		DownInterval:  30 * time.Second,
		Timeout:       10 * time.Second,
		Rise:          2,
		Fall:          3,
		ProxyProtocol: "off",
		TLS:           "off",
		CertWarning:   14 * 24 * time.Hour,
		Verb:          "ehlo",
	}
}

// one is a [[server]] of the group "a".
func one(listen, rest string) string {
	return "[[server]]\nlisten = '127.0.0.1:" + listen + "'\nproxy_pass = 'a'\n" + rest + "\n"
}

// Without a word about it a group is checked if another server can take over
// and all who use it speak SMTP.
//
// Fails if any part of the condition in validator.checks is left out.
func TestCheckByDefault(t *testing.T) {
	t.Parallel()
	const two, plain = `["h:1", "h:2"]`, "smtp = false"
	for _, c := range []struct {
		name, servers, users string
		on                   bool
	}{
		{"two servers", two, one("1", ""), true},
		{"a server and a backup", `["h:1", { address = "h:2", backup = true }]`, one("1", ""), true},
		{"two users", two, one("1", "") + one("2", ""), true},
		{"one server", `["h:1"]`, one("1", ""), false},
		{"not SMTP", two, one("1", plain), false},
		{"not SMTP alone", two, one("1", "") + one("2", plain), false},
		{"nobody's", two, sound, false},
	} {
		cfg, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\nservers = "+c.servers+"\n"+c.users))
		require.NoError(t, err, c.name)
		want := Check{Position: Position{"t.toml", 2, 8}}
		if c.on {
			want = usualCheck(want.Position, "smtp")
		}
		require.Equal(t, want, cfg.Upstreams[0].Check, c.name)
	}
}

// A syntax whose groups are unchecked by default leaves no values for a check
// behind, and gets none.
//
// Fails if validator.checks does not ask for them.
func TestNoCheckByDefaultElsewhere(t *testing.T) {
	t.Parallel()
	at := Position{"f", 1, 1}
	c := Config{
		Upstreams: []Upstream{{Position: at, Name: "a", Servers: make([]UpstreamServer, 2)}},
		Servers:   []Server{{ProxyPass: "a", SMTP: SMTP{On: true}}},
	}
	require.Empty(t, validate(&c))
	require.Equal(t, Check{Position: at}, c.Upstreams[0].Check)
}

// Fails if a value goes into the wrong field, if what is left out is not
// completed from the rest, or if the group's order of keys matters.
func TestCheck(t *testing.T) {
	t.Parallel()
	const plain = "smtp = false"
	at := Position{"t.toml", 4, 9}
	for _, c := range []struct {
		name, check, rest, users string
		want                     func(*Check)
	}{
		{"true", "true", "", "", func(*Check) {}},
		{"true, not SMTP", "true", "", plain, func(c *Check) { c.Type = "tcp" }},
		{"true, of a header", "true", "proxy_protocol = 'v2'", "", func(c *Check) { c.ProxyProtocol = "v2" }},
		{"false", "false", "proxy_protocol = 'v2'", "", func(c *Check) { *c = Check{Position: at} }},
		{"a word", "'smtp'", "", plain, func(*Check) {}},
		{"another word", "'tcp'", "proxy_protocol = 'v1'", "", func(c *Check) { c.Type = "tcp" }},
		{"an empty table", "{}", "", plain, func(c *Check) { c.Type = "tcp" }},
		{"its own header", "{ proxy_protocol = 'off' }", "proxy_protocol = 'v2'", "", func(*Check) {}},
		{"down_interval", "{ interval = '100ms' }", "", "", func(c *Check) {
			c.Interval, c.DownInterval = 100*time.Millisecond, 300*time.Millisecond
		}},
		{"the port of TLS", "{ port = 465 }", "", "", func(c *Check) { c.Port, c.TLS = 465, "on" }},
		{"the port of TLS in clear", "{ port = 465, tls = 'off' }", "", "", func(c *Check) { c.Port = 465 }},
		{"the port of TLS, not SMTP", "{ port = 465, type = 'tcp' }", "", "", func(c *Check) { c.Port, c.Type = 465, "tcp" }},
		{"the null sender", "{ mail_from = '', rcpt_to = 'postmaster' }", "", "", func(c *Check) { c.RcptTo = "postmaster" }},
		{"every key", `{ type = "smtp", interval = 5, down_interval = "1m", timeout = "20s", rise = 1, fall = 5, default_down = true,` +
			`port = 2525, proxy_protocol = "v2", tls = "starttls", cert_warning = 0, helo = "lb.example.org", verb = "lhlo",` +
			`mail_from = "probe@example.org", rcpt_to = "postmaster@example.org" }`, "proxy_protocol = 'v1'", plain, func(c *Check) {
			*c = Check{at, true, "smtp", 5 * time.Second, time.Minute, 20 * time.Second, 1, 5, true, 2525,
				"v2", "starttls", 0, "lb.example.org", "lhlo", "probe@example.org", "postmaster@example.org"}
		}},
	} {
		cfg, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\nservers = 'h:25'\ncheck = "+c.check+"\n"+c.rest+"\n"+one("1", c.users)))
		require.NoError(t, err, c.name)
		want := usualCheck(at, "smtp")
		c.want(&want)
		require.Equal(t, want, cfg.Upstreams[0].Check, c.name)
	}
}

// At port 465 TLS begins at once, which a probe can know only if all servers
// are there, backups too.
//
// Fails if the count leaves out a server or does not see that one is elsewhere.
func TestCheckTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ servers, want string }{
		{`["h:465", "i:465"]`, "on"},
		{`["h:465", { address = "i:465", backup = true }]`, "on"},
		{`["h:25", "unix:/a"]`, "off"},
	} {
		cfg, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\nservers = "+c.servers+"\ncheck = 'smtp'\n"+one("1", "")))
		require.NoError(t, err)
		require.Equal(t, c.want, cfg.Upstreams[0].Check.TLS, c.servers)
	}
}

// Fails if any of these passes, or is said elsewhere.
func TestCheckProblems(t *testing.T) {
	t.Parallel()
	const mixed = `check: upstream "a" has servers at port 465, where TLS begins at once, and at others; set tls in check, or check = false`
	const onlyConnects = ` is for type "smtp"; a check of type "tcp" only connects`
	for _, c := range []struct{ name, text, want string }{
		{"values", `check = { type = "http", interval = "99ms", down_interval = 0, timeout = "9ms", rise = 0, fall = "3", default_down = 1 }
slow_start = 1
servers = ["h:1", { address = "h:2", slow_start = "500ms", max_pending = -1 }]
`,
			`t.toml:3:18: type: want one of smtp, tcp, got "http"
t.toml:3:37: interval: want at least 100ms, got "99ms"
t.toml:3:61: down_interval: want at least 100ms, got 0
t.toml:3:74: timeout: want at least 10ms, got "9ms"
t.toml:3:88: rise: want a number from 1 to 1073741824, got 0
t.toml:3:98: fall: want a number from 1 to 1073741824, got "3"
t.toml:3:118: default_down: want true or false, got 1
t.toml:4:1: "slow_start" belongs to a server of [[upstream]], not to [[upstream]]
t.toml:5:51: slow_start: "500ms": unit "ms" is too fine here; use whole seconds
t.toml:5:74: max_pending: want a number from 0 to 1073741824, got -1`},
		{"values of SMTP", `servers = "h:1"
[upstream.check]
port = 65536
proxy_protocol = true
tls = true
cert_warning = "1ms"
helo = "a b"
verb = "EHLO"
mail_from = "<a@b>"
rcpt_to = ""
expect = 220
`,
			`t.toml:5:8: port: want a number from 1 to 65535, got 65536
t.toml:6:18: proxy_protocol: want one of off, v1, v2, got true
t.toml:7:7: tls: want one of off, on, starttls, got true
t.toml:8:16: cert_warning: "1ms": unit "ms" is too fine here; use whole seconds
t.toml:9:8: helo: want a host name, got "a b"
t.toml:10:8: verb: want one of ehlo, helo, lhlo, got "EHLO"
t.toml:11:13: mail_from: want an address such as "postmaster@example.org", got "<a@b>"
t.toml:12:11: rcpt_to: want an address such as "postmaster@example.org", got ""
t.toml:13:1: unknown key "expect" in check`},
		{"addresses", `servers = "h:1"
check = { mail_from = "a b", rcpt_to = "a\r\nDATA" }
`,
			`t.toml:4:23: mail_from: want an address such as "postmaster@example.org", got "a b"
t.toml:4:40: rcpt_to: want an address such as "postmaster@example.org", got "a\r\nDATA"`},
		{"a long address", "servers = 'h:1'\ncheck = { mail_from = '" + strings.Repeat("a", 254) + "', rcpt_to = '" + strings.Repeat("b", 255) + "' }\n",
			`t.toml:4:291: rcpt_to: want an address such as "postmaster@example.org", got "` + strings.Repeat("b", 40) + `"`},
		{"a sender alone", "servers = 'h:1'\ncheck = { mail_from = '' }\n",
			`t.toml:4:11: mail_from needs rcpt_to: without a recipient no sender is named`},
		{"no check at all", "servers = 'h:1'\ncheck = 5\n",
			`t.toml:4:9: type: want one of smtp, tcp, got 5`},
		{"a list", "servers = 'h:1'\ncheck = ['smtp']\n",
			`t.toml:4:9: type: want one of smtp, tcp, got an array`},
		{"what belongs to a check", "servers = 'h:1'\ninterval = '5s'\nrise = 2\ntype = 'smtp'\n",
			`t.toml:4:1: "interval" belongs to check or agent, not to [[upstream]]
t.toml:5:1: "rise" belongs to check, not to [[upstream]]
t.toml:6:1: "type" belongs to method or check, not to [[upstream]]`},
		{"unix port", "servers = ['h:1', 'unix:/run/a', 'unix:/run/b']\ncheck = { port = 25 }\n",
			`t.toml:4:9: check: port is for TCP; unix:/run/a of upstream "a" has none`},
		{"mixed ports", "servers = ['h:465', 'h:25']\ncheck = 'smtp'\n", `t.toml:4:9: ` + mixed},
		{"mixed ports by default", "servers = ['unix:/a', 'h:465']\n", `t.toml:2:8: ` + mixed},
		{"STARTTLS after HELO", "servers = 'h:1'\ncheck = { tls = 'starttls', verb = 'helo' }\n",
			`t.toml:4:9: check: tls = "starttls" needs verb "ehlo" or "lhlo"; after HELO a server offers no STARTTLS`},
		{"type tcp", `servers = "h:1"
check = { type = "tcp", proxy_protocol = "v1", tls = "on", helo = "a", verb = "lhlo", mail_from = "a", rcpt_to = "b" }
`,
			`t.toml:4:9: check: proxy_protocol` + onlyConnects + `
t.toml:4:9: check: tls` + onlyConnects + `
t.toml:4:9: check: helo` + onlyConnects + `
t.toml:4:9: check: verb` + onlyConnects + `
t.toml:4:9: check: mail_from` + onlyConnects + `
t.toml:4:9: check: rcpt_to` + onlyConnects},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\n"+c.text+one("1", "")))
			require.EqualError(t, err, c.want)
		})
	}
}
