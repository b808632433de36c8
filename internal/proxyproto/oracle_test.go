package proxyproto

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	oracle "github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"
)

// requireAgreement compares Parse with the oracle. They differ by intention in
// three points: the oracle cannot wait, so what is More to us is an error to
// it; it rejects PROXY with the family UNSPEC, and LOCAL with a family that
// does not exist, of which the specification leaves us the first and demands
// the second; and it looks into extensions only when asked to.
func requireAgreement(t *testing.T, b []byte) {
	t.Helper()
	h, n, state := Parse(b)
	r := bufio.NewReaderSize(bytes.NewReader(b), len(b)+16)
	want, err := oracle.Read(r)
	if state == More {
		require.Error(t, err, "oracle has read, we wait: %q", b)
		return
	}
	var family byte
	if bytes.HasPrefix(b, []byte(v2Signature)) && len(b) > 13 {
		family = b[13]
	}
	if err != nil {
		if state == Complete {
			require.Equal(t, Header{}, h, "oracle: %v: %q", err, b)
			require.ErrorIs(t, err, oracle.ErrUnsupportedAddressFamilyAndProtocol, "%q", b)
			require.True(t, b[12] == v2Proxy && family == v2Unspec || b[12] == v2Local && addressesLen(family) < 0, "%q", b)
		}
		return
	}
	tlvs, err := want.TLVs()
	if err != nil && want.Command == oracle.PROXY {
		require.Equal(t, Malformed, state, "extensions: %v: %q", err, b)
		return
	}
	require.Equal(t, Complete, state, "%q", b)
	require.Equal(t, len(b)-r.Buffered(), n, "%q", b)
	require.Equal(t, ofOracle(want), h, "%q", b)
	if h.Command != Proxy {
		require.Empty(t, Extensions(b[:n]), "%q", b)
		return
	}
	requireValues(t, tlvs, Extensions(b[:n]).Value)
	if tls, ok := Extensions(b[:n]).Value(typeTLS); ok && len(tls) >= tlsFixed {
		tlvs, err := oracle.SplitTLVs(tls[tlsFixed:])
		if err == nil { // else ours finds what stands before the fault, as nginx
			requireValues(t, tlvs, Extensions(b[:n]).TLSValue)
		}
	}
}

// requireValues wants the first extension of each type to be found, and no other.
func requireValues(t *testing.T, tlvs []oracle.TLV, find func(byte) ([]byte, bool)) {
	t.Helper()
	first := make(map[oracle.PP2Type]bool)
	for _, tlv := range tlvs {
		if first[tlv.Type] {
			continue
		}
		first[tlv.Type] = true
		value, ok := find(byte(tlv.Type))
		require.True(t, ok, "%#x", tlv.Type)
		if tlv.Type != oracle.PP2_TYPE_NOOP { // whose value the oracle leaves out
			require.Equal(t, tlv.Value, value, "%#x", tlv.Type)
		}
	}
	for kind := range 256 {
		if !first[oracle.PP2Type(kind)] {
			_, ok := find(byte(kind))
			require.False(t, ok, "%#x", kind)
			break
		}
	}
}

// ofOracle is the oracle's header as ours.
func ofOracle(o *oracle.Header) Header {
	src, dst, ok := o.TCPAddrs()
	if !ok || o.Command != oracle.PROXY {
		return Header{}
	}
	return Header{Command: Proxy, Src: ofTCPAddr(src), Dst: ofTCPAddr(dst)}
}

func ofTCPAddr(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// mutate changes some bytes, cuts, doubles and swaps parts.
func mutate(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range rng.IntN(4) {
		i, j := rng.IntN(len(b)+1), rng.IntN(len(b)+1)
		i, j = min(i, j), max(i, j)
		switch rng.IntN(6) {
		case 0:
			b = b[:j]
		case 1:
			b = append(b[:i:i], b[j:]...)
		case 2:
			b = append(b[:j:j], b[i:]...)
		case 3:
			const likely = " .:\r\n0159afPTCUN\x00\x20\x21\x11\x04\xff"
			b = append(append(b[:i:i], likely[rng.IntN(len(likely))]), b[i:]...)
		default:
			if i < len(b) {
				b[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

// TestOracle compares the parser with the oracle: on all headers, on the short
// ones that are right with every single byte replaced by every other, and on
// random changes of more.
//
// Fails if parsePort allows a leading zero, if parseV1 takes 108 bytes or LF
// alone, if "TCP6" takes an IPv4 address, if an unknown family passes, if the
// length of a block is not checked, or if n counts a byte too many.
func TestOracle(t *testing.T) {
	t.Parallel()
	for _, c := range accepted {
		if len(c.b) > v1MaxLen {
			continue
		}
		for i := range c.b {
			changed := bytes.Clone(c.b)
			for v := range 256 {
				changed[i] = byte(v)
				requireAgreement(t, changed)
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, b := range headers() {
		requireAgreement(t, b)
		for range 20_000 / (len(b) + 64) {
			requireAgreement(t, mutate(rng, b))
		}
	}
}

// TestOracleAddresses compares our parsers of addresses with netip's.
//
// Fails if "::" may stand for nothing, may come twice or is put at the wrong
// place, if a dotted part may stand anywhere, or if a group may have five digits.
func TestOracleAddresses(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	parts := []string{"0", "1", "f", "ffff", "12345", "A0b1", "::", ":", ":", ":", ":", ":", "1:2", "1:2:3:4:5", ".", "1.2.3.4", "255", "256", "01", "g", "%e", " ", "-", ""}
	valid := 0
	for range 100_000 {
		var text []byte
		for range rng.IntN(12) {
			text = append(text, parts[rng.IntN(len(parts))]...)
		}
		want, err := netip.ParseAddr(string(text))
		ok4 := err == nil && want.Is4()
		ok6 := err == nil && want.Is6() && want.Zone() == ""
		got4, got4ok := parseAddr(text, false)
		got6, got6ok := parseAddr(text, true)
		require.Equal(t, ok4, got4ok, "%q", text)
		require.Equal(t, ok6, got6ok, "%q", text)
		if ok4 {
			require.Equal(t, want, got4, "%q", text)
		}
		if ok6 {
			require.Equal(t, want, got6, "%q", text)
			valid++
		}
	}
	require.Greater(t, valid, 300, "hardly an address among them")
}

// FuzzParse holds that any bytes are taken as the oracle takes them, in
// whatever pieces they come, and that what is behind a header makes no
// difference.
func FuzzParse(f *testing.F) {
	for _, b := range headers() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), MaxLen+1)]
		requireAgreement(t, b)
		requireSplitInvariance(t, b)
	})
}

// FuzzAppend holds that the oracle and Parse read the addresses that were
// written, and that Parse reads what the oracle writes.
func FuzzAppend(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, uint16(56324), []byte{198, 51, 100, 2}, uint16(25), "")
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), uint16(0), netip.MustParseAddr("fe80::1").AsSlice(), uint16(65535), "eth0")
	f.Add(netip.MustParseAddr("::ffff:192.0.2.1").AsSlice(), uint16(1), netip.MustParseAddr("2001:db8::2").AsSlice(), uint16(25), "")
	f.Add([]byte{}, uint16(0), []byte{192, 0, 2, 1}, uint16(25), "")
	f.Fuzz(func(t *testing.T, src []byte, srcPort uint16, dst []byte, dstPort uint16, zone string) {
		from, _ := netip.AddrFromSlice(src)
		to, _ := netip.AddrFromSlice(dst)
		if to.Is6() {
			to = to.WithZone(zone)
		}
		want := Header{Command: Proxy,
			Src: netip.AddrPortFrom(from.Unmap().WithZone(""), srcPort),
			Dst: netip.AddrPortFrom(to.Unmap().WithZone(""), dstPort)}
		if !from.IsValid() || !to.IsValid() {
			want = Header{}
		}
		for _, appendHeader := range writers {
			b := appendHeader(nil, netip.AddrPortFrom(from, srcPort), netip.AddrPortFrom(to, dstPort))
			requireHeader(t, want, b)
			requireAgreement(t, b)
			requireSplitInvariance(t, b)

			// The oracle writes a header with the same addresses to the same bytes.
			o, err := oracle.Read(bufio.NewReader(bytes.NewReader(b)))
			require.NoError(t, err, "%q", b)
			again, err := o.Format()
			require.NoError(t, err, "%q", b)
			require.Equal(t, b, again, "%q", b)
		}
	})
}
