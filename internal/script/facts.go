package script

import (
	"net/netip"
	"time"
)

// Facts is what is known of a session. The data plane sets it before it has
// something evaluated, and may leave out what is not known yet: unless it says
// otherwise, a zero value is what nginx prints for a session at its start.
//
// Strings are kept no longer than the next Begin or End.
type Facts struct {
	// Client is whom the session is for: the peer of the connection or, from a
	// trusted front, the source in its PROXY header. Zero is a peer on a unix
	// socket.
	Client netip.AddrPort
	// Front is the peer of the connection ($realip_remote_addr), equal to
	// Client without a trusted front. Zero is a peer on a unix socket.
	Front netip.AddrPort
	// Server is the address of the connection's own end; if it is zero, ServerPath
	// is that of a unix socket.
	Server     netip.AddrPort
	ServerPath string
	// ProxySource and ProxyDestination are the addresses in the PROXY header,
	// trusted or not. They are zero if there was none or it had none.
	ProxySource, ProxyDestination netip.AddrPort
	// Extensions are those of the PROXY header; nil: it has none. They may be left
	// out if the scope does not use them.
	Extensions Extensions
	// ServerName is the first server_name.
	ServerName string
	// Connection counts the connections of the process.
	Connection uint64

	Now         int64 // the time of day, in nanoseconds since 1970
	SessionTime int64 // milliseconds since the connection was accepted

	BytesSent, BytesReceived int64 // to and from the client
	Status                   int   // 0 until it is known
	LimitConn                LimitStatus

	// Attempts has an element for each server tried, or for the group as a whole
	// where none could be.
	Attempts []Attempt

	// BannerCode is the reply code of the server's greeting, 0 if there was none,
	// and BannerTime the milliseconds from the connect to it.
	BannerCode int
	BannerTime int64

	End End

	clock clock
}

// An Attempt is what came of one server. A time is in milliseconds since the
// attempt began, and Absent if that did not happen.
type Attempt struct {
	Addr                     string // as nginx prints it: 192.0.2.1:25, [2001:db8::1]:25, unix:/path, or the group's name
	Connect                  int64
	FirstByte                int64
	Session                  int64
	BytesSent, BytesReceived int64
}

// Absent is the time of what did not happen.
const Absent = -1

// An End says how a session ended: who ended it ("client", "server", "us"), in
// which phase ("connect", "greeting", "relay"), and why ("closed", "timeout").
// Who is empty while it goes on.
type End struct {
	Who, Phase, Why string
}

// LimitStatus is what came of limit_conn.
type LimitStatus uint8

// The values of LimitStatus.
const (
	LimitNone LimitStatus = iota // no limit applied
	LimitPassed
	LimitRejected
	LimitRejectedDryRun
)

var limitStatus = [...]string{
	LimitPassed:         "PASSED",
	LimitRejected:       "REJECTED",
	LimitRejectedDryRun: "REJECTED_DRY_RUN",
}

// clock keeps the text of a second, since many sessions end in the same.
type clock struct {
	second  int64
	local   []byte // $time_local
	iso8601 []byte
}

func (c *clock) at(now int64) *clock {
	second := now / int64(time.Second)
	if second != c.second || c.local == nil {
		t := time.Unix(second, 0)
		c.second = second
		c.local = t.AppendFormat(c.local[:0], "02/Jan/2006:15:04:05 -0700")
		c.iso8601 = t.AppendFormat(c.iso8601[:0], "2006-01-02T15:04:05-07:00")
	}
	return c
}

// reset makes f that of a new session and keeps the memory.
func (f *Facts) reset() {
	clear(f.Attempts) // for the strings
	*f = Facts{Attempts: f.Attempts[:0], clock: f.clock}
}
