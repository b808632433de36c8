package proxyproto

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var writers = []func(b []byte, src, dst netip.AddrPort) []byte{AppendV1, AppendV2}

// v2 makes a header of version 2 from its parts, right or wrong.
func v2(command, family byte, block ...[]byte) []byte {
	all := bytes.Join(block, nil)
	b := append([]byte(v2Signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(all)))
	return append(b, all...)
}

// tlv makes an extension.
func tlv(kind byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

func addrPorts(src, dst string) Header {
	return Header{Command: Proxy, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

var (
	block4 = []byte{192, 0, 2, 1, 198, 51, 100, 2, 220, 4, 0, 25}
	block6 = append(append(
		netip.MustParseAddr("2001:db8::1").AsSlice(),
		netip.MustParseAddr("2001:db8::2").AsSlice()...), 220, 4, 0, 25)
	mapped6 = append(append(
		netip.MustParseAddr("::ffff:192.0.2.1").AsSlice(),
		netip.MustParseAddr("2001:db8::2").AsSlice()...), 220, 4, 0, 25)
	blockUnix = append(append([]byte("/run/front"), make([]byte, 98)...), make([]byte, 108)...)

	want4 = addrPorts("192.0.2.1:56324", "198.51.100.2:25")
	want6 = addrPorts("[2001:db8::1]:56324", "[2001:db8::2]:25")
	local = Header{}

	// tlsValue has a flag, what came of verification, and extensions of its own.
	tlsValue = bytes.Join([][]byte{{1, 0, 0, 0, 19}, tlv(0x21, []byte("TLSv1.3")), tlv(0x22, []byte("Alice")), tlv(0x22, []byte("Bob"))}, nil)
)

// accepted are complete headers and what they say.
var accepted = []struct {
	name string
	b    []byte
	want Header
}{
	{"v1 TCP4", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"), want4},
	{"v1 TCP4, longest", []byte("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
		addrPorts("255.255.255.255:65535", "255.255.255.255:65535")},
	{"v1 TCP4, zeros", []byte("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), addrPorts("0.0.0.0:0", "0.0.0.0:0")},
	{"v1 TCP6", []byte("PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n"), want6},
	{"v1 TCP6, in full, upper case", []byte("PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0001 2001:0DB8:0:0:0:0:0:2 56324 25\r\n"), want6},
	{"v1 TCP6, mapped", []byte("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 56324 25\r\n"), want4},
	{"v1 TCP6, one of them mapped", []byte("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 25\r\n"),
		addrPorts("192.0.2.1:56324", "[2001:db8::2]:25")},
	{"v1 UNKNOWN", []byte("PROXY UNKNOWN\r\n"), local},
	{"v1 UNKNOWN, with addresses", []byte("PROXY UNKNOWN 192.0.2.1 198.51.100.2 56324 25\r\n"), local},
	{"v1 UNKNOWN, with anything", []byte("PROXY UNKNOWN \x00\r \xff\r\r\n"), local},
	{"v1 UNKNOWN, longest", []byte("PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n"), local},

	{"v2 TCP4", v2(v2Proxy, v2TCP4, block4), want4},
	{"v2 TCP6", v2(v2Proxy, v2TCP6, block6), want6},
	{"v2 TCP6, mapped", v2(v2Proxy, v2TCP6, mapped6), addrPorts("192.0.2.1:56324", "[2001:db8::2]:25")},
	{"v2 LOCAL", v2(v2Local, v2Unspec), local},
	{"v2 LOCAL, with addresses", v2(v2Local, v2TCP4, block4), local},
	{"v2 LOCAL, too short for its family", v2(v2Local, v2TCP6, block4), local},
	{"v2 LOCAL, of no family", v2(v2Local, 0xff, []byte("anything")), local},
	{"v2 LOCAL, longest", v2(v2Local, v2Unspec, make([]byte, v2MaxBlock)), local},
	{"v2 UNSPEC", v2(v2Proxy, v2Unspec), local},
	{"v2 UNSPEC, with anything", v2(v2Proxy, v2Unspec, []byte{1, 2, 3, 4}), local},
	{"v2 UDP4", v2(v2Proxy, v2UDP4, block4), local},
	{"v2 UDP6", v2(v2Proxy, v2UDP6, block6), local},
	{"v2 unix stream", v2(v2Proxy, v2UnixStream, blockUnix), local},
	{"v2 unix datagram", v2(v2Proxy, v2UnixDgram, blockUnix), local},
	{"v2 with extensions", v2(v2Proxy, v2TCP4, block4, tlv(0x02, []byte("mx.example.com")), tlv(0xea, []byte{1}), tlv(0x04, nil)), want4},
	{"v2 with one about TLS", v2(v2Proxy, v2TCP4, block4, tlv(0x05, []byte("id")), tlv(0x20, tlsValue), tlv(0x20, nil)), want4},
	{"v2 with one about TLS that ends early", v2(v2Proxy, v2TCP6, block6, tlv(0x20, tlsValue[:len(tlsValue)-1])), want6},
	{"v2 with an extension of 16 bit length", v2(v2Proxy, v2TCP6, block6, tlv(0x28, make([]byte, 2000))), want6},
	{"v2 unix with an extension", v2(v2Proxy, v2UnixStream, blockUnix, tlv(0x02, []byte("mx"))), local},
	{"v2 longest", v2(v2Proxy, v2TCP4, block4, tlv(0x04, make([]byte, v2MaxBlock-v2Len4-3))), want4},
}

// rejected are not headers, whatever follows.
var rejected = []struct {
	name string
	b    []byte
}{
	{"SMTP", []byte("EHLO client.example.com\r\n")},
	{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
	{"lower case", []byte("proxy TCP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"space before", []byte(" PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"no space", []byte("PROXYTCP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"tab", []byte("PROXY\tTCP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"two spaces, 1", []byte("PROXY  TCP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"two spaces, 2", []byte("PROXY TCP4  192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"two spaces, 3", []byte("PROXY TCP4 192.0.2.1  198.51.100.2 56324 25\r\n")},
	{"two spaces, 4", []byte("PROXY TCP4 192.0.2.1 198.51.100.2  56324 25\r\n")},
	{"two spaces, 5", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324  25\r\n")},
	{"space behind", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25 \r\n")},
	{"word behind", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25 x\r\n")},
	{"no protocol", []byte("PROXY \r\n")},
	{"bare", []byte("PROXY\r\n")},
	{"other protocol", []byte("PROXY UDP4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"lower case protocol", []byte("PROXY tcp4 192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"UNKNOWN and more", []byte("PROXY UNKNOWNX\r\n")},
	{"LF alone", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\n")},
	{"LF alone after UNKNOWN", []byte("PROXY UNKNOWN\n")},
	{"LF alone, CRLF later", []byte("PROXY UNKNOWN a\n b\r\n")},
	{"CR CR LF", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\r\n")},
	{"108 bytes", []byte("PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n")},
	{"no end", []byte("PROXY UNKNOWN " + strings.Repeat("f", 4096))},
	{"no addresses", []byte("PROXY TCP4\r\n")},
	{"no destination", []byte("PROXY TCP4 192.0.2.1\r\n")},
	{"no ports", []byte("PROXY TCP4 192.0.2.1 198.51.100.2\r\n")},
	{"one port", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n")},
	{"empty port", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 \r\n")},
	{"port too large", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n")},
	{"port of six digits", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 563241 25\r\n")},
	{"port with a leading zero", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 025\r\n")},
	{"port with a sign", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 +25\r\n")},
	{"hexadecimal port", []byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 0x19\r\n")},
	{"octet too large", []byte("PROXY TCP4 192.0.2.256 198.51.100.2 56324 25\r\n")},
	{"octet with a leading zero", []byte("PROXY TCP4 192.0.2.01 198.51.100.2 56324 25\r\n")},
	{"three octets", []byte("PROXY TCP4 192.0.2 198.51.100.2 56324 25\r\n")},
	{"five octets", []byte("PROXY TCP4 192.0.2.1.1 198.51.100.2 56324 25\r\n")},
	{"name", []byte("PROXY TCP4 localhost 198.51.100.2 56324 25\r\n")},
	{"IPv6 in TCP4", []byte("PROXY TCP4 2001:db8::1 198.51.100.2 56324 25\r\n")},
	{"mapped in TCP4", []byte("PROXY TCP4 ::ffff:192.0.2.1 198.51.100.2 56324 25\r\n")},
	{"IPv4 in TCP6", []byte("PROXY TCP6 192.0.2.1 2001:db8::2 56324 25\r\n")},
	{"zone", []byte("PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 25\r\n")},
	{"brackets", []byte("PROXY TCP6 [2001:db8::1] 2001:db8::2 56324 25\r\n")},
	{"two gaps", []byte("PROXY TCP6 2001::db8::1 2001:db8::2 56324 25\r\n")},
	{"seven groups", []byte("PROXY TCP6 1:2:3:4:5:6:7 2001:db8::2 56324 25\r\n")},
	{"nine groups", []byte("PROXY TCP6 1:2:3:4:5:6:7:8:9 2001:db8::2 56324 25\r\n")},
	{"five digits", []byte("PROXY TCP6 20010:db8::1 2001:db8::2 56324 25\r\n")},

	{"v2 version 1", v2(0x11, v2TCP4, block4)},
	{"v2 version 3", v2(0x31, v2TCP4, block4)},
	{"v2 other command", v2(0x22, v2TCP4, block4)},
	{"v2 other family", v2(v2Proxy, 0x41, blockUnix)},
	{"v2 other transport", v2(v2Proxy, 0x13, block4)},
	{"v2 IPv4 without transport", v2(v2Proxy, 0x10, block4)},
	{"v2 transport without family", v2(v2Proxy, 0x01, block4)},
	{"v2 TCP4 without addresses", v2(v2Proxy, v2TCP4)},
	{"v2 TCP4 too short", v2(v2Proxy, v2TCP4, block4[:11])},
	{"v2 UDP4 too short", v2(v2Proxy, v2UDP4, block4[:11])},
	{"v2 TCP6 too short", v2(v2Proxy, v2TCP6, block6[:35])},
	{"v2 unix too short", v2(v2Proxy, v2UnixStream, blockUnix[:215])},
	{"v2 too long", v2(v2Proxy, v2TCP4, block4, tlv(0x04, make([]byte, v2MaxBlock-v2Len4-2)))},
	{"v2 LOCAL too long", v2(v2Local, v2Unspec, make([]byte, v2MaxBlock+1))},
	{"v2 longest there can be", v2(v2Proxy, v2TCP4, block4, make([]byte, 65535-v2Len4))},
	{"v2 extension without length", v2(v2Proxy, v2TCP4, block4, []byte{0x02})},
	{"v2 extension with half a length", v2(v2Proxy, v2TCP4, block4, []byte{0x02, 0})},
	{"v2 extension too long", v2(v2Proxy, v2TCP4, block4, []byte{0x02, 0, 2, 'm'})},
	{"v2 extension far too long", v2(v2Proxy, v2TCP4, block4, []byte{0x02, 0xff, 0xff, 'm', 'x'})},
	{"v2 second extension too long", v2(v2Proxy, v2TCP6, block6, tlv(0x02, []byte("mx")), []byte{0x03, 0, 4, 0, 0, 0})},
	{"v2 signature broken", bytes.Replace(v2(v2Proxy, v2TCP4, block4), []byte("QUIT"), []byte("QUIP"), 1)},
}

// headers are all of them, as seeds.
func headers() [][]byte {
	var all [][]byte
	for _, c := range accepted {
		all = append(all, c.b)
	}
	for _, c := range rejected {
		all = append(all, c.b)
	}
	return all
}

func requireHeader(t *testing.T, want Header, b []byte) {
	t.Helper()
	h, n, state := Parse(b)
	require.Equal(t, Complete, state, "%q", b)
	require.Equal(t, len(b), n, "%q", b)
	require.Equal(t, want, h, "%q", b)
}

// requireSplitInvariance holds of any bytes that it does not matter in which
// pieces they come: every beginning is More, until one is decided, and the same
// is said of all longer ones; More never asks for a byte too many, and never
// for more than a header may have.
func requireSplitInvariance(t *testing.T, b []byte) {
	t.Helper()
	all, allN, allState := Parse(b)
	asked := 0
	for i := 0; i <= len(b); i++ {
		h, n, state := Parse(b[:i:i])
		switch {
		case state == More && h == Header{} && i < n && n <= MaxLen:
			asked = n
		case state != More && h == all && n == allN && state == allState && asked <= i:
		default:
			t.Fatalf("%d bytes of %.120q: %v, %d, %d; %d were asked for; of all: %v, %d, %d",
				i, b, h, n, state, asked, all, allN, allState)
		}
	}
}

// TestAccepted: T25 and T26, what must be understood, split at every byte, and
// with whatever behind it left alone: mail, or a second header.
//
// Fails if parseV2 decides before the block is complete, if it looks into a
// LOCAL block, if Unmap is left out, or if walking the extensions goes wrong.
func TestAccepted(t *testing.T) {
	t.Parallel()
	for _, c := range accepted {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			requireHeader(t, c.want, c.b)
			requireSplitInvariance(t, c.b)
			for _, behind := range []string{"E", "EHLO client.example.com\r\n", "\r\n", "\n", string(c.b), "PROXY TCP4 203.0.113.9 203.0.113.9 1 1\r\n"} {
				b := append(bytes.Clone(c.b), behind...)
				h, n, state := Parse(b)
				require.Equal(t, Complete, state)
				require.Equal(t, len(c.b), n, "behind: %q", behind)
				require.Equal(t, c.want, h)
				requireSplitInvariance(t, b)
				require.Equal(t, string(c.b)+behind, string(b), "Parse wrote")
			}
		})
	}
}

// TestRejected: what must not be understood, and is not for longer than needed:
// not one byte before the last is waited for in vain.
//
// Fails if any check of parseLine, parseV2 or whole is left out; see TestOracle.
func TestRejected(t *testing.T) {
	t.Parallel()
	for _, c := range rejected {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, n, state := Parse(c.b)
			require.Equal(t, Malformed, state, "%q", c.b)
			require.Zero(t, n)
			require.Equal(t, Header{}, h)
			requireSplitInvariance(t, c.b[:min(len(c.b), MaxLen+1)])
		})
	}
}

// TestEarly: what shows early is not waited for, so a peer that does not speak
// the protocol is found by its first bytes.
//
// Fails if parseV2 waits for its 16 bytes, or for a block that is too long.
func TestEarly(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		_, n, state := Parse([]byte{byte(b)})
		if b == 'P' || b == '\r' {
			require.Equal(t, More, state, "%q", b)
			require.Equal(t, 2, n)
		} else {
			require.Equal(t, Malformed, state, "%q", b)
		}
	}
	for _, c := range []struct {
		b    string
		want State
	}{
		{"", More},
		{"PROXZ", Malformed},
		{"PROXY\r", Malformed},
		{"\r\n\r\n\x00\r\nQUIU", Malformed},
		{v2Signature + "\x22", Malformed},
		{v2Signature + "\x21\x13", Malformed},
		{v2Signature + "\x20\x13", More},
		{v2Signature + "\x21\x11\x00", More},
		{v2Signature + "\x21\x11\x00\x0b", Malformed},
		{v2Signature + "\x21\x11\x10\x01", Malformed},
		{v2Signature + "\x20\x00\x10\x01", Malformed},
		{"PROXY " + strings.Repeat("x", 100), More},
		{"PROXY " + strings.Repeat("x", 101), Malformed},
	} {
		_, _, state := Parse([]byte(c.b))
		require.Equal(t, c.want, state, "%q", c.b)
	}
	_, n, _ := Parse([]byte(v2Signature + "\x20\x00\x10\x00"))
	require.Equal(t, MaxLen, n)
}

// TestAppend: golden headers, as they go to the wire.
//
// Fails if unify leaves a mapped address, or two families, as they are.
func TestAppend(t *testing.T) {
	t.Parallel()
	const (
		fixed4 = v2Signature + "\x21\x11\x00\x0c"
		fixed6 = v2Signature + "\x21\x21\x00\x24"
	)
	for _, c := range []struct{ name, src, dst, v1, v2 string }{
		{"v4", "192.0.2.1:56324", "198.51.100.2:25",
			"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n",
			fixed4 + "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x00\x19"},
		{"v6", "[2001:db8::1]:56324", "[2001:db8::2]:25",
			"PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n",
			fixed6 + string(block6)},
		{"v6 socket, v4 client", "[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:25",
			"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n",
			fixed4 + "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x00\x19"},
		{"v4 client of a v6 front", "192.0.2.1:56324", "[2001:db8::2]:25",
			"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 25\r\n",
			fixed6 + string(mapped6)},
		{"link-local", "[fe80::1%eth0]:1", "[fe80::2%eth0]:25",
			"PROXY TCP6 fe80::1 fe80::2 1 25\r\n",
			fixed6 + "\xfe\x80" + strings.Repeat("\x00", 13) + "\x01" +
				"\xfe\x80" + strings.Repeat("\x00", 13) + "\x02" + "\x00\x01\x00\x19"},
		{"neither", "", "", "PROXY UNKNOWN\r\n", v2Signature + "\x20\x00\x00\x00"},
		{"no client", "", "192.0.2.1:25", "PROXY UNKNOWN\r\n", v2Signature + "\x20\x00\x00\x00"},
		{"no local address", "192.0.2.1:56324", "", "PROXY UNKNOWN\r\n", v2Signature + "\x20\x00\x00\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var src, dst netip.AddrPort
			if c.src != "" {
				src = netip.MustParseAddrPort(c.src)
			}
			if c.dst != "" {
				dst = netip.MustParseAddrPort(c.dst)
			}
			require.Equal(t, "before"+c.v1, string(AppendV1([]byte("before"), src, dst)))
			require.Equal(t, "before"+c.v2, string(AppendV2([]byte("before"), src, dst)))
		})
	}
}

// TestNoAllocation: nothing is allocated, not even for the worst of input.
//
// Fails if addresses are parsed by netip.ParseAddr, or errors described.
func TestNoAllocation(t *testing.T) {
	for _, b := range headers() {
		require.Zero(t, testing.AllocsPerRun(10, func() { Parse(b) }), "%q", b)
	}
	buf := make([]byte, 0, v1MaxLen)
	for _, h := range []Header{want4, want6, local, addrPorts("192.0.2.1:1", "[2001:db8::2]:25"), addrPorts("[fe80::1%eth0]:1", "[fe80::2%eth0]:25")} {
		for _, appendHeader := range writers {
			require.Zero(t, testing.AllocsPerRun(10, func() { appendHeader(buf, h.Src, h.Dst) }), "%v", h)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range accepted {
		if strings.HasSuffix(c.name, "TCP4") || strings.HasSuffix(c.name, "TCP6") {
			b.Run(c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					Parse(c.b)
				}
			})
		}
	}
}
