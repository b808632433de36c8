package script

import (
	"net/netip"
	"strconv"
)

// A getter appends the value of a variable. It returns false, and b as it was,
// if the variable is not set: nginx's not_found.
type getter func(b []byte, f *Facts) ([]byte, bool)

// A builtin is a variable whose value follows from the facts.
type builtin struct {
	get getter
	// clean says that no value needs escaping in a log.
	clean bool
	// ours says that nginx does not know the name, so a configuration made for
	// nginx may have given it to something else.
	ours bool
}

var builtins = map[string]builtin{
	"binary_remote_addr": {get: binaryRemoteAddr},
	"remote_addr":        always(func(b []byte, f *Facts) []byte { return appendAddr(b, f.Client) }),
	"remote_port":        always(func(b []byte, f *Facts) []byte { return appendPort(b, f.Client) }),
	"realip_remote_addr": always(func(b []byte, f *Facts) []byte { return appendAddr(b, f.Front) }),
	"realip_remote_port": always(func(b []byte, f *Facts) []byte { return appendPort(b, f.Front) }),
	"server_addr":        {get: serverAddr},
	"server_port":        always(func(b []byte, f *Facts) []byte { return appendPort(b, f.Server) }),
	"server_name":        {get: serverName},

	"proxy_protocol_addr":        inHeader(proxySource, appendAddr),
	"proxy_protocol_port":        inHeader(proxySource, appendPort),
	"proxy_protocol_server_addr": inHeader(proxyDestination, appendAddr),
	"proxy_protocol_server_port": inHeader(proxyDestination, appendPort),

	"bytes_sent":     always(func(b []byte, f *Facts) []byte { return strconv.AppendInt(b, f.BytesSent, 10) }),
	"bytes_received": always(func(b []byte, f *Facts) []byte { return strconv.AppendInt(b, f.BytesReceived, 10) }),
	"connection":     always(func(b []byte, f *Facts) []byte { return strconv.AppendUint(b, f.Connection, 10) }),
	"protocol":       always(func(b []byte, _ *Facts) []byte { return append(b, "TCP"...) }),
	"status":         always(func(b []byte, f *Facts) []byte { return appendPadded(b, int64(f.Status)) }),

	"session_time": always(func(b []byte, f *Facts) []byte { return appendSeconds(b, f.SessionTime) }),
	"msec":         always(func(b []byte, f *Facts) []byte { return appendSeconds(b, f.Now/1e6) }),
	"time_local":   always(func(b []byte, f *Facts) []byte { return append(b, f.clock.at(f.Now).local...) }),
	"time_iso8601": always(func(b []byte, f *Facts) []byte { return append(b, f.clock.at(f.Now).iso8601...) }),

	"upstream_addr":            {get: upstreamAddr},
	"upstream_bytes_sent":      perAttempt(func(b []byte, a *Attempt) []byte { return strconv.AppendInt(b, a.BytesSent, 10) }),
	"upstream_bytes_received":  perAttempt(func(b []byte, a *Attempt) []byte { return strconv.AppendInt(b, a.BytesReceived, 10) }),
	"upstream_connect_time":    perAttempt(func(b []byte, a *Attempt) []byte { return appendTime(b, a.Connect) }),
	"upstream_first_byte_time": perAttempt(func(b []byte, a *Attempt) []byte { return appendTime(b, a.FirstByte) }),
	"upstream_session_time":    perAttempt(func(b []byte, a *Attempt) []byte { return appendTime(b, a.Session) }),

	"limit_conn_status": {get: limitConnStatus, clean: true},

	"smtp_banner_code": {get: bannerCode, clean: true, ours: true},
	"smtp_banner_time": {get: bannerTime, clean: true, ours: true},
	"session_end":      {get: sessionEnd, ours: true},
}

// processVariables are those that do not change while the process runs.
func processVariables(p Process) map[string]string {
	return map[string]string{
		"hostname":      lower(p.Hostname), // as ngx_init_cycle keeps it
		"nginx_version": p.Version,
		"pid":           strconv.Itoa(p.PID),
	}
}

func binaryRemoteAddr(b []byte, f *Facts) ([]byte, bool) {
	switch a := f.Client.Addr(); {
	case a.Is4():
		ip := a.As4()
		return append(b, ip[:]...), true
	case a.Is6():
		ip := a.As16()
		return append(b, ip[:]...), true
	}
	return append(b, "unix:"...), true
}

func serverAddr(b []byte, f *Facts) ([]byte, bool) {
	b = appendAddr(b, f.Server)
	if !f.Server.IsValid() {
		b = append(b, f.ServerPath...)
	}
	return b, true
}

func serverName(b []byte, f *Facts) ([]byte, bool) { return append(b, f.ServerName...), true }

func proxySource(f *Facts) netip.AddrPort { return f.ProxySource }

func proxyDestination(f *Facts) netip.AddrPort { return f.ProxyDestination }

// inHeader is what appendOne appends of an address in the PROXY header.
func inHeader(of func(*Facts) netip.AddrPort, appendOne func([]byte, netip.AddrPort) []byte) builtin {
	return builtin{clean: true, get: func(b []byte, f *Facts) ([]byte, bool) {
		a := of(f)
		if !a.IsValid() {
			return b, false
		}
		return appendOne(b, a), true
	}}
}

// always is a variable that is set in every session.
func always(appendTo func([]byte, *Facts) []byte) builtin {
	return builtin{clean: true, get: func(b []byte, f *Facts) ([]byte, bool) { return appendTo(b, f), true }}
}

// perAttempt joins what is appended for each attempt as nginx does.
func perAttempt(one func([]byte, *Attempt) []byte) builtin {
	return builtin{clean: true, get: func(b []byte, f *Facts) ([]byte, bool) {
		for i := range f.Attempts {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = one(b, &f.Attempts[i])
		}
		return b, len(f.Attempts) > 0
	}}
}

// upstreamAddr is not clean: a path may contain anything.
var upstreamAddr = perAttempt(func(b []byte, a *Attempt) []byte { return append(b, a.Addr...) }).get

func limitConnStatus(b []byte, f *Facts) ([]byte, bool) {
	return append(b, limitStatus[f.LimitConn]...), f.LimitConn != LimitNone
}

func bannerCode(b []byte, f *Facts) ([]byte, bool) {
	if f.BannerCode == 0 {
		return b, false
	}
	return appendPadded(b, int64(f.BannerCode)), true
}

func bannerTime(b []byte, f *Facts) ([]byte, bool) {
	if f.BannerCode == 0 {
		return b, false
	}
	return appendSeconds(b, f.BannerTime), true
}

// sessionEnd is who/phase/why, such as server/greeting/timeout.
func sessionEnd(b []byte, f *Facts) ([]byte, bool) {
	if f.End.Who == "" {
		return b, false
	}
	b = append(append(b, f.End.Who...), '/')
	b = append(append(b, f.End.Phase...), '/')
	return append(b, f.End.Why...), true
}

// appendAddr appends an address without its port; a zero one is that of a unix
// socket without a name.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, "unix:"...)
	}
	return a.Addr().AppendTo(b)
}

// appendPort appends nothing for the port 0, as nginx.
func appendPort(b []byte, a netip.AddrPort) []byte {
	if a.Port() == 0 {
		return b
	}
	return strconv.AppendUint(b, uint64(a.Port()), 10)
}

// appendTime appends nginx's %T.%03M, or a dash for what did not happen.
func appendTime(b []byte, ms int64) []byte {
	if ms == Absent {
		return append(b, '-')
	}
	return appendSeconds(b, ms)
}

func appendSeconds(b []byte, ms int64) []byte {
	ms = max(ms, 0)
	b = strconv.AppendInt(b, ms/1000, 10)
	return appendPadded(append(b, '.'), ms%1000)
}

// appendPadded appends at least three digits.
func appendPadded(b []byte, n int64) []byte {
	if n < 100 {
		b = append(b, '0')
	}
	if n < 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, n, 10)
}
