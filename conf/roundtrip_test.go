package conf

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/conf/nginx"
)

// sayings have, for each directive that is obeyed and no block, what may stand
// behind it. A word after "?" may be left out, "␣" is a space, "#" is another
// number each time, "%" is text that a log line may have, and "§" is any text.
var sayings = map[string][]string{
	"daemon":                  {"on", "OFF"},
	"env":                     {"A%", "A%=%"},
	"error_log":               {"%", "/% warn", "stderr debug_core debug_event", "syslog:server=unix:/dev/log,tag=a info"},
	"load_module":             {"m"},
	"master_process":          {"on"},
	"pid":                     {"%", "/run/a␣b.pid"},
	"stop_timeout":            {"0", "1500ms", "90"},
	"user":                    {"é", "mail post␣fix"},
	"worker_processes":        {"auto", "1", "1024"},
	"worker_rlimit_nofile":    {"1", "1073741824"},
	"worker_shutdown_timeout": {"0", "25h", "1m␣30s", "36500d"},
	"working_directory":       {"%"},

	"hash":                    {"$%", "x%", "${remote_addr} ?consistent", "$a$b consistent"},
	"least_conn":              {""},
	"least_time":              {"connect ?inflight", "first_byte", "last_byte inflight"},
	"random":                  {"", "two ?least_conn"},
	"queue":                   {"1", "1048576 ?timeout=90", "20 timeout=1500ms"},
	"check":                   {"type=tcp ?port=26 ?rise=1", "type=smtp ?interval=100 ?down_interval=200 ?timeout=10 ?rise=4 ?fall=1073741824 ?default_down=true ?port=26 ?tls=starttls ?proxy_protocol=v2 ?cert_warning=0 ?rcpt_to=c@d"},
	"check_smtp_expect_alive": {"smtp_2xx"},
	"agent":                   {`port=9000 ?interval=100 ?timeout=10 ?send=a␣"\b'`},
	"least_load":              {""},

	"listen": {
		"# ?backlog=10 ?rcvbuf=64k ?sndbuf=0 ?fastopen=7 ?reuseport ?so_keepalive=1m::10 ?proxy_protocol",
		"*:# so_keepalive=on", "127.0.0.1:#-# so_keepalive=:1:", "[::]:# ipv6only=off ?bind", "[::FFFF:10.0.0.1]:#",
		"Localhost:#", "UNIX:/run/%/# ?default_server",
	},
	"proxy_connect_timeout":       {"1", "1500ms"},
	"proxy_timeout":               {"10m", "1w␣2d"},
	"proxy_next_upstream":         {"on", "off"},
	"proxy_next_upstream_tries":   {"0", "1073741824"},
	"proxy_next_upstream_timeout": {"0", "7s"},
	"proxy_bind":                  {"off", "192.0.2.1 ?transparent", "[2001:DB8::1]:25", "$remote_addr ?transparent", "$remote_addr:$remote_port transparent", "$%"},
	"proxy_half_close":            {"on", "off"},
	"proxy_socket_keepalive":      {"on", "off", "1m:2m:3", "::4"},
	"proxy_socket_rcvbuf":         {"0", "64k"},
	"proxy_socket_sndbuf":         {"1m", "4000m"},
	"proxy_buffer_size":           {"1", "32768"},
	"proxy_downstream_buffer":     {"2k"},
	"proxy_upstream_buffer":       {"2k"},
	"proxy_buffer":                {"2k"},
	"proxy_upload_rate":           {"0", "100k", "$§"},
	"proxy_download_rate":         {"1024m", "§$a"},
	"proxy_protocol":              {"on", "off", "v1", "v2"},
	"proxy_protocol_timeout":      {"1ms"},
	"tcp_nodelay":                 {"on", "off"},
	"set_real_ip_from":            {"192.0.2.7", "10.0.0.1/8", "2001:DB8::/32", "::ffff:10.0.0.0/104", "::ffff:0:0/90", "0.0.0.0/0", "::/0"},
	"allow":                       {"all", "unix:", "192.0.2.7", "::ffff:10.0.0.1"},
	"deny":                        {"all", "unix:", "2001:DB8::/32", "10.0.0.0/8"},
	"set":                         {"$set% §"},
	"access_log":                  {"off", "/$% F if=§", "a% f", "b# F buffer=1 ?flush=1s", "c f ?if= gzip", "syslog:server=a f"},
	"limit_conn":                  {"a 1", "b 65535"},
	"limit_conn_log_level":        {"info", "Error"},
	"limit_conn_dry_run":          {"on"},

	"smtp":                   {"on", "off"},
	"smtp_greeting_timeout":  {"1ms", "1h"},
	"smtp_pregreet":          {"pass", "HOLD", "reject"},
	"smtp_hostname":          {`a"\.`},
	"smtp_reply_unavailable": {`a␣'"\${`},
	"smtp_reply_limit":       {"b"},
	"smtp_reply_too_many":    {"c"},
	"smtp_reply_shutdown":    {"d"},
	"smtp_reply_pregreet":    {"e"},
	"smtp_reply_denied":      {"f"},
}

var (
	plainText = rapid.StringOfN(rapid.SampledFrom([]rune("az09AZ\"'\\{}#;()[] \u2028\ufeffé€😀=,~*.")), 1, 20, -1)
	anyRunes  = rapid.StringOfN(rapid.SampledFrom([]rune("az09\"'\\$${}#;()[] \t\r\n\x00\x01\x1b\x7f\u0080\u2028\ufffdé😀=,~*.")), 0, 20, -1)
	// As long as a word of an nginx.conf may be, and six times that in TOML.
	longText = rapid.Just(strings.Repeat("\x01", 4000))
	text     = rapid.OneOf(anyRunes, anyRunes, anyRunes, longText)
)

// A walk makes directives that are good wherever they are put.
type walk struct {
	*rapid.T
	numbers int
}

func (w *walk) chance() bool { return rapid.Bool().Draw(w.T, "chance") }

// line makes a directive of what is said behind its name.
func (w *walk) line(name, said string) nginx.Directive {
	d := nginx.Directive{Name: name}
	for word := range strings.FieldsSeq(said) {
		if optional, ok := strings.CutPrefix(word, "?"); ok {
			if word = optional; w.chance() {
				continue
			}
		}
		var b strings.Builder
		for _, c := range word {
			switch c {
			case '␣':
				b.WriteByte(' ')
			case '#':
				w.numbers++
				b.WriteString(strconv.Itoa(w.numbers))
			case '%':
				b.WriteString(plainText.Draw(w.T, "plain"))
			case '§':
				b.WriteString(text.Draw(w.T, "text"))
			default:
				b.WriteRune(c)
			}
		}
		d.Args = append(d.Args, b.String())
	}
	return d
}

// some makes a few lines of those that may stand in a context.
func (w *walk) some(in ngxContext, but ...string) (lines []nginx.Directive) {
	said := make(map[string]bool)
	for _, row := range slices.Concat(ngxProcess, ngxGroups, ngxSessions, ngxOurs) {
		for most := 3; row.in&in != 0 && len(sayings[row.name]) > 0 && most > 0 && w.chance(); most-- {
			d := w.line(row.name, rapid.SampledFrom(sayings[row.name]).Draw(w.T, row.name))
			once := row.name
			switch {
			case sameDirective[once] != "":
				once = sameDirective[once]
			case row.name == "limit_conn":
				once += d.Args[0]
			}
			if slices.Contains(but, row.name) || said[once] {
				break
			}
			said[once] = row.args&many == 0 || row.name == "limit_conn"
			lines = append(lines, d)
		}
	}
	return lines
}

// open makes a block.
func open(name string, lines []nginx.Directive, args ...string) nginx.Directive {
	return nginx.Directive{Name: name, Args: args, Block: lines, HasBlock: true}
}

// entries makes the lines of a map: keys of these kinds, and any values.
func (w *walk) entries(keys ...string) (lines []nginx.Directive) {
	for w.chance() {
		d := w.line("", rapid.SampledFrom(keys).Draw(w.T, "key")+" §")
		lines = append(lines, nginx.Directive{Name: d.Args[0], Args: d.Args[1:]})
	}
	return lines
}

// group makes an upstream. Agents and checks are of servers that have ports.
func (w *walk) group(name string) nginx.Directive {
	servers := []nginx.Directive{w.line("server", "h:1")}
	for w.chance() {
		servers = append(servers, w.line("server", "[2001:DB8::1]:25 ?weight=5 ?max_conns=1 ?max_fails=0 ?fail_timeout=1M ?slow_start=1m ?max_pending=7 ?backup ?down"))
	}
	settings := w.some(inUpstream)
	if slices.ContainsFunc(settings, func(d nginx.Directive) bool { return d.Name == "least_load" }) {
		settings = slices.DeleteFunc(settings, func(d nginx.Directive) bool { return d.Name == "agent" })
		settings = append(settings, w.line("agent", sayings["agent"][0]))
	}
	return open("upstream", append(servers, settings...), name)
}

// config makes a whole configuration.
func (w *walk) config() []nginx.Directive {
	stream := []nginx.Directive{
		w.line("log_format", "f § §"), w.line("log_format", "F% escape=json ?§"),
		w.line("log_format", "F escape=none ?§ ?§"),
		w.line("limit_conn_zone", "§ zone=a:1m"), w.line("limit_conn_zone", "§ zone=b:32k"),
		w.line("set_real_ip_from", "10.0.0.1"),
		open("map", w.entries("hostnames", "%", "~§", "default"), w.line("", "§ $map%").Args...),
		open("geo", w.entries("10.0.0.0/8", "delete"), "$geo"),
		open("geo", w.entries("10.0.0.0-10.0.0.9"), "$realip_remote_addr", "$_"),
		open("split_clients", w.entries("0.5%", "*"), w.line("", "§ $split%").Args...),
	}
	stream = append(stream, w.some(inStream)...)
	for _, name := range []string{"a", "B%"} {
		stream = append(stream, w.group(w.line("", name).Args[0]))
	}
	for range rapid.IntRange(1, 3).Draw(w.T, "servers") {
		handler := rapid.SampledFrom([]string{
			"proxy_pass A", "proxy_pass h:25", "proxy_pass unix:/%", "proxy_pass $%", "return §", "pass 127.0.0.1:1", "pass [::1]:1", "pass $%",
		}).Draw(w.T, "handler")
		name, said, _ := strings.Cut(handler, " ")
		server := []nginx.Directive{w.line("listen", "#"), w.line(name, said)}
		stream = append(stream, open("server", append(server, w.some(inServer, "proxy_protocol")...)))
	}
	return append(w.some(inMain), open("events", nil), open("stream", stream))
}

// Whatever can be said in an nginx.conf can be said in TOML, and is the same
// Config again.
//
// Fails if quoted leaves out a control character, if a field of Config is not
// written, and if what has no words in TOML is accepted in an nginx.conf.
func TestExplainAny(t *testing.T) {
	t.Parallel()
	for _, row := range slices.Concat(ngxProcess, ngxGroups, ngxSessions, ngxOurs) {
		elsewhere := []string{"log_format", "limit_conn_zone", "server", "proxy_pass", "return", "pass", "check_smtp_send"}
		if row.args&block == 0 && !slices.Contains(elsewhere, row.name) {
			require.NotEmpty(t, sayings[row.name], row.name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		w := &walk{T: t}
		text := nginx.Format(w.config())
		c, err := parseNginx(text)
		require.NoError(t, err, "%s", text)
		out := Explain(c)
		again, err := Parse("again.toml", out)
		require.NoError(t, err, "%s\n%s", text, out)
		require.Equal(t, placeless(c), placeless(again), "%s", text)
	})
}
