package proxyproto

import (
	"encoding/binary"
	"net/netip"
)

const (
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"

	// v2Fixed is the length of what comes before the addresses: signature,
	// version and command, family, and the length of the block that follows.
	v2Fixed = 16
	// v2MaxBlock bounds that block, addresses and extensions. The specification
	// allows 64 KiB; what is in use, certificates included, stays below 4.
	v2MaxBlock = 4 << 10

	v2Local = 0x20 // version 2 in the upper half
	v2Proxy = 0x21

	v2Unspec     = 0x00 // address family in the upper half, transport in the lower
	v2TCP4       = 0x11
	v2UDP4       = 0x12
	v2TCP6       = 0x21
	v2UDP6       = 0x22
	v2UnixStream = 0x31
	v2UnixDgram  = 0x32

	v2Len4    = 2*4 + 2*2
	v2Len6    = 2*16 + 2*2
	v2LenUnix = 2 * 108
)

// parseV2 parses b, which begins with v2Signature as far as it goes.
func parseV2(b []byte) (h Header, n int, state State) {
	if len(b) > 12 && b[12] != v2Local && b[12] != v2Proxy {
		return Header{}, 0, Malformed
	}
	if len(b) > 13 && b[12] == v2Proxy && addressesLen(b[13]) < 0 {
		return Header{}, 0, Malformed
	}
	if len(b) < v2Fixed {
		return Header{}, len(b) + 1, More
	}
	command, family := b[12], b[13]
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length > v2MaxBlock || command == v2Proxy && length < addressesLen(family) {
		return Header{}, 0, Malformed
	}
	n = v2Fixed + length
	if len(b) < n {
		return Header{}, n, More
	}
	// Of a LOCAL header everything else is ignored, the family included.
	if command == v2Local {
		return Header{}, n, Complete
	}
	h, ok := parseBlock(family, b[v2Fixed:n])
	if !ok {
		return Header{}, 0, Malformed
	}
	return h, n, Complete
}

// addressesLen is how long the addresses of a family are, negative if there is
// no such family, which a receiver must reject.
func addressesLen(family byte) int {
	switch family {
	case v2Unspec:
		return 0
	case v2TCP4, v2UDP4:
		return v2Len4
	case v2TCP6, v2UDP6:
		return v2Len6
	case v2UnixStream, v2UnixDgram:
		return v2LenUnix
	}
	return -1
}

// parseBlock parses the addresses and extensions of a PROXY header. On entry
// the block is long enough for the addresses.
func parseBlock(family byte, block []byte) (h Header, ok bool) {
	switch family {
	case v2Unspec:
		// Where its addresses end and extensions begin, nobody can tell.
		return Header{}, true
	case v2TCP4:
		h.Command = Proxy
		h.Src = addrPort(netip.AddrFrom4([4]byte(block)), block[8:])
		h.Dst = addrPort(netip.AddrFrom4([4]byte(block[4:])), block[10:])
	case v2TCP6:
		h.Command = Proxy
		h.Src = addrPort(netip.AddrFrom16([16]byte(block)), block[32:])
		h.Dst = addrPort(netip.AddrFrom16([16]byte(block[16:])), block[34:])
	}
	return h, TLVs(block[addressesLen(family):]).whole()
}

func addrPort(a netip.Addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// AppendV2 appends a header of version 2 to b. If src or dst is not valid, as
// for a client on a unix socket or for a probe, it says LOCAL, which every
// server must take.
func AppendV2(b []byte, src, dst netip.AddrPort) []byte {
	b = append(b, v2Signature...)
	from, to, ok := unify(src.Addr(), dst.Addr())
	switch {
	case !ok:
		return append(b, v2Local, v2Unspec, 0, 0)
	case from.Is4():
		b = append(b, v2Proxy, v2TCP4, 0, v2Len4)
	default:
		b = append(b, v2Proxy, v2TCP6, 0, v2Len6)
	}
	b = appendAddr(b, from)
	b = appendAddr(b, to)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		a4 := a.As4()
		return append(b, a4[:]...)
	}
	a16 := a.As16()
	return append(b, a16[:]...)
}
