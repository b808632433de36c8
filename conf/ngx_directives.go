package conf

import (
	"strings"
	"time"

	"smtplb/conf/nginx"
)

// The language of nginx.conf as far as it can be about mail: a line for each
// directive, with its contexts and arguments as in nginx's own tables
// (ngx_command_t). A directive is obeyed, has no effect here, or is refused by
// name; none is ignored in silence.

// ngxDirective is one directive. Its read obeys one line that has it; the error
// is said at that line.
type ngxDirective struct {
	name string
	in   ngxContext
	args ngxArity
	read func(*ngxReader, *ngxBlock, nginx.Directive) error
}

// ngxArity is how many arguments a directive takes, a bit for each number, and
// what else is true of it.
type ngxArity uint16

const (
	args0 ngxArity = 1 << iota
	args1
	args2
	args3
	args4
	more // than those

	block // has a block
	many  // may stand in a block more than once

	oneMore  = args1 | args2 | args3 | args4 | more
	anything = args0 | oneMore
)

func (a ngxArity) allow(n int) bool { return a&min(1<<n, more) != 0 }

var inSession = inStream | inServer // where settings of sessions stand

// ngxTable is the language by names; some names mean two things.
type ngxTable map[string][]ngxDirective

func newNgxTable() ngxTable {
	table := make(ngxTable)
	for _, rows := range [][]ngxDirective{ngxProcess, ngxGroups, ngxSessions, ngxOurs, ngxIdle, ngxRefused} {
		for _, row := range rows {
			table[row.name] = append(table[row.name], row)
		}
	}
	return table
}

// find returns the directive of that name for a context, and whether there is
// one for any.
func (t ngxTable) find(name string, in ngxContext) (row *ngxDirective, known bool) {
	rows := t[name]
	if len(rows) == 0 && (strings.HasPrefix(name, "ssl_") || strings.HasPrefix(name, "proxy_ssl")) {
		rows = ngxTLS
	}
	for i := range rows {
		if rows[i].in&in != 0 {
			return &rows[i], true
		}
	}
	return nil, len(rows) > 0
}

var ngxProcess = []ngxDirective{
	{"daemon", inMain, args1, process(ngxFlag, func(c *Config) *bool { return &c.Daemon })},
	{"env", inMain, args1 | many, (*ngxReader).env},
	{"error_log", inMain | inSession, oneMore | many, (*ngxReader).errorLog},
	{"events", inMain, args0 | block, (*ngxReader).events},
	{"http", inMain, args0 | block, (*ngxReader).otherProtocol},
	{"load_module", inMain, args1 | many, (*ngxReader).loadModule},
	{"mail", inMain, args0 | block, (*ngxReader).otherProtocol},
	{"master_process", inMain, args1, (*ngxReader).masterProcess},
	{"pid", inMain, args1, (*ngxReader).pid},
	{"stream", inMain, args0 | block, (*ngxReader).stream},
	{"tcp", inMain, args0 | block, (*ngxReader).stream},
	{"user", inMain, args1 | args2, (*ngxReader).user},
	{"worker_processes", inMain, args1, process(ngxProcesses, func(c *Config) *int { return &c.WorkerProcesses })},
	{"worker_rlimit_nofile", inMain, args1, process(ngxNumber[uint64](1, 1<<30), func(c *Config) *uint64 { return &c.WorkerRlimitNofile })},
	{"worker_shutdown_timeout", inMain, args1, process(ngxMsec(0), func(c *Config) *time.Duration { return &c.WorkerShutdownTimeout })},
	{"working_directory", inMain, args1, process(ngxWord, func(c *Config) *string { return &c.WorkingDirectory })},
}

var ngxGroups = []ngxDirective{
	{"upstream", inStream, args1 | block | many, (*ngxReader).upstream},
	{"server", inUpstream, oneMore | many, (*ngxReader).upstreamServer},
	{"hash", inUpstream, args1 | args2 | many, (*ngxReader).hash},
	{"least_conn", inUpstream, args0 | many, (*ngxReader).leastConn},
	{"least_time", inUpstream, args1 | args2 | many, (*ngxReader).leastTime},
	{"random", inUpstream, args0 | args1 | args2 | many, (*ngxReader).random},
	{"queue", inUpstream, args1 | args2, (*ngxReader).queue},
	{"check", inUpstream, oneMore, (*ngxReader).check},
	{"check_smtp_send", inUpstream, args1, (*ngxReader).checkSMTPSend},
	{"check_smtp_expect_alive", inUpstream, oneMore, (*ngxReader).checkSMTPExpect},
}

var ngxSessions = []ngxDirective{
	{"server", inStream, args0 | block | many, (*ngxReader).serverBlock},
	{"listen", inServer, oneMore | many, (*ngxReader).listen},
	{"proxy_pass", inServer, args1, (*ngxReader).proxyPass},
	{"proxy_connect_timeout", inSession, args1, session(ngxMsec(1), func(s *ngxServer) *time.Duration { return &s.ConnectTimeout })},
	{"proxy_timeout", inSession, args1, session(ngxMsec(1), func(s *ngxServer) *time.Duration { return &s.Timeout })},
	{"proxy_next_upstream", inSession, args1, session(ngxFlag, func(s *ngxServer) *bool { return &s.NextUpstream })},
	{"proxy_next_upstream_tries", inSession, args1, session(ngxNumber(0, 1<<30), func(s *ngxServer) *int { return &s.NextUpstreamTries })},
	{"proxy_next_upstream_timeout", inSession, args1, session(ngxMsec(0), func(s *ngxServer) *time.Duration { return &s.NextUpstreamTimeout })},
	{"proxy_bind", inSession, args1 | args2, (*ngxReader).bind},
	{"proxy_half_close", inSession, args1, session(ngxFlag, func(s *ngxServer) *bool { return &s.HalfClose })},
	{"proxy_socket_keepalive", inSession, args1, session(ngxKeepalive, func(s *ngxServer) *Keepalive { return &s.SocketKeepalive })},
	{"proxy_socket_rcvbuf", inSession, args1, session(ngxSocketBuffer, func(s *ngxServer) *int { return &s.SocketRcvBuf })},
	{"proxy_socket_sndbuf", inSession, args1, session(ngxSocketBuffer, func(s *ngxServer) *int { return &s.SocketSndBuf })},
	{"proxy_buffer_size", inSession, args1, session(ngxBuffer, func(s *ngxServer) *int { return &s.BufferSize })},
	{"proxy_downstream_buffer", inSession, args1, deprecated(session(ngxBuffer, func(s *ngxServer) *int { return &s.BufferSize }))},
	{"proxy_upstream_buffer", inSession, args1, deprecated(session(ngxBuffer, func(s *ngxServer) *int { return &s.BufferSize }))},
	{"proxy_upload_rate", inSession, args1, session(ngxRate, func(s *ngxServer) *Rate { return &s.UploadRate })},
	{"proxy_download_rate", inSession, args1, session(ngxRate, func(s *ngxServer) *Rate { return &s.DownloadRate })},
	{"proxy_protocol", inSession, args1, session(ngxProxyProtocol, func(s *ngxServer) *string { return &s.proxyProtocol })},
	{"proxy_protocol_timeout", inSession, args1, session(ngxMsec(1), func(s *ngxServer) *time.Duration { return &s.ProxyHeaderTimeout })},
	{"tcp_nodelay", inSession, args1, session(ngxFlag, func(s *ngxServer) *bool { return &s.NoDelay })},
	{"set_real_ip_from", inSession, args1 | many, (*ngxReader).realIPFrom},
	{"allow", inSession, args1 | many, (*ngxReader).access},
	{"deny", inSession, args1 | many, (*ngxReader).access},

	{"log_format", inStream, oneMore&^args1 | many, (*ngxReader).logFormat},
	{"map", inStream, args2 | block | many, (*ngxReader).mapBlock},
	{"geo", inStream, args1 | args2 | block | many, (*ngxReader).geoBlock},
	{"split_clients", inStream, args2 | block | many, (*ngxReader).splitClients},
	{"limit_conn_zone", inStream, args2 | many, (*ngxReader).limitConnZone},
	{"return", inServer, args1, (*ngxReader).returnText},
	{"pass", inServer, args1, (*ngxReader).pass},
	{"set", inServer, args2 | many, (*ngxReader).set},
	{"access_log", inSession, oneMore | many, (*ngxReader).accessLog},
	{"limit_conn", inSession, args2 | many, (*ngxReader).limitConn},
	{"limit_conn_log_level", inSession, args1, session(ngxOneOf(limitLevels...), func(s *ngxServer) *string { return &s.LimitLogLevel })},
	{"limit_conn_dry_run", inSession, args1, session(ngxFlag, func(s *ngxServer) *bool { return &s.LimitDryRun })},

	{"proxy_buffer", inSession, args1, session(ngxBuffer, func(s *ngxServer) *int { return &s.BufferSize })},
}

// ngxOurs are directives that nginx does not know.
var ngxOurs = []ngxDirective{
	{"stop_timeout", inMain, args1, process(ngxMsec(0), func(c *Config) *time.Duration { return &c.StopTimeout })},
	{"agent", inUpstream, oneMore, (*ngxReader).agent},
	{"least_load", inUpstream, args0 | many, (*ngxReader).leastLoad},
	{"smtp", inSession, args1, session(ngxFlag, func(s *ngxServer) *bool { return &s.SMTP.On })},
	{"smtp_greeting_timeout", inSession, args1, session(ngxMsec(1), func(s *ngxServer) *time.Duration { return &s.SMTP.GreetingTimeout })},
	{"smtp_pregreet", inSession, args1, session(ngxOneOf("pass", "hold", "reject"), func(s *ngxServer) *string { return &s.SMTP.Pregreet })},
	{"smtp_hostname", inSession, args1, session(ngxText(replyWord), func(s *ngxServer) *string { return &s.SMTP.Hostname })},
	{"smtp_reply_unavailable", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.Unavailable })},
	{"smtp_reply_limit", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.Limit })},
	{"smtp_reply_too_many", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.TooMany })},
	{"smtp_reply_shutdown", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.Shutdown })},
	{"smtp_reply_pregreet", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.Pregreet })},
	{"smtp_reply_denied", inSession, args1, session(ngxText(replyText), func(s *ngxServer) *string { return &s.SMTP.Replies.Denied })},
}

// ngxIdle are directives that have no effect here, and why.
var ngxIdle = []ngxDirective{
	{"accept_mutex", inEvents, args1, idle(oneProcess)},
	{"accept_mutex_delay", inEvents, args1, idle(oneProcess)},
	{"debug_connection", inEvents, args1 | many, idle("error_log sets the level for all clients")},
	{"multi_accept", inEvents, args1, idle("all that wait are accepted")},
	{"use", inEvents, args1, (*ngxReader).use},
	{"worker_aio_requests", inEvents, args1, idle(oneProcess)},
	{"worker_connections", inEvents, args1, (*ngxReader).workerConnections},
	{"debug_points", inMain, args1, idle(oneProcess)},
	{"google_perftools_profiles", inMain, args1, idle(oneProcess)},
	{"lock_file", inMain, args1, idle(oneProcess)},
	{"pcre_jit", inMain, args1, idle("regular expressions are not those of PCRE")},
	{"ssl_engine", inMain, args1, idle("there is no TLS here")},
	{"thread_pool", inMain, args2 | args3 | many, idle(oneProcess)},
	{"timer_resolution", inMain, args1, idle("time is read once for many events anyway")},
	{"worker_cpu_affinity", inMain, oneMore, idle("the kernel places threads")},
	{"worker_priority", inMain, args1, idle("the service manager sets it, as by Nice=")},
	{"worker_rlimit_core", inMain, args1, idle("the service manager sets it, as by LimitCORE=")},

	{"check_shm_size", inStream, args1, idle(oneProcess)},
	{"map_hash_bucket_size", inStream, args1, idle(noTables)},
	{"map_hash_max_size", inStream, args1, idle(noTables)},
	{"open_log_file_cache", inSession, oneMore &^ more, (*ngxReader).openLogFileCache},
	{"preread_buffer_size", inSession, args1, idle("nothing is read before a server is connected")},
	{"preread_timeout", inSession, args1, idle("nothing is read before a server is connected")},
	{"proxy_requests", inSession, args1, idle("it is for UDP")},
	{"proxy_responses", inSession, args1, idle("it is for UDP")},
	{"resolver_timeout", inSession | inUpstream, args1, idle("names are looked up at start and at reload")},
	{"server_name", inServer, oneMore | many, idle("an address has one server")},
	{"server_names_hash_bucket_size", inStream, args1, idle(noTables)},
	{"server_names_hash_max_size", inStream, args1, idle(noTables)},
	{"status_zone", inServer, args1, idle("counters need no zone")},
	{"variables_hash_bucket_size", inStream, args1, idle(noTables)},
	{"variables_hash_max_size", inStream, args1, idle(noTables)},
	{"zone", inUpstream, args1 | args2 | many, (*ngxReader).upstreamZone},
}

const (
	oneProcess = "smtplb is one process with threads"
	noTables   = "tables grow as needed"
)

// ngxRefused are directives that nginx, its modules or a later version know.
var ngxRefused = []ngxDirective{
	{"geoip_city", inStream, oneMore, unsupported("")},
	{"geoip_country", inStream, oneMore, unsupported("")},
	{"geoip_org", inStream, oneMore, unsupported("")},
	{"js_access", inSession, args1, unsupported("")},
	{"js_filter", inSession, args1, unsupported("")},
	{"js_import", inSession, oneMore | many, unsupported("")},
	{"js_include", inStream, args1, unsupported("")},
	{"js_path", inSession, args1 | many, unsupported("")},
	{"js_preread", inSession, args1, unsupported("")},
	{"js_set", inSession, oneMore | many, unsupported("")},
	{"js_var", inSession, oneMore | many, unsupported("")},
	{"match", inStream, args1 | block | many, unsupported("")},
	{"proxy_bind_dynamic", inSession, args1, ngxOff},
	{"proxy_session_drop", inSession, args1, ngxOff},
	{"resolver", inSession | inUpstream, oneMore, unsupported("names are looked up by the system at start and at reload; leave it out")},

	{"busyness", inUpstream, args0, unsupported(`use "least_conn"`)},
	{"ip_hash", inUpstream, args0, unsupported(`use "hash $remote_addr"`)},
	{"state", inUpstream, args1, unsupported("")},
	{"check_fastcgi_param", inUpstream, args2 | many, unsupported("")},
	{"check_http_expect_alive", inUpstream, oneMore, unsupported("it is for HTTP")},
	{"check_http_send", inUpstream, args1, unsupported("it is for HTTP")},
	{"check_keepalive_requests", inUpstream, args1, unsupported("it is for HTTP")},
	{"check_status", inSession, anything, unsupported("")},
	{"health_check", inServer, anything, unsupported(`write "check" in the upstream`)},
	{"health_check_timeout", inSession, args1, unsupported(`write "check" in the upstream`)},

	// Of the old TCP module, which has times of its own.
	{"so_keepalive", inSession, args1, unsupported("write it behind the address, as in listen 25 so_keepalive=on")},
	{"timeout", inSession, args1, unsupported("use proxy_timeout")},
	{"proxy_read_timeout", inSession, args1, unsupported("use proxy_timeout")},
	{"proxy_send_timeout", inSession, args1, unsupported("use proxy_timeout")},
}

// ngxTLS are the fifty directives about TLS.
var ngxTLS = []ngxDirective{{"", inSession, anything | many, ngxOff}}
