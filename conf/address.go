package conf

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// maxSocketPath is what sockaddr_un holds beside its final zero.
const maxSocketPath = 107

// parseAddress reads the address of a server: "host:port", "[v6]:port" or
// "unix:/path".
func parseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		return parseSocket(text, path)
	}
	host, port, err := cutPort(text)
	if err != nil {
		return Address{}, err
	}
	if host == "*" {
		return Address{}, errors.New(`"*" is an address to listen on, not one to connect to`)
	}
	a := Address{Text: text}
	if a.Host, err = parseHost(host); err != nil {
		return Address{}, err
	}
	a.Port, err = parsePort(port)
	return a, err
}

// portRange is an address to listen on, at all ports from its own to last. A
// port alone is a range of one, and so is a unix socket, at port 0.
type portRange struct {
	Address
	last uint16
}

func (r portRange) size() int { return int(r.last-r.Port) + 1 }

// spread returns the addresses of the range.
func (r portRange) spread() []Address {
	all := make([]Address, r.size())
	for i := range all {
		all[i] = r.Address
		all[i].Port += uint16(i)
		if len(all) > 1 {
			all[i].Text = net.JoinHostPort(cmp.Or(r.Host, "*"), strconv.Itoa(int(all[i].Port)))
		}
	}
	return all
}

// parseListen reads an address to listen on: what parseAddress reads, a port
// alone, "*:port", and either with a range of ports, "first-last".
func parseListen(text string) (r portRange, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		r.Address, err = parseSocket(text, path)
		return r, err
	}
	r.Text = text
	host, ports := "*", text
	if strings.Trim(text, "0123456789-") != "" {
		if host, ports, err = cutPort(text); err != nil {
			return r, err
		}
	}
	if host != "*" {
		if r.Host, err = parseHost(host); err != nil {
			return r, err
		}
	}
	first, last := ports, ports
	if low, high, ok := strings.Cut(ports, "-"); ok && low != "" && high != "" {
		first, last = low, high
	}
	if r.Port, err = parsePort(first); err != nil {
		return r, err
	}
	if r.last, err = parsePort(last); err != nil {
		return r, err
	}
	if r.last < r.Port {
		return r, fmt.Errorf("port range %s runs backwards", ports)
	}
	return r, nil
}

// parseBind reads a source address: an IP address with or without a port, a text
// that becomes one, or the client's own, which is seldom one of this host and so
// is transparent.
func parseBind(text string) (Bind, error) {
	switch {
	case text == "client" || text == "client:port":
		return Bind{ClientPort: text != "client", Transparent: true}, nil
	case strings.HasSuffix(text, " transparent"):
		return Bind{}, errors.New(`of nginx's forms, "$remote_addr transparent" is "client" here, "$remote_addr:$remote_port transparent" is "client:port", ` +
			`and "10.0.0.1 transparent" is { address = "10.0.0.1", transparent = true }`)
	case strings.Contains(text, "$"):
		return Bind{Text: text}, nil
	}
	var b Bind
	host := text
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if _, err := netip.ParseAddr(text); err != nil && strings.Contains(text, ":") {
		var port string
		if host, port, err = cutPort(text); err != nil {
			return b, err
		}
		if b.Port, err = parsePort(port); err != nil {
			return b, err
		}
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return b, errors.New(`want an IP address with or without a port, a text with variables, "client", "client:port" or "off"`)
	}
	var err error
	b.Host, err = parseHost(host)
	return b, err
}

// settle makes a text that is nothing but the client's address what says so
// without being evaluated. It can only be bound on other hosts than the client's
// if it is transparent.
func (b *Bind) settle() {
	if b.Transparent && (b.Text == "$remote_addr" || b.Text == "$remote_addr:$remote_port") {
		b.Text, b.ClientPort = "", b.Text != "$remote_addr"
	}
}

// ofClient reports whether servers see the address of each client.
func (b *Bind) ofClient() bool {
	return b != nil && b.Host == "" && (b.Text == "" || strings.HasPrefix(b.Text, "$remote_addr"))
}

func parseSocket(text, path string) (Address, error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return Address{}, errors.New(`want an absolute path, as in "unix:/run/smtp.sock"`)
	case strings.ContainsFunc(path, unicode.IsControl):
		return Address{}, errors.New("want a path without control characters")
	case len(path) > maxSocketPath:
		return Address{}, fmt.Errorf("path is %d bytes long; a unix socket's has at most %d", len(path), maxSocketPath)
	}
	return Address{Text: text, Path: filepath.Clean(path)}, nil
}

// cutPort parts "host:port" and "[v6]:port"; neither part is checked.
func cutPort(text string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, port, ok = strings.Cut(inner, "]:")
		if !ok {
			return "", "", errors.New(`port missing; want "[address]:port"`)
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", "", fmt.Errorf("no IPv6 address between the brackets: %q", host)
		}
		return host, port, nil
	}
	host, port, ok := strings.Cut(text, ":")
	switch {
	case !ok:
		return "", "", errors.New(`port missing; want "host:port"`)
	case strings.Contains(port, ":"):
		return "", "", errors.New(`an IPv6 address needs brackets, as in "[::1]:25"`)
	}
	return host, port, nil
}

// parseHost checks an IP address or a host name and returns it in one
// spelling, so that equal hosts are equal strings.
func parseHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		switch {
		case ip.Zone() != "":
			return "", errors.New("IPv6 zones are not supported by this version")
		case ip.Is4In6():
			return "", fmt.Errorf("write the IPv4 address itself, %s", ip.Unmap())
		}
		return ip.String(), nil
	}
	if host == "" {
		return "", errors.New("host missing before the port")
	}
	if len(host) > 253 {
		return "", errors.New("host name is longer than 253 bytes")
	}
	// A dot at the end is kept: it tells the resolver to add no search domain.
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || !allNameBytes(label) {
			return "", fmt.Errorf("bad host name %q", host)
		}
	}
	// A name whose last label is a number can only be a mistyped address
	// (RFC 1123 section 2.1).
	if _, rest := leading(labels[len(labels)-1], isDigit); rest == "" {
		return "", fmt.Errorf("bad IPv4 address %q", host)
	}
	return strings.ToLower(host), nil
}

// allNameBytes tells whether s is letters, digits, hyphens and the underscores
// that container networks put into names.
func allNameBytes(s string) bool {
	_, rest := leading(s, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '_' })
	return rest == ""
}

func parsePort(text string) (uint16, error) {
	n, ok := atoi(text, 65535)
	if !ok || n == 0 {
		return 0, fmt.Errorf("bad port %q; want a number from 1 to 65535", text)
	}
	return uint16(n), nil
}
