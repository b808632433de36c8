package proxyproto

import (
	"bytes"
	"net/netip"
	"strconv"
)

const (
	v1Begin   = "PROXY "
	v1Unknown = "PROXY UNKNOWN\r\n"

	// v1MaxLen is the longest line, its CRLF included, that a receiver has to
	// expect (section 2.1): UNKNOWN with two addresses of 39 characters.
	v1MaxLen = 107
)

var space = []byte{' '}

// parseV1 parses b, which begins with v1Begin as far as it goes.
func parseV1(b []byte) (h Header, n int, state State) {
	line := b[:min(len(b), v1MaxLen)]
	end := bytes.IndexByte(line, '\n')
	if end < 0 && len(line) < v1MaxLen {
		return Header{}, len(b) + 1, More
	}
	if end < 0 || line[end-1] != '\r' {
		return Header{}, 0, Malformed
	}
	h, ok := parseLine(line[len(v1Begin) : end-1])
	if !ok {
		return Header{}, 0, Malformed
	}
	return h, end + 1, Complete
}

// parseLine parses what stands between v1Begin and CRLF: the protocol and, if
// that is known, addresses and ports, each behind exactly one space.
func parseLine(line []byte) (h Header, ok bool) {
	protocol, rest, _ := bytes.Cut(line, space)
	switch string(protocol) {
	case "TCP4", "TCP6":
	case "UNKNOWN":
		return Header{}, true // the rest of the line is to be ignored
	default:
		return Header{}, false
	}
	v6 := protocol[3] == '6'
	src, rest, _ := bytes.Cut(rest, space)
	dst, rest, _ := bytes.Cut(rest, space)
	srcPort, dstPort, _ := bytes.Cut(rest, space)

	from, ok1 := parseAddr(src, v6)
	to, ok2 := parseAddr(dst, v6)
	fromPort, ok3 := parsePort(srcPort)
	toPort, ok4 := parsePort(dstPort)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return Header{}, false
	}
	return Header{
		Command: Proxy,
		Src:     netip.AddrPortFrom(from.Unmap(), fromPort),
		Dst:     netip.AddrPortFrom(to.Unmap(), toPort),
	}, true
}

// AppendV1 appends a header of version 1 to b. If src or dst is not valid, as
// for a client on a unix socket, it says UNKNOWN, which not every server takes:
// Postfix does not. The specification advises a prober to name the two ends of
// its own connection instead.
func AppendV1(b []byte, src, dst netip.AddrPort) []byte {
	from, to, ok := unify(src.Addr(), dst.Addr())
	if !ok {
		return append(b, v1Unknown...)
	}
	if from.Is4() {
		b = append(b, v1Begin+"TCP4 "...)
	} else {
		b = append(b, v1Begin+"TCP6 "...)
	}
	b = append(from.AppendTo(b), ' ')
	b = append(to.AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(src.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(dst.Port()), 10)
	return append(b, "\r\n"...)
}
