package proxyproto

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Extensions are those of a header that says whose connection it is, and a type is
// found where it stands first, if what stands before it is whole.
//
// Fails if those of LOCAL are taken, or of a client without a TCP address; if the
// last of a type is found, or the one about TLS is not looked into behind its first
// five bytes; or if a length is believed that reaches beyond the end.
func TestExtensions(t *testing.T) {
	t.Parallel()
	row := [][]byte{block4, tlv(0x05, []byte("id")), tlv(0x20, tlsValue), tlv(0xea, nil), tlv(0x05, []byte("second"))}
	of := Extensions(v2(v2Proxy, v2TCP4, row...))
	for kind, want := range map[byte]string{0x05: "id", 0x20: string(tlsValue), 0xea: ""} {
		value, ok := of.Value(kind)
		require.True(t, ok, kind)
		require.Equal(t, want, string(value))
	}
	for _, kind := range []byte{0x00, 0x21, 0x22, 0xff} {
		_, ok := of.Value(kind)
		require.False(t, ok, kind)
	}
	for kind, want := range map[byte]string{0x21: "TLSv1.3", 0x22: "Alice"} {
		value, ok := of.TLSValue(kind)
		require.True(t, ok, kind)
		require.Equal(t, want, string(value))
	}
	_, ok := of.TLSValue(0x05)
	require.False(t, ok)
	result, ok := of.TLSVerify()
	require.True(t, ok)
	require.EqualValues(t, 19, result)

	for _, header := range [][]byte{
		v2(v2Local, v2TCP4, row...),
		v2(v2Proxy, v2UDP4, row...),
		v2(v2Proxy, v2Unspec, row[1:]...),
		v2(v2Proxy, v2UnixStream, append([][]byte{blockUnix}, row[1:]...)...),
		v2(v2Proxy, v2TCP4, block4),
		[]byte("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"),
		[]byte("PROXY UNKNOWN\r\n"),
		nil,
	} {
		require.Empty(t, Extensions(header), "%q", header)
	}

	early := TLVs(tlv(0x20, tlsValue[:len(tlsValue)-1]))
	_, ok = early.TLSValue(0x21)
	require.True(t, ok, "before the fault")
	_, ok = early.TLSValue(0xff)
	require.False(t, ok)
	for n := range tlsFixed {
		short := TLVs(tlv(0x20, tlsValue[:n]))
		_, ok = short.TLSVerify()
		require.False(t, ok, n)
		_, ok = short.TLSValue(0x21)
		require.False(t, ok, n)
	}
	_, ok = TLVs{5, 0, 2, 'x'}.Value(5)
	require.False(t, ok)
	_, ok = TLVs{5, 0}.Value(5)
	require.False(t, ok)
}
