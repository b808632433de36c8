package conf

import (
	"slices"
	"strings"
	"time"
)

// The language: a table for each place where keys may stand, and a line for
// each key: its name, its default as it would stand in a file, and what stores
// its value. A new directive is a new line, a field in Config, and a section
// in docs/reference.md, which a test compares with these tables.

const mainFile = "the main file"

var mainTable = directives[Config]{mainFile, append([]directive[Config]{
	{"worker_processes", "auto", slot(processes, func(c *Config) *int { return &c.WorkerProcesses })},
	{"worker_rlimit_nofile", none, slot(number[uint64](1, 1<<30), func(c *Config) *uint64 { return &c.WorkerRlimitNofile })},
	{"worker_shutdown_timeout", "15m", slot(msec(0), func(c *Config) *time.Duration { return &c.WorkerShutdownTimeout })},
	{"stop_timeout", "10s", slot(msec(0), func(c *Config) *time.Duration { return &c.StopTimeout })},
	{"pid", none, (*reader).pid},
	{"error_log", "stderr", (*reader).errorLogs},
	{"daemon", false, slot(flag, func(c *Config) *bool { return &c.Daemon })},
	{"user", none, (*reader).user},
	{"working_directory", none, slot(str, func(c *Config) *string { return &c.WorkingDirectory })},
	{"env", none, (*reader).env},
}, includedTable.rows...)}

var includedTable = directives[Config]{"an included file", []directive[Config]{
	{"include", none, (*reader).include},
	{"log_format", none, (*reader).logFormats},
	{"map", none, (*reader).maps},
	{"geo", none, (*reader).geos},
	{"split_clients", none, (*reader).splits},
	{"limit_conn_zone", none, (*reader).limitZones},
	{"upstream", none, (*reader).upstreams},
	{"server", none, (*reader).servers},
}}

var upstreamTable = directives[Upstream]{"[[upstream]]", []directive[Upstream]{
	{"name", required, (*reader).upstreamName},
	{"method", "round_robin", (*reader).method},
	{"servers", none, (*reader).upstreamServers},
	{"proxy_protocol", "off", slot(oneOf("off", "v1", "v2"), func(u *Upstream) *string { return &u.ProxyProtocol })},
	{"check", none, (*reader).check},
	{"agent", none, (*reader).agent},
	{"queue", none, (*reader).queue},
}}

var queueTable = directives[Queue]{"queue", []directive[Queue]{
	{"size", required, slot(number(1, maxQueue), func(q *Queue) *int { return &q.Size })},
	{"timeout", "60s", slot(msec(1), func(q *Queue) *time.Duration { return &q.Timeout })},
}}

var methodTable = directives[Method]{"method", []directive[Method]{
	{"type", required, slot(oneOf("round_robin", "least_conn", "hash", "random", "least_time", "least_load"), func(m *Method) *string { return &m.Type })},
	{"key", none, slot(hashKey, func(m *Method) *string { return &m.Key })},
	{"consistent", false, slot(flag, func(m *Method) *bool { return &m.Consistent })},
	{"two", false, slot(flag, func(m *Method) *bool { return &m.Two })},
	{"of", none, slot(oneOf("connect", "first_byte", "last_byte"), func(m *Method) *string { return &m.Of })},
	{"inflight", false, slot(flag, func(m *Method) *bool { return &m.Inflight })},
}}

// What has no default here depends on the group and on who uses it; see check.go.
var checkTable = directives[Check]{"check", []directive[Check]{
	{"type", none, slot(oneOf("smtp", "tcp"), func(c *Check) *string { return &c.Type })},
	{"interval", "10s", slot(msec(100), func(c *Check) *time.Duration { return &c.Interval })},
	{"down_interval", none, slot(msec(100), func(c *Check) *time.Duration { return &c.DownInterval })},
	{"timeout", "10s", slot(msec(10), func(c *Check) *time.Duration { return &c.Timeout })},
	{"rise", 2, slot(number(1, 1<<30), func(c *Check) *int { return &c.Rise })},
	{"fall", 3, slot(number(1, 1<<30), func(c *Check) *int { return &c.Fall })},
	{"default_down", false, slot(flag, func(c *Check) *bool { return &c.DefaultDown })},
	{"port", none, slot(number[uint16](1, 65535), func(c *Check) *uint16 { return &c.Port })},
	{"proxy_protocol", none, slot(oneOf("off", "v1", "v2"), func(c *Check) *string { return &c.ProxyProtocol })},
	{"tls", none, slot(oneOf("off", "on", "starttls"), func(c *Check) *string { return &c.TLS })},
	{"cert_warning", "14d", slot(sec, func(c *Check) *time.Duration { return &c.CertWarning })},
	{"helo", none, slot(replyWord, func(c *Check) *string { return &c.Helo })},
	{"verb", "ehlo", slot(oneOf("ehlo", "helo", "lhlo"), func(c *Check) *string { return &c.Verb })},
	{"mail_from", none, slot(sender, func(c *Check) *string { return &c.MailFrom })},
	{"rcpt_to", none, slot(recipient, func(c *Check) *string { return &c.RcptTo })},
}}

var agentTable = directives[Agent]{"agent", []directive[Agent]{
	{"port", required, slot(number[uint16](1, 65535), func(a *Agent) *uint16 { return &a.Port })},
	{"interval", "2s", slot(msec(100), func(a *Agent) *time.Duration { return &a.Interval })},
	{"timeout", "1s", slot(msec(10), func(a *Agent) *time.Duration { return &a.Timeout })},
	{"send", none, slot(replyText, func(a *Agent) *string { return &a.Send })},
}}

var upstreamServerTable = directives[UpstreamServer]{"a server of [[upstream]]", []directive[UpstreamServer]{
	{"address", required, slot(address, func(s *UpstreamServer) *Address { return &s.Address })},
	{"weight", 1, slot(number(1, 1_000_000), func(s *UpstreamServer) *int { return &s.Weight })},
	{"max_conns", 0, slot(number(0, 1<<30), func(s *UpstreamServer) *int { return &s.MaxConns })},
	{"max_fails", 3, slot(number(0, 1<<30), func(s *UpstreamServer) *int { return &s.MaxFails })},
	{"fail_timeout", "10s", slot(sec, func(s *UpstreamServer) *time.Duration { return &s.FailTimeout })},
	{"backup", false, slot(flag, func(s *UpstreamServer) *bool { return &s.Backup })},
	{"down", false, slot(flag, func(s *UpstreamServer) *bool { return &s.Down })},
	{"slow_start", "30s", slot(sec, func(s *UpstreamServer) *time.Duration { return &s.SlowStart })},
	{"max_pending", 64, slot(number(0, 1<<30), func(s *UpstreamServer) *int { return &s.MaxPending })},
}}

var serverTable = directives[Server]{"[[server]]", []directive[Server]{
	{"listen", required, (*reader).listens},
	{"proxy_pass", none, (*reader).proxyPass},
	{"return", none, (*reader).returnText},
	{"pass", none, (*reader).pass},
	{"error_log", none, (*reader).serverErrorLogs},
	{"set", none, (*reader).sets},
	{"access_log", none, (*reader).accessLogs},
	{"proxy_protocol", "off", slot(oneOf("off", "v1", "v2"), func(s *Server) *string { return &s.ProxyProtocol })},
	{"proxy_connect_timeout", "5s", slot(msec(1), func(s *Server) *time.Duration { return &s.ConnectTimeout })},
	{"proxy_timeout", "660s", (*reader).proxyTimeout},
	{"proxy_next_upstream", true, slot(flag, func(s *Server) *bool { return &s.NextUpstream })},
	{"proxy_next_upstream_tries", 3, slot(number(0, 1<<30), func(s *Server) *int { return &s.NextUpstreamTries })},
	{"proxy_next_upstream_timeout", "150s", slot(msec(0), func(s *Server) *time.Duration { return &s.NextUpstreamTimeout })},
	{"proxy_bind", "off", (*reader).proxyBind},
	{"proxy_half_close", true, slot(flag, func(s *Server) *bool { return &s.HalfClose })},
	{"proxy_socket_keepalive", true, slot(keepalive, func(s *Server) *Keepalive { return &s.SocketKeepalive })},
	{"proxy_socket_rcvbuf", 0, slot(socketBuffer, func(s *Server) *int { return &s.SocketRcvBuf })},
	{"proxy_socket_sndbuf", 0, slot(socketBuffer, func(s *Server) *int { return &s.SocketSndBuf })},
	{"proxy_buffer_size", "16k", slot(size(minBuffer, maxBuffer), func(s *Server) *int { return &s.BufferSize })},
	{"tcp_nodelay", true, slot(flag, func(s *Server) *bool { return &s.NoDelay })},
	{"proxy_upload_rate", 0, slot(rate, func(s *Server) *Rate { return &s.UploadRate })},
	{"proxy_download_rate", 0, slot(rate, func(s *Server) *Rate { return &s.DownloadRate })},
	{"set_real_ip_from", none, (*reader).realIPFrom},
	{"proxy_protocol_timeout", "5s", slot(msec(1), func(s *Server) *time.Duration { return &s.ProxyHeaderTimeout })},
	{"access", none, (*reader).access},
	{"limit_conn", none, (*reader).limits},
	{"limit_conn_log_level", "error", slot(oneOf(limitLevels...), func(s *Server) *string { return &s.LimitLogLevel })},
	{"limit_conn_dry_run", false, slot(flag, func(s *Server) *bool { return &s.LimitDryRun })},
	{"smtp", true, slot(flag, func(s *Server) *bool { return &s.SMTP.On })},
	{"smtp_greeting_timeout", "20s", slot(msec(1), func(s *Server) *time.Duration { return &s.SMTP.GreetingTimeout })},
	{"smtp_pregreet", "pass", slot(oneOf("pass", "hold", "reject"), func(s *Server) *string { return &s.SMTP.Pregreet })},
	{"smtp_hostname", none, slot(replyWord, func(s *Server) *string { return &s.SMTP.Hostname })},
	{"smtp_replies", unavailable, (*reader).smtpReplies},
}}

// The texts of our own replies; that of unavailable is RFC 5321's (section 4.2.3).
const (
	unavailable = "Service not available, closing transmission channel"
	overLimit   = "Too many sessions, try again later"
	tooMany     = "Too many connections from you"
	stopping    = "Service is shutting down, try again later"
	pregreeted  = "Error: SMTP protocol synchronization"
	denied      = "Access denied"
)

var smtpRepliesTable = directives[SMTPReplies]{"smtp_replies", []directive[SMTPReplies]{
	{"unavailable", unavailable, slot(replyText, func(r *SMTPReplies) *string { return &r.Unavailable })},
	{"limit", overLimit, slot(replyText, func(r *SMTPReplies) *string { return &r.Limit })},
	{"too_many", tooMany, slot(replyText, func(r *SMTPReplies) *string { return &r.TooMany })},
	{"shutdown", stopping, slot(replyText, func(r *SMTPReplies) *string { return &r.Shutdown })},
	{"pregreet", pregreeted, slot(replyText, func(r *SMTPReplies) *string { return &r.Pregreet })},
	{"denied", denied, slot(replyText, func(r *SMTPReplies) *string { return &r.Denied })},
}}

// maxQueue bounds what waits for servers; no process has as many descriptors.
const maxQueue = 1 << 20

// Bounds of one configuration, all its files together.
const (
	maxServers = 10_000
	maxListens = 10_000
)

// A command line of SMTP has up to 512 bytes and a line of text 1000 (RFC 5321
// section 4.5.3.1): less than 1k would part them for nothing. More than 1m
// saves no system call that splice does not save anyway.
const (
	minBuffer = 1 << 10
	maxBuffer = 1 << 20
)

// maxSocketBuffer is more than the kernel ever gives.
const maxSocketBuffer = 1 << 30

// maxRate is the highest rate of a session, in bytes per second.
const maxRate = 1 << 30

var listenTable = directives[listenLine]{"listen", []directive[listenLine]{
	{"address", required, slot(ports, func(l *listenLine) *portRange { return &l.ports })},
	{"backlog", 4096, slot(number(1, 1<<30), func(l *listenLine) *int { return &l.Backlog })},
	{"rcvbuf", 0, slot(socketBuffer, func(l *listenLine) *int { return &l.RcvBuf })},
	{"sndbuf", 0, slot(socketBuffer, func(l *listenLine) *int { return &l.SndBuf })},
	{"fastopen", 0, slot(number(0, 1<<30), func(l *listenLine) *int { return &l.FastOpen })},
	{"reuseport", false, slot(flag, func(l *listenLine) *bool { return &l.ReusePort })},
	{"ipv6only", true, slot(flag, func(l *listenLine) *bool { return &l.IPv6Only })},
	{"so_keepalive", true, slot(keepalive, func(l *listenLine) *Keepalive { return &l.Keepalive })},
	{"proxy_protocol", false, slot(flag, func(l *listenLine) *bool { return &l.ProxyProtocol })},
}}

var proxyBindTable = directives[bindLine]{"proxy_bind", []directive[bindLine]{
	{"address", required, slot(bind, func(l *bindLine) **Bind { return &l.bind })},
	{"transparent", false, slot(flag, func(l *bindLine) *bool { return &l.transparent })},
}}

// homes tells for each key where it may stand. As a variable it would have to
// exist before the tables, which lead to the reader, which uses it.
func homes() map[string]string {
	m := make(map[string]string)
	settle(m, mainTable)
	settle(m, logFormatTable)
	settle(m, mapTable)
	settle(m, geoTable)
	settle(m, splitTable)
	settle(m, limitZoneTable)
	settle(m, upstreamTable)
	settle(m, methodTable)
	settle(m, checkTable)
	settle(m, agentTable)
	settle(m, queueTable)
	settle(m, upstreamServerTable)
	settle(m, serverTable)
	settle(m, accessLogTable)
	settle(m, limitTable)
	settle(m, smtpRepliesTable)
	settle(m, listenTable)
	settle(m, proxyBindTable)
	settle(m, errorLogTable)
	return m
}

func settle[T any](homes map[string]string, t directives[T]) {
	for _, name := range t.names() {
		if homes[name] != "" {
			homes[name] += " or "
		}
		homes[name] += t.place
	}
}

// notYet are keys that nginx, its modules or a later version know. A star ends
// a family of names.
var notYet = strings.Fields(`
	accept_filter allow bind check_* debug_points default_server deferred deny
	events geoip_* hash health_check health_check_* http ip_hash js_*
	keyval* least_conn least_time load_module lock_file mail map_* master_process
	match metrics mqtt* multi_accept multipath open_log_file_cache pcre_jit
	preread_* proxy_bind_dynamic proxy_downstream_buffer proxy_requests
	proxy_responses proxy_session_drop proxy_ssl proxy_ssl_* proxy_upstream_buffer
	random real_ip_* resolve resolver resolver_* route server_name server_names_* service setfib
	ssl ssl_* state status status_zone stream syslog tcp thread_pool
	timer_resolution udp use variables_hash_* worker_aio_* worker_connections
	worker_cpu_affinity worker_priority worker_rlimit_core zone_sync*`)

// instead says what an operator can do in place of some of them.
var instead = map[string]string{
	"allow":                   `use access, as in access = ["allow 10.0.0.0/8", "deny all"]`,
	"deny":                    `use access, as in access = ["deny 192.0.2.7"]`,
	"hash":                    `use method = { type = "hash", key = "client_address" }`,
	"health_check":            "use check in [[upstream]]",
	"least_conn":              `use method = "least_conn"`,
	"least_time":              `use method = { type = "least_time", of = "first_byte" }`,
	"proxy_downstream_buffer": "use proxy_buffer_size",
	"proxy_upstream_buffer":   "use proxy_buffer_size",
	"random":                  `use method = "random"`,
	"stream":                  "write [[upstream]] and [[server]] without it",
	"worker_connections":      "worker_rlimit_nofile bounds the sessions",
}

func isNotYet(name string) bool {
	return slices.ContainsFunc(notYet, func(known string) bool {
		family, all := strings.CutSuffix(known, "*")
		return name == known || all && strings.HasPrefix(name, family)
	})
}
