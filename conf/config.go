// Package conf reads a configuration file into a plain Config.
//
// A Config is data: it opens nothing, resolves no name and binds no port. It
// is complete when Load returns it: every default is filled in, every
// reference (proxy_pass to an upstream) is checked, and whatever was accepted
// is meant to be honoured. Several syntaxes may fill the same Config; their
// defaults belong to their readers, what holds for all is in validate.go.
//
// Load takes a file whose name ends in ".toml" for TOML, any other for an
// nginx.conf. A nginx.conf means what it means to nginx, defaults included; TOML
// has the defaults that an operator of mail wants. What can be said in one can be
// said in the other.
//
// The way of a TOML file: source.go opens it and what it includes, scan.go
// finds the place of every key and value, the TOML library reads the values,
// node.go joins both to a tree, and the tables of directives.go say what each
// key means. That of an nginx.conf is told in ngx_reader.go, and its table is in
// ngx_directives.go. To add a directive, add a line to both.
//
// Only main and internal/server know this package.
package conf

import (
	"net/netip"
	"time"
)

// Config is one whole configuration.
type Config struct {
	// Files are the files read, the main file first, for messages and -T.
	Files []string

	// WorkerProcesses is the number of event loops; 0 means one for each
	// processor the process may use.
	WorkerProcesses int
	// WorkerRlimitNofile is the wanted limit of open files; 0 leaves it.
	WorkerRlimitNofile uint64
	// WorkerShutdownTimeout bounds a graceful stop (SIGQUIT); 0 means no bound.
	WorkerShutdownTimeout time.Duration
	// StopTimeout bounds a fast stop (SIGTERM, SIGINT).
	StopTimeout time.Duration
	// Pid is the path of the pid file; empty means none.
	Pid         string
	PidPosition Position
	// ErrorLogs are where the process logs; at least one.
	ErrorLogs []ErrorLog
	// ErrorLogFormat is that of all error logs: smtplb, or nginx, where lines name
	// the process, and those about sessions are worded as nginx's stream module
	// words them.
	ErrorLogFormat string

	// Daemon puts the process into the background once it is ready.
	Daemon bool
	// User and Group are whom the process becomes after it has bound its ports,
	// if it was started by root; empty User: it stays who it is, empty Group:
	// that user's own.
	User, Group string
	// WorkingDirectory is where the process goes after the start; empty: it stays.
	WorkingDirectory string
	// Env are environment variables, "NAME" to keep one or "NAME=value" to set it.
	Env []string

	LogFormats []LogFormat
	Maps       []Map
	Geos       []Geo
	Splits     []Split
	LimitZones []LimitZone
	Upstreams  []Upstream
	Servers    []Server

	// Warnings are accepted but doubtful settings, each "file:line:col: text".
	Warnings []string
}

// ErrorLog is one target of the process's log or of a server's.
type ErrorLog struct {
	Position Position
	Path     string // "stderr", a file's path, or "syslog:…"
	Level    string // debug, info, notice, warn, error, crit, alert or emerg
}

// Position is a place in a configuration file. Line and column count from 1,
// columns in bytes; line 0 stands for the file as a whole. In an nginx.conf the
// column is 0, since nginx knows lines only.
type Position struct {
	File string
	Line int
	Col  int
}

// Text is a text with variables in it, nginx's complex value. What stands here
// is as written: that its variables exist is known only to who compiles it, which
// is so for all texts of a Config, whether they are a Text or a plain string beside
// a Position.
type Text struct {
	Position Position
	Text     string
}

// LogFormat is how an access log's records look.
type LogFormat struct {
	Position Position
	Name     string   // unique as it is; found without regard to case, the first one
	Escape   string   // default, json or none: how values of variables are written
	Texts    []string // with variables; joined with nothing between
}

// Map is a variable whose value is chosen by the value of a text.
type Map struct {
	Position  Position
	Variable  string // with its dollar; of two maps for one variable the last one holds, no other kind has it
	Source    string // a text with variables
	Hostnames bool
	Volatile  bool
	Entries   []Entry // values are texts with variables
}

// Geo is a variable whose value is chosen by an address.
type Geo struct {
	Position Position
	Variable string // with its dollar
	Source   string // the variable that has the address, with its dollar; "": the client's
	Ranges   bool
	Volatile bool
	Entries  []Entry // values are plain
}

// Split is a variable whose value is chosen by the hash of a text.
type Split struct {
	Position Position
	Variable string  // with its dollar
	Source   string  // a text with variables
	Parts    []Entry // values are plain
}

// Entry is a line of such a block, keys in nginx's words: "default", "~^mx",
// "delete", "0.5%", "*".
type Entry struct {
	Position   Position
	Key, Value string
}

// LimitZone counts sessions by a key.
type LimitZone struct {
	Position Position
	Name     string // unique
	Key      string // a text with variables; sessions for which it is empty are not counted
	Size     int    // bytes of memory that nginx would have for it
}

// Address is a TCP address or a unix socket's path, as configured. Host may be
// a name; internal/server resolves it. Equal hosts are spelt equally: names in
// lower case, IPv6 as in RFC 5952.
type Address struct {
	Text string // as written, for messages; one of a range of ports has its own
	Host string // name, IPv4 or IPv6 without brackets; "" for every IPv4 address (listen) or a unix socket
	Port uint16
	Path string // of a unix socket; else ""
}

// Upstream is a named group of servers. An implicit one, made by a proxy_pass
// that names an address, has Implicit set and that address as its Name.
type Upstream struct {
	Position Position // of its name
	Name     string   // unique without regard to case
	Implicit bool
	Method   Method

	ProxyProtocol string // off, v1 or v2: the header that servers get
	Check         Check
	Agent         Agent
	Queue         Queue
	Servers       []UpstreamServer
}

// Method is how a server is picked. What does not belong to its type is zero.
type Method struct {
	Position   Position // of the directive; of the upstream's name where there is none
	Type       string   // round_robin, least_conn, hash, random, least_time or least_load
	Key        string   // hash: a text with variables; $remote_addr is the client's address
	Consistent bool     // hash
	Two        bool     // random: the one with fewer sessions of two
	Of         string   // least_time: connect, first_byte or last_byte
	Inflight   bool     // least_time: with the sessions that have not come that far
}

// Queue is where sessions wait while all servers have max_conns sessions.
type Queue struct {
	Position Position // of the directive
	Size     int      // sessions; 0: there is none
	Timeout  time.Duration
}

// Check is how the servers of an upstream are probed.
type Check struct {
	Position     Position // of the directive; of the upstream's name where there is none
	On           bool
	Type         string        // smtp or tcp
	Interval     time.Duration // between the end of a probe and the next
	DownInterval time.Duration // the same while the server is down
	Timeout      time.Duration // of a whole probe
	Rise         int           // good probes in a row that bring a server back
	Fall         int           // bad ones in a row that take it out
	DefaultDown  bool          // out until it has risen
	Port         uint16        // where to probe; 0: the server's own

	ProxyProtocol string        // off, v1 or v2
	TLS           string        // off, on (from the first byte) or starttls
	CertWarning   time.Duration // how long before a certificate's end the log warns; 0: never
	Helo          string        // name in EHLO; "": the host's
	Verb          string        // ehlo (then helo if refused), helo or lhlo
	MailFrom      string        // sender of a MAIL command; used with RcptTo
	RcptTo        string        // recipient to be accepted; "": neither MAIL nor RCPT
}

// Agent is where and how the agents of the servers of an upstream are asked.
type Agent struct {
	Position Position // of the directive
	On       bool
	Port     uint16        // at the servers' addresses
	Interval time.Duration // between the end of a question and the next
	Timeout  time.Duration // of a whole question
	Send     string        // a line that is sent first; "": nothing
}

// UpstreamServer is one server line; a host name may stand for several
// addresses, each of which becomes a peer with these parameters.
type UpstreamServer struct {
	Position    Position
	Address     Address
	Weight      int           // >= 1
	MaxConns    int           // 0: unlimited
	MaxFails    int           // 0: never taken out
	FailTimeout time.Duration // whole seconds
	Backup      bool
	Down        bool
	SlowStart   time.Duration // whole seconds from recovery to the full share; 0: at once
	MaxPending  int           // connects under way while it recovers or is suspect; 0: no limit
}

// Server is one proxy: its listening addresses and how it relays.
type Server struct {
	Position Position
	Listen   []Listen

	// One of these four is what is done with clients.
	ProxyPass     string // an entry's Name in Config.Upstreams, spelt as there
	ProxyPassText string // a text with variables that becomes such a name, in any case, or an address
	Return        *Text  // what clients are sent before they are closed
	Pass          *Pass  // another server's listening address, where they are to be clients

	// ProxyPassPosition is where proxy_pass says so.
	ProxyPassPosition Position

	// ProxyProtocol is the header that servers get whose addresses ProxyPassText
	// becomes: off, v1 or v2. All others get what their upstream says.
	ProxyProtocol string

	ErrorLogs  []ErrorLog  // in place of the process's, for all that sessions meet with; none: the process's
	Sets       []Set       // in this order, once it is known who the client is
	AccessLogs []AccessLog // none: sessions are not logged

	ConnectTimeout      time.Duration  // proxy_connect_timeout
	Timeout             time.Duration  // proxy_timeout: both directions silent
	NextUpstream        bool           // proxy_next_upstream
	NextUpstreamTries   int            // proxy_next_upstream_tries; 0: no limit
	NextUpstreamTimeout time.Duration  // proxy_next_upstream_timeout; 0: no limit
	Bind                *Bind          // proxy_bind; nil: the kernel chooses
	HalfClose           bool           // proxy_half_close
	SocketKeepalive     Keepalive      // proxy_socket_keepalive
	SocketRcvBuf        int            // proxy_socket_rcvbuf: SO_RCVBUF towards servers, bytes; 0: the kernel's own
	SocketSndBuf        int            // proxy_socket_sndbuf: SO_SNDBUF
	BufferSize          int            // proxy_buffer_size, bytes
	NoDelay             bool           // tcp_nodelay, both sides
	UploadRate          Rate           // proxy_upload_rate: from the client
	DownloadRate        Rate           // proxy_download_rate: to the client
	RealIPFrom          []netip.Prefix // set_real_ip_from: who must send a PROXY header where ProxyProtocol is on
	ProxyHeaderTimeout  time.Duration  // proxy_protocol_timeout: for that header as a whole
	Access              []AccessRule   // access; allow and deny: the first that matches decides, none allows

	Limits        []Limit // limit_conn: all of them hold
	LimitLogLevel string  // limit_conn_log_level: info, notice, warn or error
	LimitDryRun   bool    // limit_conn_dry_run: who is above a limit is logged only

	SMTP SMTP
}

// Pass is a listening address to which clients are handed on.
type Pass struct {
	Position Position
	Address  Address
	Text     string // with variables, in place of Address; else ""
}

// Constant tells whether p, which may be nil, is one and the same address for all.
func (p *Pass) Constant() bool { return p != nil && p.Text == "" }

// Set gives a variable a value.
type Set struct {
	Position Position
	Variable string // with its dollar
	Value    string // a text with variables
}

// AccessLog is one log of a server's sessions. Those with the same path that have
// a buffer have the same one.
type AccessLog struct {
	Position Position
	Path     string        // a file's, with variables, or "syslog:…"
	Format   string        // a Name in Config.LogFormats, spelt as there
	Buffer   int           // bytes of records that may wait; 0: none
	Flush    time.Duration // how long they may wait; 0: until the buffer is full
	Gzip     int           // level of compression, 1 to 9; 0: none
	If       string        // a text with variables: "" and "0" are not logged; "" here: all are
}

// Limit is how many sessions may have one key.
type Limit struct {
	Position    Position
	Zone        string // a Name in Config.LimitZones
	Connections int    // 1 to 65535
}

// SMTP is what a server does because its sessions speak SMTP.
type SMTP struct {
	On              bool          // smtp: clients see no server before it has greeted well
	GreetingTimeout time.Duration // smtp_greeting_timeout: while another server can be asked
	Pregreet        string        // smtp_pregreet: pass, hold or reject
	Hostname        string        // smtp_hostname, in our own replies; "": the host's
	Replies         SMTPReplies
}

// SMTPReplies are the texts of our own replies, after code and host name.
type SMTPReplies struct {
	Unavailable string
	Limit       string
	TooMany     string
	Shutdown    string
	Pregreet    string
	Denied      string
}

// An AccessRule is one rule about who may be a client. It is about one of
// Prefix, Unix and All.
type AccessRule struct {
	Deny   bool
	Prefix netip.Prefix // clients with addresses in it; masked
	Unix   bool         // clients of unix sockets
	All    bool
}

// Listen is one listening address and the options of its socket. Where a wildcard
// of the configuration covers it, see Covers, that has the socket, and the options
// are the same.
type Listen struct {
	Position  Position
	Address   Address
	Backlog   int
	RcvBuf    int // SO_RCVBUF of clients' connections, bytes; 0: the kernel's own
	SndBuf    int // SO_SNDBUF
	FastOpen  int // TCP_FASTOPEN: connections that bring data before their handshake has ended; 0: none may
	ReusePort bool
	IPv6Only  bool // meaningful for IPv6 addresses only
	Keepalive Keepalive

	ProxyProtocol bool // clients from Server.RealIPFrom begin with a PROXY header

	given []string // which of its keys the file has; until it is validated
}

// Rate is how many bytes a second a session moves one way.
type Rate struct {
	Bytes int   // 0: no limit
	Text  *Text // becomes that number, as a size, in each session; nil: Bytes is it
}

// Bind is a source address for connections to servers. Port 0 lets the kernel
// choose one.
type Bind struct {
	Position    Position
	Text        string // with variables, becomes an address with or without a port in each session; "": what follows is it
	Host        string // IPv4 or IPv6; "": the client's own address
	Port        uint16
	ClientPort  bool // the client's own port, too
	Transparent bool // the address need not be one of this host (IP_TRANSPARENT)
}

// Keepalive is TCP keepalive. A zero Idle, Interval or Count leaves the
// kernel's own value.
type Keepalive struct {
	On       bool
	Idle     time.Duration // whole seconds
	Interval time.Duration // whole seconds
	Count    int
}
