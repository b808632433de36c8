package proxyproto

import "encoding/binary"

// TLVs are the extensions of a header, one after the other: each a byte of type,
// two of length and as many of value.
type TLVs []byte

// Types of extensions that contain more than a value.
const (
	typeTLS = 0x20

	// tlsFixed is what stands in it before extensions of its own: a byte of flags
	// and the result of verification.
	tlsFixed = 1 + 4
)

// Extensions returns those of a complete header that says Proxy, as a part of it.
// A header of version 1 has none.
func Extensions(header []byte) TLVs {
	if len(header) < v2Fixed || header[0] != v2Signature[0] || header[12] != v2Proxy {
		return nil
	}
	switch family := header[13]; family {
	case v2TCP4, v2TCP6:
		return header[v2Fixed+addressesLen(family):]
	}
	return nil
}

// Value returns the value of the first extension of a type, as a part of t.
func (t TLVs) Value(kind byte) (value []byte, ok bool) {
	for len(t) > 0 {
		first, value, rest, ok := t.cut()
		if !ok || first == kind {
			return value, ok
		}
		t = rest
	}
	return nil, false
}

// TLSValue is Value for the extensions that the one about TLS has of its own.
func (t TLVs) TLSValue(kind byte) (value []byte, ok bool) {
	tls, _ := t.Value(typeTLS)
	if len(tls) < tlsFixed {
		return nil, false
	}
	return TLVs(tls[tlsFixed:]).Value(kind)
}

// TLSVerify returns what the one about TLS says of the client's certificate: 0 if
// it is good.
func (t TLVs) TLSVerify() (result uint32, ok bool) {
	tls, _ := t.Value(typeTLS)
	if len(tls) < tlsFixed {
		return 0, false
	}
	return binary.BigEndian.Uint32(tls[1:]), true
}

// whole reports whether t is a row of extensions of which none reaches beyond the
// end. Those of a complete header are.
func (t TLVs) whole() bool {
	for len(t) > 0 {
		_, _, rest, ok := t.cut()
		if !ok {
			return false
		}
		t = rest
	}
	return true
}

// cut cuts the first extension off t, if all of it is there.
func (t TLVs) cut() (kind byte, value []byte, rest TLVs, ok bool) {
	if len(t) < 3 {
		return 0, nil, nil, false
	}
	n := 3 + int(binary.BigEndian.Uint16(t[1:]))
	if n > len(t) {
		return 0, nil, nil, false
	}
	return t[0], t[3:n], t[n:], true
}
