package conf

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// AppendTOML writes c to b as a TOML file that says everything, defaults too.
// Load makes the same Config of it, but for positions and warnings, unless it has
// more keys and values than a TOML file may have, as with thousands of servers.
func AppendTOML(b []byte, c *Config) []byte {
	p := &printer{b}
	p.key("worker_processes", processesText(c.WorkerProcesses))
	if c.WorkerRlimitNofile > 0 {
		p.key("worker_rlimit_nofile", strconv.FormatUint(c.WorkerRlimitNofile, 10))
	}
	p.key("worker_shutdown_timeout", timeText(c.WorkerShutdownTimeout))
	p.key("stop_timeout", timeText(c.StopTimeout))
	p.text("pid", c.Pid)
	p.errorLogs(c.ErrorLogs, pair("format", quoted(c.ErrorLogFormat)))
	p.key("daemon", strconv.FormatBool(c.Daemon))
	if c.Group != "" {
		p.text("user", c.User+":"+c.Group)
	} else {
		p.text("user", c.User)
	}
	p.text("working_directory", c.WorkingDirectory)
	p.list("env", c.Env, quoted)
	p.variables(c)
	for i := range c.Upstreams {
		p.upstream(&c.Upstreams[i])
	}
	for i := range c.Servers {
		p.server(&c.Servers[i])
	}
	return p.b
}

type printer struct{ b []byte }

func (p *printer) line(format string, args ...any) { p.b = fmt.Appendf(p.b, format+"\n", args...) }

func (p *printer) key(name, value string) { p.line("%s = %s", name, value) }

// text writes a key whose default is none.
func (p *printer) text(name, value string) {
	if value != "" {
		p.key(name, quoted(value))
	}
}

// list writes a list, a line for each value, unless it is empty.
func (p *printer) list(name string, values []string, each func(string) string) {
	if len(values) == 0 {
		return
	}
	p.line("%s = [", name)
	for _, v := range values {
		p.line("  %s,", each(v))
	}
	p.line("]")
}

func (p *printer) upstream(u *Upstream) {
	// A group that a proxy_pass makes cannot say more than the address.
	if u.Implicit && cmp.Or(u.ProxyProtocol, "off") == "off" {
		return
	}
	p.line("\n[[upstream]]")
	p.key("name", quoted(u.Name))
	p.key("method", methodText(&u.Method))
	p.key("proxy_protocol", quoted(u.ProxyProtocol))
	p.key("check", checkText(&u.Check))
	if u.Agent.On {
		p.key("agent", agentText(&u.Agent))
	}
	if u.Queue.Size > 0 {
		p.key("queue", inline(pair("size", strconv.Itoa(u.Queue.Size)), pair("timeout", timeText(u.Queue.Timeout))))
	}
	servers := make([]string, len(u.Servers))
	for i, s := range u.Servers {
		servers[i] = inline(
			pair("address", quoted(s.Address.Text)),
			pair("weight", strconv.Itoa(s.Weight)),
			pair("max_conns", strconv.Itoa(s.MaxConns)),
			pair("max_fails", strconv.Itoa(s.MaxFails)),
			pair("fail_timeout", timeText(s.FailTimeout)),
			pair("backup", strconv.FormatBool(s.Backup)),
			pair("down", strconv.FormatBool(s.Down)),
			pair("slow_start", timeText(s.SlowStart)),
			pair("max_pending", strconv.Itoa(s.MaxPending)),
		)
	}
	p.list("servers", servers, asIs)
}

// errorLogs writes the targets of a log, with what else is said of each.
func (p *printer) errorLogs(logs []ErrorLog, more ...string) {
	texts := make([]string, len(logs))
	for i, l := range logs {
		texts[i] = inline(append([]string{pair("path", quoted(l.Path)), pair("level", quoted(l.Level))}, more...)...)
	}
	if len(texts) == 1 {
		p.key("error_log", texts[0])
	} else {
		p.list("error_log", texts, asIs)
	}
}

func methodText(m *Method) string {
	pairs := []string{pair("type", quoted(m.Type))}
	switch m.Type {
	case "hash":
		pairs = append(pairs, pair("key", quoted(m.Key)), pair("consistent", strconv.FormatBool(m.Consistent)))
	case "random":
		pairs = append(pairs, pair("two", strconv.FormatBool(m.Two)))
	case "least_time":
		pairs = append(pairs, pair("of", quoted(m.Of)), pair("inflight", strconv.FormatBool(m.Inflight)))
	default:
		return quoted(m.Type)
	}
	return inline(pairs...)
}

func checkText(c *Check) string {
	if !c.On {
		return "false"
	}
	pairs := []string{
		pair("type", quoted(c.Type)),
		pair("interval", timeText(c.Interval)),
		pair("down_interval", timeText(c.DownInterval)),
		pair("timeout", timeText(c.Timeout)),
		pair("rise", strconv.Itoa(c.Rise)),
		pair("fall", strconv.Itoa(c.Fall)),
		pair("default_down", strconv.FormatBool(c.DefaultDown)),
		pair("cert_warning", timeText(c.CertWarning)),
		pair("verb", quoted(c.Verb)),
	}
	if c.Port > 0 {
		pairs = append(pairs, pair("port", strconv.Itoa(int(c.Port))))
	}
	for _, text := range []struct{ name, value string }{
		{"proxy_protocol", c.ProxyProtocol},
		{"tls", c.TLS},
		{"helo", c.Helo},
		{"mail_from", c.MailFrom},
		{"rcpt_to", c.RcptTo},
	} {
		if text.value != "" {
			pairs = append(pairs, pair(text.name, quoted(text.value)))
		}
	}
	return inline(pairs...)
}

func agentText(a *Agent) string {
	pairs := []string{
		pair("port", strconv.Itoa(int(a.Port))),
		pair("interval", timeText(a.Interval)),
		pair("timeout", timeText(a.Timeout)),
	}
	if a.Send != "" {
		pairs = append(pairs, pair("send", quoted(a.Send)))
	}
	return inline(pairs...)
}

func (p *printer) server(s *Server) {
	p.line("\n[[server]]")
	listens := make([]string, len(s.Listen))
	for i, l := range s.Listen {
		listens[i] = inline(
			pair("address", quoted(l.Address.Text)),
			pair("backlog", strconv.Itoa(l.Backlog)),
			pair("rcvbuf", strconv.Itoa(l.RcvBuf)),
			pair("sndbuf", strconv.Itoa(l.SndBuf)),
			pair("fastopen", strconv.Itoa(l.FastOpen)),
			pair("reuseport", strconv.FormatBool(l.ReusePort)),
			pair("ipv6only", strconv.FormatBool(l.IPv6Only)),
			pair("so_keepalive", keepaliveText(l.Keepalive)),
			pair("proxy_protocol", strconv.FormatBool(l.ProxyProtocol)),
		)
	}
	p.list("listen", listens, asIs)
	p.text("proxy_pass", s.ProxyPass)
	if s.ProxyPassText != "" {
		p.key("proxy_pass", quoted(s.ProxyPassText))
		p.key("proxy_protocol", quoted(s.ProxyProtocol))
	}
	if s.Return != nil {
		p.key("return", quoted(s.Return.Text))
	}
	if s.Pass != nil {
		p.key("pass", quoted(cmp.Or(s.Pass.Text, s.Pass.Address.Text)))
	}
	p.errorLogs(s.ErrorLogs)
	var sets, logs, limits []string
	for _, set := range s.Sets {
		sets = append(sets, pairText(strings.TrimPrefix(set.Variable, "$"), set.Value))
	}
	for i := range s.AccessLogs {
		logs = append(logs, accessLogText(&s.AccessLogs[i]))
	}
	for _, l := range s.Limits {
		limits = append(limits, inline(pair("zone", quoted(l.Zone)), pair("connections", strconv.Itoa(l.Connections))))
	}
	p.list("set", sets, asIs)
	p.list("access_log", logs, asIs)
	p.key("proxy_connect_timeout", timeText(s.ConnectTimeout))
	p.key("proxy_timeout", timeText(s.Timeout))
	p.key("proxy_next_upstream", strconv.FormatBool(s.NextUpstream))
	p.key("proxy_next_upstream_tries", strconv.Itoa(s.NextUpstreamTries))
	p.key("proxy_next_upstream_timeout", timeText(s.NextUpstreamTimeout))
	p.key("proxy_bind", bindText(s.Bind))
	p.key("proxy_half_close", strconv.FormatBool(s.HalfClose))
	p.key("proxy_socket_keepalive", keepaliveText(s.SocketKeepalive))
	p.key("proxy_socket_rcvbuf", strconv.Itoa(s.SocketRcvBuf))
	p.key("proxy_socket_sndbuf", strconv.Itoa(s.SocketSndBuf))
	p.key("proxy_buffer_size", strconv.Itoa(s.BufferSize))
	p.key("tcp_nodelay", strconv.FormatBool(s.NoDelay))
	p.key("proxy_upload_rate", rateText(s.UploadRate))
	p.key("proxy_download_rate", rateText(s.DownloadRate))
	var networks, rules []string
	for _, n := range s.RealIPFrom {
		networks = append(networks, networkText(n))
	}
	for _, r := range s.Access {
		rules = append(rules, r.String())
	}
	p.list("set_real_ip_from", networks, quoted)
	p.key("proxy_protocol_timeout", timeText(s.ProxyHeaderTimeout))
	p.list("access", rules, quoted)
	p.list("limit_conn", limits, asIs)
	p.key("limit_conn_log_level", quoted(s.LimitLogLevel))
	p.key("limit_conn_dry_run", strconv.FormatBool(s.LimitDryRun))
	p.key("smtp", strconv.FormatBool(s.SMTP.On))
	p.key("smtp_greeting_timeout", timeText(s.SMTP.GreetingTimeout))
	p.key("smtp_pregreet", quoted(s.SMTP.Pregreet))
	p.text("smtp_hostname", s.SMTP.Hostname)
	p.line("[server.smtp_replies]")
	p.key("unavailable", quoted(s.SMTP.Replies.Unavailable))
	p.key("limit", quoted(s.SMTP.Replies.Limit))
	p.key("too_many", quoted(s.SMTP.Replies.TooMany))
	p.key("shutdown", quoted(s.SMTP.Replies.Shutdown))
	p.key("pregreet", quoted(s.SMTP.Replies.Pregreet))
	p.key("denied", quoted(s.SMTP.Replies.Denied))
}

// String formats r as access has it: "deny 192.0.2.7", "allow unix:".
func (r AccessRule) String() string {
	verb, whom := "allow ", "all"
	if r.Deny {
		verb = "deny "
	}
	switch {
	case r.Unix:
		whom = "unix:"
	case !r.All:
		whom = networkText(r.Prefix)
	}
	return verb + whom
}

func inline(pairs ...string) string { return "{ " + strings.Join(pairs, ", ") + " }" }

func pair(name, value string) string { return name + " = " + value }

func asIs(s string) string { return s }

// quoted writes a TOML string.
func quoted(s string) string {
	b := []byte{'"'}
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ' || c == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return string(append(b, '"'))
}

func rateText(r Rate) string {
	if r.Text != nil {
		return quoted(r.Text.Text)
	}
	return strconv.Itoa(r.Bytes)
}

func processesText(n int) string {
	if n == 0 {
		return `"auto"`
	}
	return strconv.Itoa(n)
}

// timeText writes a time in the largest unit that divides it, up to days.
func timeText(d time.Duration) string {
	for _, u := range timeUnits {
		if u.span <= day && d > 0 && d%u.span == 0 {
			return fmt.Sprintf(`"%d%s"`, d/u.span, u.name)
		}
	}
	return "0"
}

func keepaliveText(k Keepalive) string {
	switch k {
	case Keepalive{}:
		return "false"
	case Keepalive{On: true}:
		return `"kernel"`
	}
	part := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	count := ""
	if k.Count > 0 {
		count = strconv.Itoa(k.Count)
	}
	return quoted(part(k.Idle) + ":" + part(k.Interval) + ":" + count)
}

func bindText(b *Bind) string {
	switch {
	case b == nil:
		return `"off"`
	case b.Text != "":
		return bindTable(b.Text, b.Transparent)
	case b.Host == "" && b.ClientPort:
		return `"client:port"`
	case b.Host == "":
		return `"client"`
	}
	address := b.Host
	if b.Port > 0 {
		address = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	return bindTable(address, b.Transparent)
}

func bindTable(address string, transparent bool) string {
	return inline(pair("address", quoted(address)), pair("transparent", strconv.FormatBool(transparent)))
}

// networkText writes an address, or a network, as parsePrefix reads it.
func networkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
