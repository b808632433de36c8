package proxyproto

import "net/netip"

// MaxLen is the longest header that Parse accepts, in bytes: there is no need
// to peek at more.
const MaxLen = v2Fixed + v2MaxBlock

// Header is what a PROXY header says of the connection. The zero Header says
// nothing.
type Header struct {
	Command Command

	// Src is the client, Dst what it connected to: both valid after Proxy,
	// neither after Local. An IPv4 address is never in its IPv6 form, so that
	// a rule about it cannot be passed by in another spelling.
	Src, Dst netip.AddrPort
}

// Command tells whose connection it is.
type Command uint8

const (
	// Local means that the connection's own addresses are those of the client:
	// the sender speaks for itself, as in a health check, or for a client it
	// has no TCP address of. That is LOCAL in v2, and also UNKNOWN in v1, and
	// the families of v2 that are not TCP, for which the specification lets a
	// receiver fall back to the connection's own addresses.
	Local Command = iota
	// Proxy means that the sender speaks for the client at Src.
	Proxy
)

// State is how far Parse has come.
type State uint8

const (
	// More means that the bytes may be the beginning of a header.
	More State = iota
	// Malformed means that they are not, whatever follows them.
	Malformed
	// Complete means that they begin with a header.
	Complete
)

// Parse looks for a header at the beginning of b, which holds what has arrived
// on a connection so far.
//
// If Complete, n is the length of the header; b[n:] was not looked at. If More,
// n is the least length of b, more than it has and at most MaxLen, that can make
// a difference. If Malformed, n is 0.
func Parse(b []byte) (h Header, n int, state State) {
	switch {
	case begins(b, v2Signature):
		return parseV2(b)
	case begins(b, v1Begin):
		return parseV1(b)
	}
	return Header{}, 0, Malformed
}

// begins reports whether b begins with s, as far as it goes.
func begins(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

// unify brings two addresses to one family, for a header names only one: to
// IPv4 if both are, and otherwise to IPv6, an IPv4 address in its mapped form.
// ok is false if either address is missing. Zones are dropped: they mean
// nothing on another host.
func unify(src, dst netip.Addr) (s, d netip.Addr, ok bool) {
	if !src.IsValid() || !dst.IsValid() {
		return s, d, false
	}
	s, d = src.Unmap(), dst.Unmap()
	if !s.Is4() || !d.Is4() {
		s, d = netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16())
	}
	return s, d, true
}
