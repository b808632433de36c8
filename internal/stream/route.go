package stream

import (
	"net/netip"
	"time"

	"go.uber.org/zap/zapcore"

	"smtplb/internal/script"
	"smtplb/listener"
)

// Route says where the clients of a port go and how their bytes are relayed.
// It is immutable once a port has it; a session keeps the route it started on.
type Route struct {
	// Epoch is that of the configuration which the route is of; nil if nobody asks
	// when it is over.
	Epoch *Epoch

	// Destination is where sessions go, unless ProxyPass says so.
	Destination
	// ProxyPass names where a session goes: to one of Groups, by GroupKey, or to an
	// address, with the Header of Destination.
	ProxyPass *script.Value
	Groups    map[string]*Destination

	ConnectTimeout time.Duration // for each attempt
	Timeout        time.Duration // both directions silent

	// NextUpstream allows a further server after a failed connect, at most
	// Tries servers in all (0: every one) and only while NextTimeout (0: ever)
	// has not passed since the session began, not counting time in a queue; as with nginx's
	// proxy_next_upstream a running attempt is not cut short, but see Gate.
	NextUpstream bool
	Tries        int
	NextTimeout  time.Duration

	Bind       Bind
	HalfClose  bool // pass one side's end of stream on and keep the other direction
	Keepalive  listener.Keepalive
	NoDelay    bool
	RcvBuf     int // SO_RCVBUF of sockets to servers; 0: the kernel's own
	SndBuf     int // SO_SNDBUF of them
	BufferSize int // bytes read at once in dialogue; a read that fills it turns to splice

	// UploadRate and DownloadRate are how fast bytes come from a client and go
	// to it. See pace.go.
	UploadRate   Rate
	DownloadRate Rate

	// Fronts are the proxies whose clients come with a PROXY protocol header:
	// from those addresses one is mandatory, from all others it is not looked
	// for (haproxy's proxy-protocol.txt, section 2).
	Fronts        []netip.Prefix
	HeaderTimeout time.Duration // for their header; 0: 5 s

	// Access says which clients are served. A client that came through a front
	// is judged by the address in its header.
	Access []AccessRule

	// ServerName is the first server_name.
	ServerName string

	// Scope is what all values of the route were compiled by. Without one there
	// are none, and no limits and access logs.
	Scope *script.Scope

	// Sets are run once the client is known, before the limits.
	Sets []*script.Assignment
	// Limits bound the sessions that are served at once. With LimitDryRun those
	// above are only logged; either way at LimitLogLevel.
	Limits        []Limit
	LimitDryRun   bool
	LimitLogLevel zapcore.Level

	// Set when a port gets the route.
	kept   bool   // see keeps
	listen string // the address that its clients connect to, as it is logged

	// Return is a text that clients get in place of a server.
	Return *script.Value
	// Pass is a port that has them in place of a server.
	Pass *Pass

	AccessLogs []AccessLog

	// Log takes what sessions meet with; nil: the engine's own.
	Log *Log
	// NginxLog has it in nginx's lines.
	NginxLog bool

	// Gate is for servers that speak SMTP: clients see no server before it has
	// greeted well, and get a reply of ours where none does. NextTimeout then
	// bounds a running attempt, too. Nil: any protocol.
	Gate *Gate
}

// fronted reports whether a client at addr must begin with a PROXY header.
func (r *Route) fronted(addr netip.Addr) bool {
	for _, p := range r.Fronts {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// clientVisible reports whether servers learn who the client is, so that what
// they refuse may be about it.
func (s *session) clientVisible() bool {
	b := &s.route.Bind
	return s.to.Header != NoHeader || b.Client ||
		b.Value != nil && s.from.IsValid() && s.record.source.Addr() == s.from.Addr()
}
