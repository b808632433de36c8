package upstream_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// Fails if String drops the "unix:" of nginx's spelling.
func TestAddrString(t *testing.T) {
	t.Parallel()
	tcp := func(s string) upstream.Addr { return upstream.Addr{TCP: netip.MustParseAddrPort(s)} }
	for want, addr := range map[string]upstream.Addr{
		"192.0.2.1:25":          tcp("192.0.2.1:25"),
		"[2001:db8::1]:25":      tcp("[2001:db8::1]:25"),
		"unix:/run/mail/x.sock": {Path: "/run/mail/x.sock"},
	} {
		require.Equal(t, want, addr.String())
	}
}
