package script

import (
	"fmt"
	"strconv"
	"strings"
)

// Extensions are those of a PROXY header of version 2 (TLVs), each with its type.
type Extensions interface {
	// Value returns what the first one of a type says.
	Value(kind byte) (value []byte, ok bool)
	// TLSValue is the same of those that the one about TLS (0x20) contains.
	TLSValue(kind byte) (value []byte, ok bool)
	// TLSVerify is what that one says of the client's certificate: 0 if it is good.
	TLSVerify() (result uint32, ok bool)
}

// extensionPrefix is what the variables begin with whose value is an extension.
const extensionPrefix = "proxy_protocol_tlv_"

// extensionTypes are the types that have names (ngx_proxy_protocol_tlv_entries).
var extensionTypes = map[string]byte{"alpn": 0x01, "authority": 0x02, "unique_id": 0x05, "ssl": 0x20, "netns": 0x30}

// tlsExtensionTypes are those behind "ssl_" (ngx_proxy_protocol_tlv_ssl_entries).
var tlsExtensionTypes = map[string]byte{"version": 0x21, "cn": 0x22, "cipher": 0x23, "sig_alg": 0x24, "key_alg": 0x25}

// extension returns the variable whose name ends so: the name of a type, or its
// number, as in 0xea (ngx_proxy_protocol_get_tlv). nginx finds out in the session
// that there is no such type.
func extension(name string) (builtin, error) {
	if name == "ssl_verify" {
		return builtin{get: tlsVerify, clean: true}, nil
	}
	types, find := extensionTypes, Extensions.Value
	text, within := strings.CutPrefix(name, "ssl_")
	if within {
		types, find = tlsExtensionTypes, Extensions.TLSValue
	}
	kind, ok := types[text]
	if digits, number := strings.CutPrefix(text, "0x"); number {
		n, err := strconv.ParseUint(digits, 16, 8)
		if err != nil {
			return builtin{}, fmt.Errorf("invalid PROXY protocol TLV %q", name)
		}
		kind, ok = byte(n), true
	}
	if !ok {
		return builtin{}, fmt.Errorf("unknown PROXY protocol TLV %q", name)
	}
	return builtin{get: func(b []byte, f *Facts) ([]byte, bool) {
		if f.Extensions == nil {
			return b, false
		}
		value, ok := find(f.Extensions, kind)
		return append(b, value...), ok
	}}, nil
}

func tlsVerify(b []byte, f *Facts) ([]byte, bool) {
	if f.Extensions == nil {
		return b, false
	}
	result, ok := f.Extensions.TLSVerify()
	if !ok {
		return b, false
	}
	return strconv.AppendUint(b, uint64(result), 10), true
}
