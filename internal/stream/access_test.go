package stream

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/proxyproto"
)

func allowed(prefix string) AccessRule {
	return AccessRule{Prefix: netip.MustParsePrefix(prefix)}
}

func denied(prefix string) AccessRule {
	return AccessRule{Prefix: netip.MustParsePrefix(prefix), Deny: true}
}

func access(rules ...AccessRule) func(*plan) { return func(p *plan) { p.Access = rules } }

var denyAll = AccessRule{All: true, Deny: true}

// The decisions are nginx's. It fails if the last match holds, if the default
// is to deny, if a mapped address is not unmapped, or if all leaves out the
// clients of unix sockets.
func TestAccessRules(t *testing.T) {
	t.Parallel()
	const local = "" // through a unix socket
	unixDenied := AccessRule{Unix: true, Deny: true}
	for _, x := range []struct {
		name            string
		rules           []AccessRule
		allowed, denied []string
	}{
		{"none", nil, []string{"192.0.2.1", "::1", local}, nil},
		{"no match", []AccessRule{denied("192.0.2.0/24")}, []string{"192.0.3.1", "::1", local}, []string{"192.0.2.1", "::ffff:192.0.2.1"}},
		{"the first match", []AccessRule{denied("192.0.2.1/32"), allowed("192.0.2.0/24"), denied("192.0.0.0/16"), denyAll},
			[]string{"192.0.2.2", "::ffff:192.0.2.3"}, []string{"192.0.2.1", "192.0.3.1", "10.0.0.1", "::1", local}},
		{"all first", []AccessRule{{All: true}, denyAll, unixDenied}, []string{"192.0.2.1", "::1", local}, nil},
		{"unix", []AccessRule{unixDenied}, []string{"192.0.2.1", "::1"}, []string{local}},
		{"unix only", []AccessRule{{Unix: true}, denyAll}, []string{local}, []string{"192.0.2.1", "::1"}},
		{"IPv6", []AccessRule{denied("2001:db8::/32"), denied("fe80::/10")}, []string{"2001:db9::1", "32.1.13.184", local},
			[]string{"2001:db8::1", "fe80::1", "fe80::1%2"}},
		{"every IPv6", []AccessRule{denied("::/0")}, []string{"192.0.2.1", "::ffff:192.0.2.1", local}, []string{"::1"}},
	} {
		r := Route{Access: x.rules}
		for want, clients := range map[bool][]string{false: x.allowed, true: x.denied} {
			for _, client := range clients {
				addr, _ := netip.ParseAddr(client)
				require.Equal(t, want, r.denies(addr), "%s: %q", x.name, client)
			}
		}
	}
}

// A client that is denied is told so where mail is spoken, sees the end
// elsewhere, and no server hears of it. It fails if start asks the group before
// the rules, and if the session is closed without lingering.
func TestDenied(t *testing.T) {
	t.Parallel()
	t.Run("gated", func(t *testing.T) {
		t.Parallel()
		w := newWitness(t, good)
		g := newRig(t, []string{w.addr}, gated, access(denyAll))
		c := g.dial()
		_, err := io.WriteString(c, early)
		require.NoError(t, err)
		require.NoError(t, told(c, deniedReply))
		c.Close()
		g.unserved(w, "denied")
	})
	t.Run("any protocol", func(t *testing.T) {
		t.Parallel()
		w := newWitness(t, good)
		g := newRig(t, []string{w.addr}, access(denyAll))
		saw, err := io.ReadAll(g.dial())
		require.NoError(t, err)
		require.Empty(t, saw)
		g.unserved(w, "denied")
	})
	t.Run("a unix socket's client", func(t *testing.T) {
		t.Parallel()
		w := newWitness(t, good)
		g := newRig(t, []string{w.addr}, gated, access(AccessRule{Unix: true, Deny: true}), func(p *plan) {
			p.listen = "unix:" + t.TempDir() + "/in"
		})
		c, err := net.Dial("unix", g.port.name[len("unix:"):])
		require.NoError(t, err)
		require.NoError(t, told(c, deniedReply))
		c.Close()
		g.unserved(w, "denied")
	})
}

// unserved wants that one session has ended so, and that no server was asked.
func (g *rig) unserved(w *witness, end string) {
	g.t.Helper()
	g.gone(patience)
	accounts := g.accounts()
	require.Len(g.t, accounts, 1)
	require.Equal(g.t, end, accounts[0].end)
	require.Empty(g.t, accounts[0].peer)
	require.Empty(g.t, w.seen())
	require.Zero(g.t, g.Stats().Attempts)
}

// A client behind a front is judged by the address in its header, and the front
// is not. It fails if the rules are looked at before the header.
func TestAccessBehindAFront(t *testing.T) {
	t.Parallel()
	header := string(proxyproto.AppendV1(nil, claimed, claimedTo))

	g, w := frontedRig(t, access(denied(claimed.Addr().String()+"/32")))
	c := g.dialFrom(frontAddr)
	_, err := io.WriteString(c, header)
	require.NoError(t, err)
	require.NoError(t, told(c, deniedReply))
	c.Close()
	g.unserved(w, "denied")

	g, w = frontedRig(t, access(denied(frontAddr+"/32")))
	got := served(t, g, w, g.dialFrom(frontAddr), header)
	require.Equal(t, string(proxyproto.AppendV2(nil, claimed, claimedTo))+quit, got)
}
