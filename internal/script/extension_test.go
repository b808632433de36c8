package script

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// someExtensions are by type; those about TLS, and what came of verification.
type someExtensions struct {
	outer, tls map[byte]string
	verify     uint32
}

func (e *someExtensions) Value(kind byte) ([]byte, bool) {
	v, ok := e.outer[kind]
	return []byte(v), ok
}

func (e *someExtensions) TLSValue(kind byte) ([]byte, bool) {
	v, ok := e.tls[kind]
	return []byte(v), ok
}

func (e *someExtensions) TLSVerify() (uint32, bool) { return e.verify, e.tls != nil }

// Each name has its type, and any type its number, in any case; what a header does
// not have is not set.
//
// Fails if a name has another type, if ssl_ is not cut off, or is taken for the
// whole of ssl; if a value is not escaped; or if Build or Compile does not notice
// that extensions are used.
func TestExtensions(t *testing.T) {
	t.Parallel()
	names := map[string]string{
		"alpn": "o1", "authority": "o2", "unique_id": "o5", "ssl": "o20", "netns": "o30",
		"0x01": "o1", "0XEA": "oea", "0x0030": "o30", "0x03": "",
		"ssl_version": "t21", "ssl_cn": "t22", "ssl_cipher": "t23", "SSL_sig_alg": "t24", "ssl_key_alg": "t25",
		"ssl_0x22": "t22", "ssl_0xfe": "tfe", "ssl_0x01": "", "ssl_verify": "4294967295",
	}
	given := &someExtensions{
		outer:  map[byte]string{1: "o1", 2: "o2", 5: "o5", 0x20: "o20", 0x30: "o30", 0xea: "oea"},
		tls:    map[byte]string{0x21: "t21", 0x22: "t22", 0x23: "t23", 0x24: "t24", 0x25: "t25", 0xfe: "tfe"},
		verify: 1<<32 - 1,
	}
	for name, want := range names {
		scope := built(t, nil)
		require.False(t, scope.UsesExtensions())
		value := compiled(t, scope, "$proxy_protocol_tlv_"+name)
		require.True(t, scope.UsesExtensions(), name)
		line, err := scope.Format(EscapeDefault, "$proxy_protocol_tlv_"+name)
		require.NoError(t, err)
		s := begun(scope)
		require.Empty(t, value.Append(nil, s), name)
		require.Equal(t, "-", string(line.Append(nil, s)), name)
		s.Extensions = given
		require.Equal(t, want, string(value.Append(nil, s)), name)
		s.Extensions = &someExtensions{}
		require.Equal(t, "-", string(line.Append(nil, s)), name)
	}
	for name, want := range map[string]string{
		"": "unknown", "alpnx": "unknown", "verify": "unknown", "version": "unknown", "ssl_": "unknown", "ssl_alpn": "unknown",
		"ssl_ssl": "unknown", "5": "unknown", "0x": "invalid", "0x100": "invalid", "0xg": "invalid", "ssl_0x": "invalid", "0x1_0": "invalid",
	} {
		_, err := built(t, nil).Compile("${proxy_protocol_tlv_" + name + "}")
		require.EqualError(t, err, want+` PROXY protocol TLV "`+name+`"`, name)
	}

	scope := built(t, func(s *Scope) {
		require.NoError(t, s.Map(Map{Variable: "$x", Source: "$proxy_protocol_tlv_authority", Entries: []Entry{{"o2", "found"}}}))
		require.NoError(t, s.Set("$proxy_protocol_tlv_mine")) // as nginx lets one
	})
	require.True(t, scope.UsesExtensions(), "by a map alone")
	line, err := scope.Format(EscapeDefault, "$x $proxy_protocol_tlv_unique_id [$proxy_protocol_tlv_mine]")
	require.NoError(t, err)
	s := begun(scope)
	s.Extensions = &someExtensions{outer: map[byte]string{2: "o2", 5: "\"\n\xff"}}
	require.Equal(t, `found \x22\x0A\xFF []`, string(line.Append(nil, s)))
}

// What is about TLS is known by its name, in any case, and never set. Only what
// nginx lets one define anew can be.
//
// Fails if a name is taken that nginx does not know, or none is set to something.
func TestTLSVariables(t *testing.T) {
	t.Parallel()
	require.Len(t, tlsVariables, 27)
	for name, changeable := range tlsVariables {
		scope := built(t, nil)
		line, err := scope.Format(EscapeDefault, "$"+name+"|${SSL_PROTOCOL}")
		require.NoError(t, err)
		require.Equal(t, "-|-", string(line.Append(nil, begun(scope))), name)
		require.Equal(t, "<>", string(compiled(t, scope, "<${"+name+"}>").Append(nil, begun(scope))), name)
		err = NewScope(Process{}).Set("$" + name)
		if changeable {
			require.NoError(t, err, name)
		} else {
			require.EqualError(t, err, `the duplicate "`+name+`" variable`)
		}
	}
	for _, name := range []string{"ssl", "ssl_", "ssl_xyz", "ssl_preread", "ssl_early_data"} {
		_, err := built(t, nil).Compile("$" + name)
		require.EqualError(t, err, `unknown "`+name+`" variable`)
	}
	scope := built(t, func(s *Scope) {
		require.NoError(t, s.Map(Map{Variable: "$ssl_protocol", Source: "", Entries: []Entry{{"default", "mine"}}}))
	})
	require.Equal(t, "mine", string(compiled(t, scope, "$ssl_protocol").Append(nil, begun(scope))))
}
