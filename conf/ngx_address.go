package conf

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// An ngxURL is an address as nginx reads it (ngx_parse_url), at one port or at
// several.
type ngxURL struct {
	portRange
	noPort bool
}

// errHostNotFound is the error of a host that no resolver could find. Whether
// other names are found is known only when they are looked up.
var errHostNotFound = errors.New("host not found")

// parseURL reads an address; the error is in nginx's words, which tell what is
// wrong, but not with what. Only an address to listen on may be a port alone,
// have a range of ports, or "*" as its host.
func parseURL(text string, listen bool) (u ngxURL, err error) {
	u.Text = text
	if len(text) >= 5 && strings.EqualFold(text[:5], "unix:") {
		u.Path = text[5:]
		switch {
		case u.Path == "":
			return u, errors.New("no path in the unix domain socket")
		case len(u.Path) > maxSocketPath:
			return u, errors.New("too long path in the unix domain socket")
		case u.Path[0] != '/' || printable(u.Path) != u.Path: // ours
			return u, errors.New("no absolute path in the unix domain socket")
		}
		u.Text, u.Path = "unix:"+u.Path, filepath.Clean(u.Path)
		return u, nil
	}
	host, port, hasPort := strings.Cut(text, ":")
	inner, brackets := strings.CutPrefix(text, "[")
	if brackets {
		var tail string
		var ok bool
		host, tail, ok = strings.Cut(inner, "]")
		port, hasPort = strings.CutPrefix(tail, ":")
		if !ok || !hasPort && tail != "" || strings.Contains(tail, "/") {
			return u, errors.New("invalid host")
		}
	} else if strings.ContainsAny(text, "/?") {
		return u, errors.New("invalid host")
	}
	if !hasPort && !brackets && listen && text != "" && strings.Trim(text, "0123456789-") == "" {
		host, port, hasPort = "*", text, true
	}
	if u.noPort = !hasPort && u.Path == ""; hasPort {
		if u.Port, u.last, err = parsePorts(port, listen); err != nil {
			return u, err
		}
	}
	switch {
	case host == "":
		return u, errors.New("no host")
	case host == "*" && listen:
		return u, nil
	}
	if brackets {
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.Is6() {
			return u, errors.New("invalid IPv6 address")
		}
		// So nginx has IPv4 addresses beside [::] with ipv6only=off. To connect to
		// one is to connect to the IPv4 address.
		if ip.Is4In6() {
			host = ip.Unmap().String()
			u.Text = net.JoinHostPort(host, port)
		}
	}
	if u.Host, err = parseHost(host); err != nil {
		u.Host = strings.ToLower(host)
		return u, errHostNotFound
	}
	return u, nil
}

func parsePorts(text string, listen bool) (first, last uint16, err error) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange || !listen {
		low, high = text, text
	}
	if first, err = parsePort(low); err == nil {
		last, err = parsePort(high)
	}
	switch {
	case err != nil:
		return 0, 0, errors.New("invalid port")
	case last < first:
		return 0, 0, errors.New("invalid port range")
	}
	return first, last, nil
}

// listenKey is what two listening addresses may not share.
type listenKey struct {
	host, path string
	port       uint16
}

// String formats k as nginx does in messages.
func (k listenKey) String() string {
	if k.path != "" {
		return "unix:" + k.path
	}
	return net.JoinHostPort(cmp.Or(k.host, "0.0.0.0"), strconv.Itoa(int(k.port)))
}

func keyOf(a Address) listenKey {
	k := listenKey{a.Host, a.Path, a.Port}
	if k.host == "0.0.0.0" {
		k.host = ""
	}
	return k
}
