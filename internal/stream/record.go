package stream

import (
	"net/netip"
	"time"

	"smtplb/internal/proxyproto"
	"smtplb/internal/script"
	"smtplb/upstream"
)

// record is what a session has beside its slot if its route has variables. It
// is borrowed from the worker until the session is accounted for.
type record struct {
	// vars is the session's own if something evaluated at its start may be
	// looked at later; see Route.keeps. Without, it is evaluated by the worker's.
	vars     *script.Session
	attempts []attempt // if the route has use for them
	claims   []*counter
	limited  script.LimitStatus
	source   netip.AddrPort // by Bind.Value; invalid: the kernel chooses
	passedTo netip.AddrPort // the address of pass that led here, of one interface; else invalid
	// tlvs are the extensions of the latest PROXY header, if the scope uses any.
	tlvs proxyproto.TLVs
}

// commonTLVs is how much memory for extensions a record may keep, in bytes.
const commonTLVs = 512

// attempt is what the access log says of one server. Times are in milliseconds
// since it began, and script.Absent if that did not happen.
type attempt struct {
	peer               *upstream.Peer // nil: none of the group could be tried
	began              int64          // ms
	connect, firstByte int32
	banner             int32 // since the connect
	code               int32 // of the greeting; 0: none
	session            int64
	sent, received     int64
}

// borrowRecord gives the session a record if its route needs one.
func (w *worker) borrowRecord(s *session) {
	if s.route.Scope == nil {
		return
	}
	if n := len(w.records); n > 0 {
		s.record, w.records = w.records[n-1], w.records[:n-1]
		return
	}
	s.record = new(record)
}

func (w *worker) returnRecord(s *session) {
	w.forget(s)
	r := s.record
	s.record = nil
	clear(r.attempts) // for the peers
	r.attempts = r.attempts[:0]
	if r.tlvs = r.tlvs[:0]; cap(r.tlvs) > commonTLVs {
		r.tlvs = nil
	}
	w.records = append(w.records, r)
}

// forget empties a session's record of what belongs to its port.
func (w *worker) forget(s *session) {
	r := s.record
	if r.vars != nil {
		r.vars.End()
		w.kept = append(w.kept, r.vars)
		r.vars = nil
	}
	r.limited, r.passedTo = script.LimitNone, netip.AddrPort{}
}

// keep gives the session a memory of its own for the values of variables.
func (w *worker) keep(s *session) {
	if n := len(w.kept); n > 0 {
		s.record.vars, w.kept = w.kept[n-1], w.kept[:n-1]
	} else {
		s.record.vars = new(script.Session)
	}
	s.record.vars.Begin(s.route.Scope)
}

// variables returns what values are evaluated by for a session with a record, as
// things stand now. It is the session's until the worker turns to another.
func (w *worker) variables(s *session) *script.Session {
	v := s.record.vars
	if v == nil {
		v = &w.vars
		v.Begin(s.route.Scope)
	}
	w.facts(s, &v.Facts)
	return v
}

// facts tells f all that is known of a session.
func (w *worker) facts(s *session, f *script.Facts) {
	f.Client, f.Front = withoutZone(s.from), withoutZone(s.from)
	if s.front.IsValid() {
		f.Front = withoutZone(s.front)
		f.ProxySource, f.ProxyDestination = withoutZone(s.from), withoutZone(s.local)
	}
	if len(s.record.tlvs) > 0 {
		f.Extensions = &s.record.tlvs
	}
	f.Server, f.ServerPath = w.ownEnd(s)
	f.ServerName = s.route.ServerName
	f.Connection = s.number

	f.Now = time.Now().UnixNano()
	f.SessionTime = w.loop.Now() - s.started
	f.BytesSent, f.BytesReceived = s.down.out, s.up.in
	if s.accounted {
		f.Status, f.End = s.status(), s.end()
	}

	r := s.record
	f.LimitConn = r.limited
	f.Attempts = f.Attempts[:0]
	for i := range r.attempts {
		a := &r.attempts[i]
		name := s.groupName()
		if a.peer != nil {
			name = a.peer.Name()
		}
		f.Attempts = append(f.Attempts, script.Attempt{
			Addr:    name,
			Connect: int64(a.connect), FirstByte: int64(a.firstByte), Session: a.session,
			BytesSent: a.sent, BytesReceived: a.received,
		})
		f.BannerCode, f.BannerTime = int(a.code), int64(a.banner)
	}
}

// ownEnd is the address of the client's connection on our side, or that by which
// a Pass has led to the port. Only where the listener has every address, the
// kernel is asked for it.
func (w *worker) ownEnd(s *session) (tcp netip.AddrPort, path string) {
	addr := s.port.socket.Addr()
	switch {
	case addr.Path != "":
		return netip.AddrPort{}, addr.Path
	case s.record.passedTo.IsValid():
		return withoutZone(s.record.passedTo), ""
	case addr.TCP.Addr().IsUnspecified():
		if local, ok := w.connectedTo(s); ok {
			return withoutZone(local), ""
		}
	}
	return withoutZone(addr.TCP), ""
}

func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// attempted begins the record of an attempt; without a peer, of one that could
// not be made.
func (w *worker) attempted(s *session, p *upstream.Peer) {
	if s.record == nil || !s.route.tells() {
		return
	}
	a := attempt{peer: p, began: w.loop.Now(), connect: script.Absent, firstByte: script.Absent, session: script.Absent}
	if p == nil {
		a.session = 0
	}
	s.record.attempts = append(s.record.attempts, a)
}

// tells reports whether something is evaluated that may say what came of attempts.
func (r *Route) tells() bool {
	return len(r.AccessLogs) > 0 || r.UploadRate.Value != nil || r.DownloadRate.Value != nil
}

// current returns the record of the latest attempt, if there is one.
func (s *session) current() *attempt {
	if s.record == nil || len(s.record.attempts) == 0 {
		return nil
	}
	return &s.record.attempts[len(s.record.attempts)-1]
}

// The following book what comes of the latest attempt, if it is recorded.

func (w *worker) bookConnect(s *session) {
	if a := s.current(); a != nil {
		a.connect = int32(w.loop.Now() - a.began)
	}
}

func (w *worker) bookFirstByte(s *session) {
	if a := s.current(); a != nil && a.firstByte == script.Absent {
		a.firstByte = int32(w.loop.Now() - a.began)
	}
}

func (w *worker) bookBanner(s *session, code int) {
	if a := s.current(); a != nil && code != 0 {
		a.code = int32(code)
		a.banner = int32(w.loop.Now()-a.began) - a.connect
	}
}

func (w *worker) bookHeader(s *session, n int) {
	if a := s.current(); a != nil {
		a.sent = int64(n)
	}
}

func (w *worker) bookEnd(s *session) {
	a := s.current()
	if a == nil {
		return
	}
	a.session = w.loop.Now() - a.began
	a.sent += s.up.out
	a.received = s.down.in
}
