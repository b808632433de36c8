package stream

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"smtplb/upstream"
)

// meant is what a text with variables has become.
type meant struct {
	addr   upstream.Addr
	name   string // of a host that would have to be looked up; then there is no addr
	noPort bool
}

// parseAddress reads "10.0.0.1:25", "[2001:db8::1]:25" or "unix:/path", as
// ngx_parse_url does. What is wrong is said in nginx's words, but that of a relative
// path. It looks nothing up.
func parseAddress(text string) (a meant, wrong string) {
	if len(text) >= 5 && strings.EqualFold(text[:5], "unix:") {
		switch path := text[5:]; {
		case path == "":
			return a, "no path in the unix domain socket"
		case len(path) >= len(unix.RawSockaddrUnix{}.Path):
			return a, "too long path in the unix domain socket"
		case path[0] != '/':
			return a, "no absolute path in the unix domain socket"
		default:
			a.addr.Path = path
			return a, ""
		}
	}
	host, port, hasPort := strings.Cut(text, ":")
	inner, brackets := strings.CutPrefix(text, "[")
	if brackets {
		var closed bool
		host, port, closed = strings.Cut(inner, "]")
		if port, hasPort = strings.CutPrefix(port, ":"); !closed || !hasPort && port != "" {
			return a, "invalid host"
		}
	} else if strings.ContainsAny(text, "/?") {
		return a, "invalid host"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	ip, noIP := netip.ParseAddr(host)
	switch {
	case hasPort && (err != nil || n == 0):
		return a, "invalid port"
	case host == "":
		return a, "no host"
	case brackets && (noIP != nil || !ip.Is6() || ip.Zone() != ""):
		return a, "invalid IPv6 address"
	}
	if a.noPort = !hasPort; noIP != nil || ip == noAddress {
		a.name = host
	} else {
		a.addr.TCP = netip.AddrPortFrom(ip, uint16(n))
	}
	return a, ""
}

// noAddress is what inet_addr returns for a name, and so one to nginx.
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})
