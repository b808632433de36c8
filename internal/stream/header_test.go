package stream

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/proxyproto"
)

// T26, whose word is taken for who a client is. The front of these tests is at
// frontAddr; what it says of a client is claimed, and what nobody may say is
// spoofed.
const (
	frontAddr = "127.0.77.1"
	elsewhere = "127.0.77.2"
	spoofed   = "198.51.100.66"
)

var (
	claimed   = netip.MustParseAddrPort("203.0.113.5:40000")
	claimedTo = netip.MustParseAddrPort("203.0.113.25:25")
)

func fronted(p *plan) {
	p.Fronts = []netip.Prefix{netip.MustParsePrefix(frontAddr + "/32"), netip.MustParsePrefix("2001:db8::/32")}
	p.HeaderTimeout = patience
}

// unintroduced gives fronts little time for a header that does not come.
func unintroduced(p *plan) { p.HeaderTimeout = 500 * time.Millisecond }

// frontedRig is a gated rig that takes headers from the front, with a good
// server that gets them.
func frontedRig(t *testing.T, options ...func(*plan)) (*rig, *witness) {
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, append([]func(*plan){gated, tell(HeaderV2), pregreet(PregreetHold), fronted}, options...)...)
	return g, w
}

func (g *rig) dialFrom(ip string) net.Conn {
	g.t.Helper()
	c, err := g.connectFrom(ip)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	return c
}

// served writes what the client's side sends, then waits for the greeting and
// quits. It returns what the server got.
func served(t *testing.T, g *rig, w *witness, c net.Conn, pieces ...string) string {
	t.Helper()
	for _, p := range pieces {
		_, err := io.WriteString(c, p)
		require.NoError(t, err)
		g.each(func(*session) {}) // the loop has had its turn
	}
	saw, _, err := readUntil(c, goodGreeting, false)
	require.NoError(t, err)
	require.Equal(t, goodGreeting, saw)
	_, err = io.WriteString(c, quit)
	require.NoError(t, err)
	_, err = io.ReadAll(c)
	require.NoError(t, err)
	c.Close()
	g.gone(patience)
	v := last(w.seen())
	<-v.ended
	return v.got()
}

// turnedAway wants a session's end without a byte and without a server.
func turnedAway(t *testing.T, g *rig, w *witness, c net.Conn) {
	t.Helper()
	saw, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Empty(t, string(saw))
	c.Close()
	g.gone(patience)
	require.Equal(t, "no PROXY header", g.accounts()[0].end)
	require.Empty(t, w.seen())
	nowhere(t, g)
}

// nowhere wants no word of the spoofed address in the log.
func nowhere(t *testing.T, g *rig) {
	t.Helper()
	for _, e := range g.logs.All() {
		for _, f := range e.ContextMap() {
			if s, ok := f.(string); ok {
				require.NotContains(t, s, spoofed)
			}
		}
	}
}

// goodHeaders are headers of the front and what the server is told for them;
// the front's own address if the header names nobody.
func goodHeaders() map[string]struct {
	header string
	own    bool
} {
	type h = struct {
		header string
		own    bool
	}
	v2 := func(command, family byte, block string) string {
		return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family, byte(len(block) >> 8), byte(len(block))}) + block
	}
	plain := string(proxyproto.AppendV2(nil, claimed, claimedTo))
	addresses := plain[16:]
	long := "\xe0\x01\x2c" + strings.Repeat("x", 300) // a length of 16 bits
	return map[string]h{
		"v1":               {string(proxyproto.AppendV1(nil, claimed, claimedTo)), false},
		"v1 UNKNOWN":       {"PROXY UNKNOWN\r\n", true},
		"v2":               {plain, false},
		"v2 with TLVs":     {v2(0x21, 0x11, addresses+"\x02\x00\x04evil"+long), false},
		"v2 LOCAL":         {v2(0x20, 0x00, ""), true},
		"v2 LOCAL, filled": {v2(0x20, 0x11, strings.Replace(addresses, "\xcb\x00\x71\x05", "\xc6\x33\x64\x42", 1)), true},
		"v2 UNSPEC":        {v2(0x21, 0x00, "whatever"), true},
	}
}

// A front's header, in whatever pieces it comes, says who the client is, and
// nothing of it but that goes on. It fails if readHeader takes more or less than
// the header from the socket, if a TLV is passed on, and if a LOCAL header's
// addresses are taken.
func TestFrontIsBelieved(t *testing.T) {
	t.Parallel()
	for name, h := range goodHeaders() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, w := frontedRig(t)
			for i := 0; i <= len(h.header); i += max(1, len(h.header)/64) {
				c := g.dialFrom(frontAddr)
				from, to := claimed, claimedTo
				if h.own {
					from, to = addrPort(c.LocalAddr()), netip.MustParseAddrPort(g.port.name)
				}
				got := served(t, g, w, c, h.header[:i], h.header[i:])
				require.Equal(t, string(proxyproto.AppendV2(nil, from, to))+quit, got, "split at %d", i)
				require.Equal(t, from.String(), g.accounts()[len(g.accounts())-1].client)
			}
			nowhere(t, g)
		})
	}
}

// Only the first header is the front's: what follows it is the client's, and a
// header among it, or before it from elsewhere, is the client's lie. It is
// relayed as what it is, words, and nobody believes it. It fails if fronted
// holds for everybody, and if a second header is looked for.
func TestSpoofedHeaderIsMereWords(t *testing.T) {
	t.Parallel()
	const lie = "PROXY TCP4 " + spoofed + " 203.0.113.25 1 25\r\n"
	own := string(proxyproto.AppendV1(nil, claimed, claimedTo))

	g, w := frontedRig(t)
	got := served(t, g, w, g.dialFrom(frontAddr), own+lie)
	require.Equal(t, string(proxyproto.AppendV2(nil, claimed, claimedTo))+lie+quit, got)
	require.Equal(t, claimed.String(), g.accounts()[0].client)
	nowhere(t, g)

	g, w = frontedRig(t)
	c := g.dialFrom(elsewhere)
	got = served(t, g, w, c, lie)
	require.Equal(t, headerOf(HeaderV2, addrPort(c.LocalAddr()), netip.MustParseAddrPort(g.port.name))+lie+quit, got)
	require.Equal(t, c.LocalAddr().String(), g.accounts()[0].client)
	nowhere(t, g)
}

// From a front no session begins without a header. It fails if a malformed or
// unfinished one is taken for words of the client, if a byte now and then
// keeps a session alive, and if the end of the stream does.
func TestFrontMustIntroduceItsClient(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]string{
		"words":            early,
		"other spacing":    "PROXY  TCP4 " + spoofed + " 203.0.113.25 1 25\r\n",
		"a bare LF":        "PROXY TCP4 " + spoofed + " 203.0.113.25 1 25\n",
		"a leading zero":   "PROXY TCP4 198.051.100.66 203.0.113.25 1 25\r\n",
		"no end":           "PROXY TCP4 " + strings.Repeat("1", 200),
		"another version":  "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c\xc6\x33\x64\x42\xcb\x00\x71\x19\x00\x01\x00\x19",
		"too short a v2":   "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04\xc6\x33\x64\x42",
		"a TLV too long":   "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc6\x33\x64\x42\xcb\x00\x71\x19\x00\x01\x00\x19\x01\x00\x09",
		"an enormous v2":   "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff",
		"half a v1":        "PROXY TCP4 " + spoofed,
		"half a signature": "\r\n\r\n\x00",
		"nothing":          "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, w := frontedRig(t, unintroduced)
			c := g.dialFrom(frontAddr)
			_, err := io.WriteString(c, say)
			require.NoError(t, err)
			turnedAway(t, g, w, c)
		})
	}
	t.Run("a byte now and then", func(t *testing.T) {
		t.Parallel()
		g, w := frontedRig(t, unintroduced)
		c := g.dialFrom(frontAddr)
		header := string(proxyproto.AppendV1(nil, netip.MustParseAddrPort(spoofed+":1"), claimedTo))
		go func() {
			for i := range header {
				if _, err := io.WriteString(c, header[i:i+1]); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		saw := make([]byte, 1)
		n, err := c.Read(saw)
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)
		turnedAway(t, g, w, c)
	})
	t.Run("the end of the stream", func(t *testing.T) {
		t.Parallel()
		g, w := frontedRig(t)
		c := g.dialFrom(frontAddr)
		_, err := io.WriteString(c, "PROXY TCP4 "+spoofed)
		require.NoError(t, err)
		require.NoError(t, c.(*net.TCPConn).CloseWrite())
		turnedAway(t, g, w, c)
	})
}

// extended is a header of version 2 for the claimed client, with extensions.
func extended(tlvs ...string) string {
	b := proxyproto.AppendV2(nil, claimed, claimedTo)
	all := strings.Join(tlvs, "")
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16+len(all)))
	return string(b) + all
}

// tlv is an extension.
func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

// Extensions of the latest header are there until the session is logged, however
// they came, and of no header before it; where nobody asks for them, none is kept.
//
// Fails if the record of one session has those of another, if those of a header
// stay although the next has none, or if they are kept by a scope that does not use
// them.
func TestExtensionsOfTheHeader(t *testing.T) {
	t.Parallel()
	const format = "$remote_addr $proxy_protocol_tlv_authority $proxy_protocol_tlv_ssl_verify $proxy_protocol_tlv_ssl_cn"
	certificate := tlv(0x20, "\x01\x00\x00\x00\x00"+tlv(0x22, "Al\"ice"))
	long := strings.Repeat("x", 3<<10) + ".example"
	line := func(says string) string { return claimed.Addr().String() + " " + says }

	b, w := newDiary(t), newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, fronted, b.keeps(format))
	for i, x := range []struct{ says, want string }{
		{extended(tlv(0x02, "mx.example"), certificate), line(`mx.example 0 Al\x22ice`)},
		{"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x04" + tlv(0x02, "x"), frontAddr + " - - -"}, // LOCAL
		{extended(), line("- - -")},
		{extended(tlv(0x02, long)), line(long + " - -")},
		{extended(tlv(0x02, "")), line(" - -")},
		{headerOf(HeaderV1, claimed, claimedTo), line("- - -")},
	} {
		for _, cut := range []int{0, 17, len(x.says) - 1} {
			c := g.dialFrom(frontAddr)
			served(t, g, w, c, x.says[:min(cut, len(x.says))], x.says[min(cut, len(x.says)):])
		}
		for _, got := range b.lines(3 * (i + 1))[3*i:] {
			require.Equal(t, x.want, got)
		}
	}

	// From port to port.
	trusting := g.port.restRoute()
	fronts := trusting.Fronts
	trusting.Fronts = []netip.Prefix{netip.PrefixFrom(claimed.Addr(), 32)}
	g.port.setRoute(&trusting)
	in := g.another("127.0.0.1:0", func(r *Route) {
		passing(g.port.socket.Addr(), g.port)(r)
		r.Fronts = fronts
	})
	for i, x := range []struct{ says, want string }{
		{extended(tlv(0x02, "first")) + extended(tlv(0x02, "second")), line("second - -")},
		{extended(tlv(0x02, "first")) + extended(), line("- - -")},
		{extended(tlv(0x02, "first")) + "PROXY UNKNOWN\r\n", line("first - -")},
	} {
		served(t, g, w, g.dialPort(in, frontAddr), x.says)
		require.Equal(t, x.want, b.lines(19 + i)[18+i])
	}

	unused := newDiary(t)
	g = newRig(t, []string{w.addr}, gated, fronted, unused.keeps("$remote_addr"))
	c := g.dialFrom(frontAddr)
	speak(c, extended(tlv(0x02, "mx.example")))
	greetingOf(t, c)
	g.each(func(s *session) { require.Empty(t, s.record.tlvs) })
}
