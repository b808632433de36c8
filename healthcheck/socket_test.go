package healthcheck

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"smtplb/internal/proxyproto"
	"smtplb/internal/smtptest"
)

// look visits a real address, once.
func look(t *testing.T, network, address string, change func(*Settings)) outcome {
	t.Helper()
	s := Settings{Network: network, Address: address, SMTP: true, Timeout: 5 * time.Second, Helo: "lb.example.com"}
	if change != nil {
		change(&s)
	}
	return examine(t.Context(), (&net.Dialer{}).DialContext, s)
}

// Fails if the header is missing, not the first thing on the wire, names other
// addresses, or is UNKNOWN on TCP.
func TestProxyHeader(t *testing.T) {
	tests := []struct{ name, network, address string }{
		{"TCP4", "tcp", "127.0.0.1:0"},
		{"TCP6", "tcp", "[::1]:0"},
		{"unix", "unix", ""},
	}
	for _, tt := range tests {
		for _, version := range []HeaderVersion{V1, V2} {
			t.Run(tt.name+[]string{"", "/v1", "/v2"}[version], func(t *testing.T) {
				t.Parallel()
				address := tt.address
				if tt.network == "unix" {
					address = filepath.Join(t.TempDir(), "s")
				}
				ln, err := net.Listen(tt.network, address)
				require.NoError(t, err)
				got := make(chan []byte, 1)
				var client, server net.Addr
				smtptest.Serve(t, ln, func(conn net.Conn) {
					client, server = conn.RemoteAddr(), conn.LocalAddr()
					io.WriteString(conn, "220 mx\r\n") // the header has gone before it is read
					all, _ := io.ReadAll(io.LimitReader(conn, 300))
					got <- all
				})
				look(t, tt.network, ln.Addr().String(), func(s *Settings) { s.Header, s.Timeout = version, 2*time.Second })
				sent := <-got
				h, n, state := proxyproto.Parse(sent)
				require.Equal(t, proxyproto.Complete, state, "%q", sent)
				require.Equal(t, "EHLO lb.example.com\r\n", string(sent[n:]))
				switch {
				case version == V2:
					require.Equal(t, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", string(sent[:n]))
				case tt.network == "unix":
					require.Equal(t, "PROXY UNKNOWN\r\n", string(sent[:n]))
				default:
					require.Equal(t, proxyproto.Header{
						Command: proxyproto.Proxy,
						Src:     netip.MustParseAddrPort(client.String()),
						Dst:     netip.MustParseAddrPort(server.String()),
					}, h)
					require.True(t, bytes.HasPrefix(sent, []byte("PROXY "+tt.name+" ")))
				}
			})
		}
	}
}

// A scripted server on a real socket sees an orderly session, whatever it says.
func TestRealServer(t *testing.T) {
	tests := []struct {
		name     string
		script   smtptest.Script
		want     outcome
		commands []string
	}{
		{"good", smtptest.Script{}, outcome{good: true, why: "250 smtptest"}, []string{"EHLO lb.example.com", "QUIT"}},
		{"421", smtptest.Script{Connect: smtptest.Step{Reply: "421 4.3.2 busy\r\n"}},
			outcome{soft: true, why: "greeting: 421 4.3.2 busy"}, nil},
		{"554", smtptest.Script{Connect: smtptest.Step{Reply: "554 5.3.2 no\r\n"}},
			outcome{why: "greeting: 554 5.3.2 no"}, []string{"QUIT"}},
		{"reset", smtptest.Script{Ehlo: smtptest.Step{Mute: true, Then: smtptest.Reset}},
			outcome{why: "EHLO: connection reset by peer"}, []string{"EHLO lb.example.com"}},
		{"byte by byte", smtptest.Script{Ehlo: smtptest.Step{ByteGap: time.Millisecond}},
			outcome{good: true, why: "250 smtptest"}, []string{"EHLO lb.example.com", "QUIT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := smtptest.NewServer(t, tt.script)
			require.Equal(t, tt.want, look(t, "tcp", srv.Addr(), nil))
			smtptest.Eventually(t, 20*time.Second, "the session ends", func() bool { return srv.Open() == 0 })
			require.Equal(t, tt.commands, srv.Sessions()[0].Commands)
			require.NoError(t, srv.Sessions()[0].Err)
		})
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	srv := smtptest.NewServer(t, smtptest.Script{})
	srv.Refuse()
	require.Equal(t, outcome{why: "connect: connection refused"}, look(t, "tcp", srv.Addr(), nil))
	require.NoError(t, srv.Resume())
	require.NoError(t, srv.Blackhole(true))
	late := look(t, "tcp", srv.Addr(), func(s *Settings) { s.Timeout = 300 * time.Millisecond })
	require.Regexp(t, `^no connection in [\d.]+m?s$`, late.why)
	require.Equal(t, outcome{why: late.why}, late)
	require.Equal(t, outcome{why: "connect: no such file or directory"},
		look(t, "unix", filepath.Join(t.TempDir(), "none"), nil))
}

// Type tcp: the connection ends by FIN, though the server has said something.
// Fails if examine closes without draining: the server is reset.
func TestTypeTCP(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	smtptest.Serve(t, ln, func(conn net.Conn) {
		io.WriteString(conn, "220 mx\r\n")
		n, err := io.Copy(io.Discard, conn)
		if n > 0 {
			err = io.ErrShortWrite
		}
		if err == nil {
			_, err = io.WriteString(conn, "421 timeout\r\n")
		}
		ended <- err
	})
	require.Equal(t, outcome{good: true, why: "connected"},
		look(t, "tcp", ln.Addr().String(), func(s *Settings) { s.SMTP = false }))
	require.NoError(t, <-ended)
}

// Nothing is left behind of a Checker whose probes were in every kind of wait.
func TestNothingLeft(t *testing.T) {
	hang := func(s smtptest.Step) string { return smtptest.NewServer(t, smtptest.Script{Connect: s}).Addr() }
	black := smtptest.NewServer(t, smtptest.Script{})
	require.NoError(t, black.Blackhole(true))
	drip := smtptest.NewServer(t, smtptest.Script{Ehlo: smtptest.Step{ByteGap: time.Second}})
	noBye := smtptest.NewServer(t, smtptest.Script{Quit: smtptest.Step{Then: smtptest.Linger}})

	c := New(zap.NewNop())
	defer c.Stop()
	var targets []Target
	var reporters []*reporter
	for _, address := range []string{hang(smtptest.Step{Then: smtptest.Stall, Mute: true}),
		hang(smtptest.Step{Then: smtptest.Linger}), black.Addr(), drip.Addr(), noBye.Addr()} {
		r := &reporter{}
		tg := aim(address, r)
		tg.Settings.SMTP, tg.Settings.Helo, tg.Settings.Timeout = true, "lb", 30*time.Second
		targets, reporters = append(targets, tg), append(reporters, r)
	}
	c.Update(targets)
	for _, r := range reporters {
		c.ProbeNow(r)
	}
	smtptest.Eventually(t, 20*time.Second, "probes run", func() bool { return bytes.Count(stacks(), []byte(".examine(")) == 5 })
	began := time.Now()
	c.Stop()
	require.Less(t, time.Since(began), 10*time.Second)
	left := string(stacks())
	require.False(t, strings.Contains(left, "healthcheck.(*Checker)") || strings.Contains(left, ".examine"), left)
}

// stacks is what all goroutines are at.
func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}
