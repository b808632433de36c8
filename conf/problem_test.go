package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sound makes a configuration of what is put before or behind it.
const sound = `
[[upstream]]
name = "sound"
servers = ["10.9.9.9:25"]
[[server]]
listen = "127.0.0.1:9999"
proxy_pass = "sound"
`

// problemCases are texts and all that Parse says about them. Each puts its
// mistakes before or behind the sound part, so that nothing else is wrong.
//
// Fails if any message, line or column differs, and if Parse stops at the first.
var problemCases = []struct{ name, text, want string }{
	{"syntax", "pid = smtplb.pid\n",
		`t.toml:1:7: TOML syntax: expected value but found "smtplb" instead; words, times and sizes need quotes, as in "10s"`},
	{"unquoted time", "pid = 'x'\nstop_timeout = 10s\n" + sound,
		`t.toml:2:18: TOML syntax: expected a top-level item to end with a newline, comment, or EOF, but got 's' instead; words, times and sizes need quotes, as in "10s"`},
	{"key twice", "pid = 'x'\n  pid = 'y'\n" + sound,
		`t.toml:2:3: "pid" is defined already at t.toml:1:1`},
	{"key twice unseen by the library", "a.b = 1\na = 2\n" + sound,
		`t.toml:2:1: "a" is defined already at t.toml:1:1`},
	{"nothing", "",
		`t.toml: no [[server]]: nothing would listen; add one`},

	{"worker_processes", "worker_processes = 0\n" + sound,
		`t.toml:1:20: worker_processes: want "auto" or a number from 1 to 1024, got 0`},
	{"worker_processes float", "worker_processes = 1.5\n" + sound,
		`t.toml:1:20: worker_processes: want "auto" or a number from 1 to 1024, got the float 1.5`},
	{"worker_rlimit_nofile", "worker_rlimit_nofile = -1\n" + sound,
		`t.toml:1:24: worker_rlimit_nofile: want a number from 1 to 1073741824, got -1`},
	{"level", "error_log = { path = 'x',\n level = 'loud' }\n" + sound,
		`t.toml:2:10: level: want one of debug, info, notice, warn, error, crit, alert, emerg, got "loud"`},
	{"user and env", "user = ':mail'\nenv = ['=x', 1]\ndaemon = 'on'\n" + sound,
		`t.toml:1:8: user: want a user, or a user and a group as in "smtplb:mail", got ":mail"
t.toml:2:8: env: want "NAME" or "NAME=value", got "=x"
t.toml:2:14: env: want a string, got 1
t.toml:3:10: daemon: want true or false, got "on"`},
	{"wrong types", "pid = 1\nstop_timeout = true\nerror_log = []\nworker_shutdown_timeout = 1979-05-27\n" + sound,
		`t.toml:1:7: pid: want a string, got 1
t.toml:2:16: stop_timeout: want a time such as "10s", got true
t.toml:3:13: error_log: want at least one target
t.toml:4:27: worker_shutdown_timeout: want a time such as "10s", got a date`},
	{"empty string", "pid = ''\n" + sound,
		`t.toml:1:7: pid: want a string, got ""`},
	{"control characters", `pid = "a\nb"` + sound,
		`t.toml:1:7: pid: want a string without control characters, got "a\nb"`},

	{"unknown keys", "wroker_processes = 2\n\"no such\" = 1\nerror_log.lvl = 'x'\n" + sound,
		`t.toml:1:1: unknown key "wroker_processes" (did you mean "worker_processes"?)
t.toml:2:1: unknown key "no such" in the main file
t.toml:3:11: unknown key "lvl" in error_log`},
	{"unknown table", sound + "[srever]\nlisten = 25\n",
		`t.toml:8:2: unknown key "srever" (did you mean "server"?)`},
	{"keys of another table", "weight = 1\nproxy_timeout = '1h'\n" + sound + "pid = 'x'\nweight = 5\n",
		`t.toml:1:1: "weight" belongs to a server of [[upstream]], not to the main file
t.toml:2:1: "proxy_timeout" belongs to [[server]], not to the main file
t.toml:10:1: "pid" belongs to the main file, above the first [[upstream]] or [[server]], not to [[server]]
t.toml:11:1: "weight" belongs to a server of [[upstream]], not to [[server]]`},
	{"not yet", "worker_connections = 512\n" + sound + "allow = 'all'\nqueue = 1\nproxy_ssl_name = 'x'\nssl = true\nresolver = 'x'\n",
		`t.toml:1:1: "worker_connections" is not supported by this version; worker_rlimit_nofile bounds the sessions
t.toml:9:1: "allow" is not supported by this version; use access, as in access = ["allow 10.0.0.0/8", "deny all"]
t.toml:10:1: "queue" belongs to [[upstream]], not to [[server]]
t.toml:11:1: "proxy_ssl_name" is not supported by this version
t.toml:12:1: "ssl" is not supported by this version
t.toml:13:1: "resolver" is not supported by this version`},

	{"log formats and logs", "[[log_format]]\nname = 'mail'\nescape = 'xml'\nformat = ['a', 1]\n[[log_format]]\nname = 'mail'\nformat = ''\n" + sound +
		"access_log = [{ path = 'a', format = 'mial' }, 'b', { path = 'c', format = 'MAIL', flush = 1 }, { path = '$c', format = 'mail', buffer = 1 },\n" +
		"{ path = 'syslog:x', format = 'mail', gzip = 1 }, { path = 'd', format = 'mail', buffer = 1 }, { path = 'd', format = 'mail', buffer = 2, gzip = 10 }]",
		`t.toml:3:10: escape: want one of default, json, none, got "xml"
t.toml:4:16: format: want a text, got 1
t.toml:5:1: log_format "mail" is defined already at t.toml:1:1
t.toml:15:15: access_log: unknown log format "mial" (did you mean "mail"?); define it by [[log_format]]
t.toml:15:48: access_log needs "format"
t.toml:15:53: no buffer is defined for access_log "c"
t.toml:15:97: buffered logs cannot have variables in name
t.toml:16:1: logs to syslog cannot be buffered
t.toml:16:96: access_log "d" already defined with conflicting parameters
t.toml:16:146: gzip: want a number from 0 to 9, got 10`},
	{"variables", "[[map]]\nsource = 1\nvariable = '$x'\nentries = ['default', 'x']\n[[geo]]\nsource = 'x'\nentries = { a = 1 }\n[[split_clients]]\nparts = [['a'], [1, 'x'], ['x', 1]]\n" + sound +
		"set = [['$a', 'b']]\n",
		`t.toml:2:10: source: want a text, got 1
t.toml:3:12: variable: want the name of a variable, without a dollar, got "$x"
t.toml:4:12: entries: want a table, or a list of pairs such as ["key", "value"], got "default"
t.toml:4:23: entries: want a table, or a list of pairs such as ["key", "value"], got "x"
t.toml:5:1: [[geo]] needs "variable"
t.toml:6:10: source: want a variable such as "$realip_remote_addr", got "x"
t.toml:7:17: "a": want a text, got 1
t.toml:8:1: [[split_clients]] needs "source"
t.toml:8:1: [[split_clients]] needs "variable"
t.toml:9:10: parts: want a table, or a list of pairs such as ["key", "value"], got an array
t.toml:9:18: parts: want a text, got 1
t.toml:9:33: "x": want a text, got 1
t.toml:17:8: set: want the name of a variable, without a dollar, got "$a"`},
	{"limits", "[[limit_conn_zone]]\nname = 'addr'\nkey = '$a'\nsize = '1k'\n[[limit_conn_zone]]\nname = 'addr'\nkey = ''\n" + sound +
		"limit_conn = [{ zone = 'addr', connections = 0 }, { zone = 'addr', connections = 1 }, { zone = 'adr', connections = 1 }, 'x']\nlimit_conn_log_level = 'debug'\n",
		`t.toml:4:8: size: want a size from 32k to 1024m, got "1k"
t.toml:5:1: limit_conn_zone "addr" is defined already at t.toml:1:1
t.toml:15:46: connections: want a number from 1 to 65535, got 0
t.toml:15:51: limit_conn: zone "addr" has a limit here already, at t.toml:15:15
t.toml:15:87: limit_conn: no limit_conn_zone is named "adr" (did you mean "addr"?)
t.toml:15:122: limit_conn needs "connections"
t.toml:15:122: limit_conn: no limit_conn_zone is named "x"
t.toml:16:24: limit_conn_log_level: want one of info, notice, warn, error, got "debug"`},
	{"handlers", sound + "return = 'x'\n[[server]]\nlisten = 1\nproxy_pass = 'h:25'\nproxy_protocol = 'v1'\n[[upstream]]\nname = 'b'\nservers = 'h:1'\nmethod = 'random'\n" +
		"[[upstream]]\nname = 'c'\nservers = 'h:1'\nmethod = { type = 'hash', key = 1 }",
		`t.toml:8:10: return: the server has proxy_pass already, at t.toml:7:14; keep one of them
t.toml:9:1: proxy_protocol belongs to [[upstream]], or to listen; here it is for addresses that variables in proxy_pass become
t.toml:20:10: method: type "hash" needs key; "client_address" sends each client to the same server again
t.toml:20:33: key: want a text, got 1`},
	{"pass", sound + "pass = '127.0.0.1:1'\n[[server]]\nlisten = 1\npass = 'localhost:25'\n[[server]]\nlisten = 2\npass = '127.0.0.1'\n" +
		"[[server]]\nlisten = 3\npass = 4\n[[server]]\nlisten = 4\nreturn = 'x'\npass = '$a'\n",
		`t.toml:8:8: pass: the server has proxy_pass already, at t.toml:7:14; keep one of them
t.toml:11:8: pass: "localhost" is no IP address; want one of listen, such as "127.0.0.1:10025"
t.toml:14:8: pass: port missing; want "host:port"
t.toml:17:8: pass: want a string, got 4
t.toml:21:8: pass: the server has return already, at t.toml:20:10; keep one of them`},

	{"upstream without anything", "[[upstream]]\n" + sound,
		`t.toml:1:1: [[upstream]] needs "name"
t.toml:1:1: upstream "" has no servers`},
	{"upstream no table", "upstream = 'a'\n[[server]]\nlisten = 25\nproxy_pass = 'h:25'\n",
		`t.toml:1:12: upstream: want a table, got "a"
t.toml:1:12: upstream "" has no servers`},
	{"upstream twice", sound + "[[upstream]]\nname = 'Sound'\nservers = 'h:1'",
		`t.toml:9:8: upstream "Sound" is defined already at t.toml:3:8`},
	{"upstream without servers", "[[upstream]]\nname = 'a'\nservers = []\n" + sound,
		`t.toml:2:8: upstream "a" has no servers`},
	{"upstream of backups", "[[upstream]]\nname = 'a'\n[[upstream.servers]]\naddress = 'h:1'\nbackup = true\n" + sound,
		`t.toml:2:8: upstream "a" has only backup servers; it needs one that is not`},
	{"method", "[[upstream]]\nname = 'a'\nservers = ['h:1']\nmethod = 'least_conn'\n[[upstream]]\nname = 'b'\nservers = 'h:1'\nmethod = 'rr'\n" + sound,
		`t.toml:8:10: type: want one of round_robin, least_conn, hash, random, least_time, least_load, got "rr"`},
	{"incomplete methods", "[[upstream]]\nname = 'a'\nservers = ['h:1']\nmethod = 'hash'\n[[upstream]]\nname = 'b'\nservers = 'h:1'\nmethod = 'least_time'\n" + sound,
		`t.toml:4:10: method: type "hash" needs key; "client_address" sends each client to the same server again
t.toml:8:10: method: type "least_time" needs of: "connect", "first_byte" (with SMTP, the greeting) or "last_byte"`},
	{"keys of other methods", "[[upstream]]\nname = 'a'\nservers = ['h:1']\nmethod = { type = 'least_conn', key = 'client_address', consistent = true, two = true, of = 'connect', inflight = true }\n" + sound,
		`t.toml:4:10: method: key is for type "hash", not for "least_conn"
t.toml:4:10: method: consistent is for type "hash", not for "least_conn"
t.toml:4:10: method: two is for type "random", not for "least_conn"
t.toml:4:10: method: of is for type "least_time", not for "least_conn"
t.toml:4:10: method: inflight is for type "least_time", not for "least_conn"`},
	{"heavy consistent hash", "[[upstream]]\nname = 'a'\nservers = ['h:1', { address = 'h:2', weight = 100_000 }]\nmethod = { type = 'hash', key = 'client_address', consistent = true }\n" + sound,
		`t.toml:4:10: method: the weights of upstream "a" add up to 100001; a consistent hash has at most 100000, and 5 and 3 do what 500 and 300 do`},
	{"method as a key", "[[upstream]]\nname = 'a'\nservers = ['h:1']\nleast_conn = true\nhealth_check = true\ncheck_http_send = 'x'\n" + sound,
		`t.toml:4:1: "least_conn" is not supported by this version; use method = "least_conn"
t.toml:5:1: "health_check" is not supported by this version; use check in [[upstream]]
t.toml:6:1: "check_http_send" is not supported by this version`},
	{"servers", `[[upstream]]
name = "a"
servers = [
  { address = "h:1", wieght = 5 }, { weight = 0 },
  { address = "h:0", weight = "5", max_fails = -1, fail_timeout = "1500ms", backup = 1 },
  25, # no host
  "h", "h:65536", "h:25x", ":25", "::1:25", "[::1]", "[h]:25", "10.0.0.256:25", "a..b:25", "*:25",
  "unix:run/x", "fe80::1", "[fe80::1%eth0]:25", "[::ffff:10.0.0.1]:25",
]
` + sound,
		`t.toml:4:22: unknown key "wieght" (did you mean "weight"?)
t.toml:4:36: a server of [[upstream]] needs "address"
t.toml:4:47: weight: want a number from 1 to 1000000, got 0
t.toml:5:15: address: "h:0": bad port "0"; want a number from 1 to 65535
t.toml:5:31: weight: want a number from 1 to 1000000, got "5"
t.toml:5:48: max_fails: want a number from 0 to 1073741824, got -1
t.toml:5:67: fail_timeout: "1500ms": unit "ms" is too fine here; use whole seconds
t.toml:5:86: backup: want true or false, got 1
t.toml:6:3: address: want "host:port", "[ipv6]:port" or "unix:/path", got 25
t.toml:7:3: address: "h": port missing; want "host:port"
t.toml:7:8: address: "h:65536": bad port "65536"; want a number from 1 to 65535
t.toml:7:19: address: "h:25x": bad port "25x"; want a number from 1 to 65535
t.toml:7:28: address: ":25": host missing before the port
t.toml:7:35: address: "::1:25": an IPv6 address needs brackets, as in "[::1]:25"
t.toml:7:45: address: "[::1]": port missing; want "[address]:port"
t.toml:7:54: address: "[h]:25": no IPv6 address between the brackets: "h"
t.toml:7:64: address: "10.0.0.256:25": bad IPv4 address "10.0.0.256"
t.toml:7:81: address: "a..b:25": bad host name "a..b"
t.toml:7:92: address: "*:25": "*" is an address to listen on, not one to connect to
t.toml:8:3: address: "unix:run/x": want an absolute path, as in "unix:/run/smtp.sock"
t.toml:8:17: address: "fe80::1": an IPv6 address needs brackets, as in "[::1]:25"
t.toml:8:28: address: "[fe80::1%eth0]:25": IPv6 zones are not supported by this version
t.toml:8:49: address: "[::ffff:10.0.0.1]:25": write the IPv4 address itself, 10.0.0.1`},

	{"server without anything", sound + "[[server]]\n",
		`t.toml:8:1: [[server]] needs "listen"
t.toml:8:1: [[server]] needs "proxy_pass", "return" or "pass"`},
	{"proxy_pass", sound + `[[server]]
listen = 1
proxy_pass = "sonud"
[[server]]
listen = 2
proxy_pass = "mx.example.org"
[[server]]
listen = 3
proxy_pass = "Sound:25"
[[server]]
listen = 4
proxy_pass = 25
[[server]]
listen = 5
proxy_pass = ""
`,
		`t.toml:10:14: proxy_pass: no upstream is named "sonud" (did you mean "sound"?), and it is no address: port missing; want "host:port"
t.toml:13:14: proxy_pass: no upstream is named "mx.example.org", and it is no address: port missing; want "host:port"
t.toml:16:14: proxy_pass: upstream "sound" has the ports of its servers; leave out 25
t.toml:19:14: proxy_pass: want a string, got 25
t.toml:22:14: proxy_pass: want a string, got ""`},
	{"values of a server", sound + `proxy_connect_timeout = 0
proxy_timeout = "10x"
proxy_next_upstream = "on"
proxy_next_upstream_tries = 1.0
proxy_next_upstream_timeout = "1M"
proxy_bind = "example.org"
proxy_half_close = {}
proxy_socket_keepalive = "::"
proxy_buffer_size = "512"
tcp_nodelay = 1
`,
		`t.toml:8:25: proxy_connect_timeout: want at least 1ms, got 0
t.toml:9:17: proxy_timeout: "10x": unknown unit "x"; want y, M, w, d, h, m, s or ms
t.toml:10:23: proxy_next_upstream: want true or false, got "on"
t.toml:11:29: proxy_next_upstream_tries: want a number from 0 to 1073741824, got the float 1
t.toml:12:31: proxy_next_upstream_timeout: "1M": unit "M" is too coarse here; use d, h, m, s or ms
t.toml:13:14: address: "example.org": want an IP address with or without a port, a text with variables, "client", "client:port" or "off"
t.toml:14:20: proxy_half_close: want true or false, got a table
t.toml:15:26: proxy_socket_keepalive: "::": want "idle:interval:count", as in "120s:30s:4"; a part may be left out
t.toml:16:21: proxy_buffer_size: want a size from 1k to 1m, got "512"
t.toml:17:15: tcp_nodelay: want true or false, got 1`},
	{"proxy_bind of nginx", sound + "proxy_bind = '$remote_addr transparent'\nproxy_buffer_size = '2g'",
		`t.toml:8:14: address: "$remote_addr transparent": of nginx's forms, "$remote_addr transparent" is "client" here, "$remote_addr:$remote_port transparent" is "client:port", and "10.0.0.1 transparent" is { address = "10.0.0.1", transparent = true }
t.toml:9:21: proxy_buffer_size: "2g": want a size such as "16k", "1m" or a number of bytes`},
	{"listen", sound + `[[server]]
proxy_pass = "sound"
listen = [
  0, "-1", "1-", "127.0.0.1:30-20", true, "*", "nowhere", "[::1]:x", "unix:", {},
  { address = "h:1", backlog = 0, reuseport = 1, ipv6only = "off", so_keepalive = "1s:2s:128", deferred = true },
]
`,
		`t.toml:11:3: address: 0: bad port "0"; want a number from 1 to 65535
t.toml:11:6: address: "-1": bad port "-1"; want a number from 1 to 65535
t.toml:11:12: address: "1-": bad port "1-"; want a number from 1 to 65535
t.toml:11:18: address: "127.0.0.1:30-20": port range 30-20 runs backwards
t.toml:11:37: address: want a port, "host:port", "[ipv6]:port" or "unix:/path", got true
t.toml:11:43: address: "*": port missing; want "host:port"
t.toml:11:48: address: "nowhere": port missing; want "host:port"
t.toml:11:59: address: "[::1]:x": bad port "x"; want a number from 1 to 65535
t.toml:11:70: address: "unix:": want an absolute path, as in "unix:/run/smtp.sock"
t.toml:11:79: listen needs "address"
t.toml:12:32: backlog: want a number from 1 to 1073741824, got 0
t.toml:12:47: reuseport: want true or false, got 1
t.toml:12:61: ipv6only: want true or false, got "off"
t.toml:12:83: so_keepalive: "1s:2s:128": count goes from 1 to 127
t.toml:12:96: "deferred" is not supported by this version`},
	{"smtp", sound + `smtp = "on"
smtp_greeting_timeout = 0
smtp_pregreet = "wait"
smtp_hostname = "a b"
set_real_ip_from = [1, "x", "10.0.0.1/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0"]
proxy_protocol = true
[server.smtp_replies]
unavailable = ""
limit = "ä"
shutdown = 1
pregreet = "a\r\n250 b"
refused = "x"
`,
		`t.toml:8:8: smtp: want true or false, got "on"
t.toml:9:25: smtp_greeting_timeout: want at least 1ms, got 0
t.toml:10:17: smtp_pregreet: want one of pass, hold, reject, got "wait"
t.toml:11:17: smtp_hostname: want a host name, got "a b"
t.toml:12:21: set_real_ip_from: want a string, got 1
t.toml:12:24: set_real_ip_from: "x": want an address or a network, such as "192.0.2.0/24"
t.toml:12:29: set_real_ip_from: "10.0.0.1/8": want an address or a network whose host bits are zero, such as "192.0.2.0/24"
t.toml:12:43: set_real_ip_from: "::ffff:10.0.0.1": want an address or a network, such as "192.0.2.0/24"
t.toml:12:62: set_real_ip_from: "::ffff:10.0.0.0/104": want an address or a network whose host bits are zero, such as "192.0.2.0/24"
t.toml:12:85: set_real_ip_from: "fe80::1%eth0": want an address or a network, such as "192.0.2.0/24"
t.toml:13:18: proxy_protocol: want one of off, v1, v2, got true
t.toml:15:15: unavailable: want a string, got ""
t.toml:16:9: limit: want up to 400 printable ASCII characters, got "ä"
t.toml:17:12: shutdown: want a string, got 1
t.toml:18:12: pregreet: want a string without control characters, got "a\r\n250 b"
t.toml:19:1: unknown key "refused" in smtp_replies`},
	{"proxy_protocol of an upstream", "[[upstream]]\nname = 'a'\nservers = 'h:1'\nproxy_protocol = true\n" + sound,
		`t.toml:4:18: proxy_protocol: want one of off, v1, v2, got true`},
	{"proxy_protocol of listen", sound + `[[server]]
proxy_pass = "sound"
listen = [
  { address = "127.0.0.1:1", proxy_protocol = true },
  { address = "127.0.0.1:2", proxy_protocol = "v2" },
  { address = "unix:/a", proxy_protocol = true },
]
`,
		`t.toml:11:3: listen 127.0.0.1:1: proxy_protocol needs set_real_ip_from, the proxies whose word is taken; an empty list would trust nobody or everybody
t.toml:12:47: proxy_protocol: want true or false, got "v2"
t.toml:13:3: listen unix:/a: proxy_protocol is for TCP: whoever connects to a unix socket has no address to be trusted by`},
	{"listen nowhere", sound + "[[server]]\nproxy_pass = 'sound'\nlisten = []\n",
		`t.toml:10:10: listen: want at least one address`},
	{"listen twice", sound + `[[server]]
proxy_pass = "sound"
listen = [25, "0.0.0.0:25", "[::1]:26", "[0:0::1]:26", "unix:/a/b", "unix:/a//b", "MX.example:27", "mx.example:27", "27-28", "30-33", "127.0.0.1:32"]
`,
		`t.toml:10:15: listen 0.0.0.0:25: taken already by listen 25 at t.toml:10:11
t.toml:10:41: listen [0:0::1]:26: taken already by listen [::1]:26 at t.toml:10:29
t.toml:10:69: listen unix:/a//b: taken already by listen unix:/a/b at t.toml:10:56
t.toml:10:100: listen mx.example:27: taken already by listen MX.example:27 at t.toml:10:83`},
	{"options of a shared socket", sound + `[[server]]
proxy_pass = "sound"
listen = [{ address = "127.0.0.1:25", backlog = 9, proxy_protocol = true }, { address = "[::1]:25", so_keepalive = false }]
set_real_ip_from = "127.0.0.1"
[[server]]
proxy_pass = "sound"
listen = [{ address = "*:25", backlog = 9, reuseport = true }, { address = "[::]:25", ipv6only = false, backlog = 8 }, { address = "127.0.0.2:25", backlog = 8 }]
`,
		`t.toml:10:11: listen 127.0.0.1:25: backlog is not that of listen [::]:25 at t.toml:14:64, whose socket it shares; say it there
t.toml:10:77: listen [::1]:25: so_keepalive is not that of listen [::]:25 at t.toml:14:64, whose socket it shares; say it there
t.toml:14:11: listen *:25: backlog is not that of listen [::]:25 at t.toml:14:64, whose socket it shares; say it there
t.toml:14:11: listen *:25: reuseport is not that of listen [::]:25 at t.toml:14:64, whose socket it shares; say it there`},
}

func TestProblems(t *testing.T) {
	for _, c := range problemCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Parse("t.toml", []byte(c.text))
			require.Nil(t, cfg)
			require.EqualError(t, err, c.want)
		})
	}
}

// An editor that jumps to a place counts a tab as one column, and characters
// beyond ASCII as the bytes they are; a byte order mark and carriage returns
// of other systems do not shift anything.
func TestPlaceOfOddText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"tab", "\tpid\t=\t1\n" + sound, "t.toml:1:8: pid: want a string, got 1"},
		{"utf-8", "# ä\n\"ä\" = 1\n" + sound, `t.toml:2:1: unknown key "ä" in the main file`},
		{"byte order mark", "\ufeffpid = 1\n" + sound, "t.toml:1:7: pid: want a string, got 1"},
		{"carriage returns", strings.ReplaceAll("\npid = 1\n"+sound, "\n", "\r\n"), "t.toml:2:7: pid: want a string, got 1"},
		{"lines in strings", "pid = '''a\nb'''\nstop_timeout = \"\"\"\n\\\n]\"\"\"\npidd = 1\n" + sound,
			`t.toml:1:7: pid: want a string without control characters, got "a\nb"
t.toml:3:16: stop_timeout: "]": want a time such as "10s", "1m30s" or "2h"
t.toml:6:1: unknown key "pidd" (did you mean "pid"?)`},
		{"dotted and quoted", "error_log . 'level' = 'x'\n" + sound, "t.toml:1:23: level: want one of debug, info, notice, warn, error, crit, alert, emerg, got \"x\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("t.toml", []byte(c.text))
			require.EqualError(t, err, c.want)
		})
	}
}

// FuzzParse holds that no text makes Parse panic, say nothing, or name a place
// that is not in the file; and what it accepts can be written again.
func FuzzParse(f *testing.F) {
	for _, c := range problemCases {
		f.Add(c.text)
	}
	paths, err := filepath.Glob("../examples/*.toml")
	require.NoError(f, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // whatever files this machine has
		}
		c, err := Parse("f", []byte(text))
		if err == nil {
			require.NotEmpty(t, c.Servers)
			requireSame(t, c)
			return
		}
		require.Nil(t, c)
		var problems Problems
		require.ErrorAs(t, err, &problems)
		require.NotEmpty(t, problems)
		for _, p := range problems {
			require.NotContains(t, p.Message, "BUG")
			if p.Position.Line > 0 {
				offsetOf(t, strings.TrimPrefix(text, "\ufeff"), p.Position)
			}
		}
	})
}
