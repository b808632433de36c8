package stream

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"smtplb/internal/smtp"
	"smtplb/upstream"
)

// pass takes the session to where Route.Pass says: to the route of the group of
// that name, or to the address, which is then a group that only this session has.
// It reports whether there is either; other names are for a resolver. See
// ngx_stream_proxy_eval and ngx_stream_proxy_handler.
func (w *worker) pass(s *session) bool {
	r := s.route
	s.group = nil
	w.text = r.Pass.Append(w.text[:0], w.variables(s))
	w.line = appendLower(w.line[:0], w.text)
	if to := r.Groups[string(w.line)]; to != nil {
		s.route, s.group = to, to.Group
		return true
	}
	addr, err := parseTarget(string(w.text))
	if err != nil {
		w.complain(s, err.Error())
		return false
	}
	s.group = upstream.Lone(addr)
	return true
}

// parseTarget reads "10.0.0.1:25", "[2001:db8::1]:25" or "unix:/path", as
// ngx_parse_url does. The errors are nginx's, fit for the log, but that of a
// relative path, which would depend on where the process is.
func parseTarget(text string) (addr upstream.Addr, err error) {
	wrong := func(what string) (upstream.Addr, error) {
		return upstream.Addr{}, errors.New(what + ` in upstream "` + smtp.Printable([]byte(text), smtp.LogLimit) + `"`)
	}
	if len(text) >= 5 && strings.EqualFold(text[:5], "unix:") {
		switch path := text[5:]; {
		case path == "":
			return wrong("no path in the unix domain socket")
		case len(path) >= len(unix.RawSockaddrUnix{}.Path):
			return wrong("too long path in the unix domain socket")
		case path[0] != '/':
			return wrong("no absolute path in the unix domain socket")
		default:
			return upstream.Addr{Path: path}, nil
		}
	}
	host, port, hasPort := strings.Cut(text, ":")
	inner, brackets := strings.CutPrefix(text, "[")
	if brackets {
		var closed bool
		host, port, closed = strings.Cut(inner, "]")
		if port, hasPort = strings.CutPrefix(port, ":"); !closed || !hasPort && port != "" {
			return wrong("invalid host")
		}
	} else if strings.ContainsAny(text, "/?") {
		return wrong("invalid host")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	ip, noIP := netip.ParseAddr(host)
	switch {
	case hasPort && (err != nil || n == 0):
		return wrong("invalid port")
	case host == "":
		return wrong("no host")
	case brackets && (noIP != nil || !ip.Is6() || ip.Zone() != ""):
		return wrong("invalid IPv6 address")
	case !hasPort:
		return wrong("no port")
	case noIP != nil || ip == noAddress:
		return addr, errors.New("no resolver defined to resolve " + smtp.Printable([]byte(host), smtp.LogLimit))
	}
	return upstream.Addr{TCP: netip.AddrPortFrom(ip, uint16(n))}, nil
}

// noAddress is what inet_addr returns for a name, and so one to nginx.
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// appendLower appends text in lower case, as ngx_strncasecmp sees it.
func appendLower(b, text []byte) []byte {
	for _, c := range text {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}
