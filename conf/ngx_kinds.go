package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"smtplb/conf/nginx"
)

// The kinds of values that directives of an nginx.conf have. Each takes a
// directive and returns what its argument stands for, or nginx's error. Bounds
// that are ours are the same as in TOML.

// errValue is the error of nginx's slots: `"proxy_timeout" directive invalid value`.
func errValue(d nginx.Directive, what string) error {
	return fmt.Errorf(`"%s" directive invalid %s`, d.Name, what)
}

// invalidParameter is the error of a word that a directive does not know.
func invalidParameter(word string) error { return fmt.Errorf(`invalid parameter "%s"`, word) }

func ngxFlag(d nginx.Directive) (bool, error) {
	switch strings.ToLower(d.Args[0]) {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf(`invalid value "%s" in "%s" directive, it must be "on" or "off"`, d.Args[0], d.Name)
}

// ngxOff is a flag of something that cannot be turned on.
func ngxOff(r *ngxReader, b *ngxBlock, d nginx.Directive) error {
	if len(d.Args) == 1 && d.Args[0] == "off" {
		return nil
	}
	return unsupported("")(r, b, d)
}

func ngxNumber[N int | uint64](least, most N) func(nginx.Directive) (N, error) {
	return func(d nginx.Directive) (N, error) {
		n, ok := atoi(d.Args[0], uint64(most))
		if !ok || N(n) < least {
			return 0, errValue(d, "number")
		}
		return N(n), nil
	}
}

// ngxProcesses is a number of event loops, where 0 is one for each processor.
func ngxProcesses(d nginx.Directive) (int, error) {
	if d.Args[0] == "auto" {
		return 0, nil
	}
	n, ok := atoi(d.Args[0], 1024)
	if !ok || n == 0 {
		return 0, errValue(d, "value")
	}
	return int(n), nil
}

func ngxMsec(least time.Duration) func(nginx.Directive) (time.Duration, error) {
	return func(d nginx.Directive) (time.Duration, error) {
		t, err := parseTime(d.Args[0], millis)
		if err != nil || t < least {
			return 0, errValue(d, "value")
		}
		return t, nil
	}
}

// ngxBuffer is a size of a buffer. Ours has bounds that nginx's has not; what
// lies beyond is brought inside, since it is a matter of speed only.
func ngxBuffer(d nginx.Directive) (int, error) {
	n, err := parseSize(d.Args[0])
	if err != nil {
		return 0, errValue(d, "value")
	}
	return int(min(max(n, minBuffer), maxBuffer)), nil
}

// ngxSocketBuffer is a size of a socket's buffer; 0 leaves it to the kernel.
func ngxSocketBuffer(d nginx.Directive) (int, error) {
	n, err := parseSize(d.Args[0])
	if err != nil {
		return 0, errValue(d, "value")
	}
	return int(min(n, maxSocketBuffer)), nil
}

func ngxRate(d nginx.Directive) (Rate, error) {
	if strings.Contains(d.Args[0], "$") {
		return Rate{Text: &Text{place(d), d.Args[0]}}, ngxTexts(d.Args[0])
	}
	n, err := parseSize(d.Args[0])
	if err != nil || n > maxRate {
		return Rate{}, errValue(d, "value")
	}
	return Rate{Bytes: int(n)}, nil
}

// ngxKeepalive is on, with the kernel's times, off, or as in so_keepalive.
func ngxKeepalive(d nginx.Directive) (Keepalive, error) {
	if k, err := parseKeepalive(d.Args[0]); err == nil && strings.Contains(d.Args[0], ":") {
		return k, nil
	}
	on, err := ngxFlag(d)
	return Keepalive{On: on}, err
}

// ngxOneOf is one of a few words, in any case (ngx_conf_set_enum_slot).
func ngxOneOf(words ...string) func(nginx.Directive) (string, error) {
	return func(d nginx.Directive) (string, error) {
		word := strings.ToLower(d.Args[0])
		if !slices.Contains(words, word) {
			return "", fmt.Errorf(`invalid value "%s"`, d.Args[0])
		}
		return word, nil
	}
}

// ngxText is what kind takes in TOML.
func ngxText(kind func(*node) (string, error)) func(nginx.Directive) (string, error) {
	return func(d nginx.Directive) (string, error) {
		s, err := kind(literal(d.Name, d.Args[0]))
		if err != nil {
			return "", fmt.Errorf(`"%s" directive: %w`, d.Name, err)
		}
		return s, nil
	}
}

// ngxProxyProtocol is the header that servers get; nginx's "on" is version 1.
func ngxProxyProtocol(d nginx.Directive) (string, error) {
	if d.Args[0] == "v1" || d.Args[0] == "v2" {
		return d.Args[0], nil
	}
	on, err := ngxFlag(d)
	if err != nil || !on {
		return "off", err
	}
	return "v1", nil
}

// bind reads "address[:port] [transparent]", where the address may be a text with
// variables.
func (r *ngxReader) bind(block *ngxBlock, d nginx.Directive) error {
	text := d.Args[0]
	if len(d.Args) == 1 && text == "off" {
		block.set(func(s *ngxServer) { s.Bind = nil })
		return nil
	}
	b, err := parseBind(text)
	if err != nil || b.Host+b.Text == "" {
		return fmt.Errorf(`invalid address "%s"`, text)
	}
	if _, err := ngxWord(d); err != nil {
		return err
	}
	if len(d.Args) == 2 {
		if d.Args[1] != "transparent" {
			return invalidParameter(d.Args[1])
		}
		b.Transparent = true
	}
	b.Position = place(d)
	b.settle()
	if b.ofClient() && !b.Transparent {
		r.warn(b.Position, `"%s" in "proxy_bind" without "transparent": only the addresses of clients on this host can be bound`, text)
	}
	block.set(func(s *ngxServer) { s.Bind = &b })
	return nil
}

// A looseNetwork is an address or network as nginx takes it.
type looseNetwork struct {
	netip.Prefix
	loose bool // address bits behind the mask were set, and are dropped
}

// parseNetwork reads "192.0.2.1", "192.0.2.0/24" or the same of IPv6, as
// ngx_ptocidr does.
func parseNetwork(text string) (n looseNetwork, err error) {
	host, mask, masked := strings.Cut(text, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return n, errors.New("no address")
	}
	bits := a.BitLen()
	if masked {
		m, err := strconv.ParseUint(mask, 10, 8)
		if err != nil || int(m) > bits {
			return n, errors.New("no network")
		}
		bits = int(m)
	}
	p := netip.PrefixFrom(a, bits)
	// Clients come with their IPv4 addresses, however they came.
	if a.Is4In6() && bits >= 96 {
		p = netip.PrefixFrom(a.Unmap(), bits-96)
	}
	return looseNetwork{p.Masked(), p != p.Masked()}, nil
}

// network reads the argument of d, and says if part of it is meaningless.
func (r *ngxReader) network(d nginx.Directive) (looseNetwork, error) {
	n, err := parseNetwork(d.Args[0])
	if err == nil && n.loose {
		r.warn(place(d), "low address bits of %s are meaningless", d.Args[0])
	}
	return n, err
}

func (r *ngxReader) realIPFrom(b *ngxBlock, d nginx.Directive) error {
	if d.Args[0] == "unix:" {
		return errors.New(`"unix:" in "set_real_ip_from" is not supported by this version`)
	}
	n, err := r.network(d)
	if err != nil {
		return fmt.Errorf(`host not found in set_real_ip_from "%s"`, d.Args[0])
	}
	b.realIP = append(b.realIP, n.Prefix)
	return nil
}

// access reads allow and deny.
func (r *ngxReader) access(b *ngxBlock, d nginx.Directive) error {
	rule := AccessRule{Deny: d.Name == "deny"}
	switch d.Args[0] {
	case "all":
		rule.All = true
	case "unix:":
		rule.Unix = true
	default:
		n, err := r.network(d)
		if err != nil {
			return invalidParameter(d.Args[0])
		}
		rule.Prefix = n.Prefix
	}
	b.access = append(b.access, rule)
	return nil
}
