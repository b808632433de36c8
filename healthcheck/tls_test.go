package healthcheck

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// certificate makes one that nobody has signed but itself.
func certificate(t *testing.T, notAfter time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "mx.example.com"},
		NotBefore:    notAfter.Add(-90 * 24 * time.Hour),
		NotAfter:     notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// Fails if EHLO is not repeated behind STARTTLS, or if a certificate that has
// ended, and that nobody trusts, is verified.
func TestStartTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strict{tls: certificate(t, time.Now().Add(-time.Hour))}
		o := s.visit(t, Settings{TLS: StartTLS, RcptTo: "a@example.com"})
		require.Empty(t, s.faults)
		require.True(t, o.good, o.why)
		require.Equal(t, "CN=mx.example.com", o.cert.Subject.String())
		require.Equal(t, []string{"EHLO lb.example.com", "STARTTLS", "EHLO lb.example.com",
			"MAIL FROM:<>", "RCPT TO:<a@example.com>", "RSET", "QUIT"}, s.commands)
		require.True(t, s.closed, "the server closes first")
	})
}

// The handshake precedes the greeting.
func TestImplicitTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strict{tls: certificate(t, time.Now().Add(time.Hour)), implicit: true}
		o := s.visit(t, Settings{TLS: ImplicitTLS})
		require.Empty(t, s.faults)
		require.True(t, o.good, o.why)
		require.NotNil(t, o.cert)
		require.Equal(t, []string{"EHLO lb.example.com", "QUIT"}, s.commands)
	})
}

func TestTLSFailures(t *testing.T) {
	tests := []struct {
		name     string
		settings Settings
		replies  map[string][]string
		why      string
		quit     bool
	}{
		{"not offered", Settings{TLS: StartTLS}, map[string][]string{"EHLO": {"250-mx\r\n250 XSTARTTLS\r\n"}},
			"EHLO: the server does not offer STARTTLS", true},
		{"only HELO", Settings{TLS: StartTLS}, map[string][]string{"EHLO": {"500 no\r\n"}},
			"HELO: the server does not offer STARTTLS", true},
		{"more behind the reply", Settings{TLS: StartTLS}, map[string][]string{"STARTTLS": {"220 go\r\n250 x\r\n"}},
			`STARTTLS: more behind the reply: 250 x\x0D\x0A`, false},
		{"refused later", Settings{TLS: StartTLS}, map[string][]string{"EHLO": {hello, "550 not you\r\n"}},
			"EHLO: 550 not you", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &strict{tls: certificate(t, time.Now().Add(time.Hour)), replies: tt.replies, atOnce: !tt.quit}
				o := s.visit(t, tt.settings)
				require.Equal(t, tt.why, o.why)
				require.False(t, o.good || o.soft)
				require.Equal(t, tt.quit, s.commands[len(s.commands)-1] == "QUIT")
			})
		})
	}
}

// A server that says 220 and then nothing that is TLS.
func TestNoHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		go func() {
			var b [4096]byte
			for {
				if _, err := server.Read(b[:]); err != nil {
					return
				}
			}
		}()
		dial := func(context.Context, string, string) (net.Conn, error) { return client, nil }
		o := examine(t.Context(), dial, Settings{SMTP: true, TLS: ImplicitTLS, Timeout: 3 * time.Second})
		require.Equal(t, outcome{why: "no TLS handshake in 3s"}, o)
	})
	synctest.Test(t, func(t *testing.T) {
		s := &strict{}
		o := s.visit(t, Settings{TLS: ImplicitTLS})
		require.False(t, o.good || o.soft)
		require.Equal(t, "TLS: ", o.why[:5])
	})
}

// Once a day for each Settings, ahead of the end and after it, and never if none
// of its targets asks for it. Fails if lookAt does not remember, compares the wrong
// way round, or goes by the first target.
func TestCertificateWarning(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name    string
		ends    time.Duration // from the beginning
		warning time.Duration
		want    []string // in 30 hours
	}{
		{"soon", 10 * day, 14 * day, []string{"certificate ends soon", "certificate ends soon"}},
		{"ended", -time.Hour, 14 * day, []string{"certificate has ended", "certificate has ended"}},
		{"in between", 20 * time.Hour, 14 * day, []string{"certificate ends soon", "certificate has ended"}},
		{"later", 30 * day, 14 * day, nil},
		{"not asked for", time.Hour, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			cert := &x509.Certificate{Subject: pkix.Name{CommonName: "mx\r\n"}, NotAfter: now.Add(tt.ends)}
			core, logs := observer.New(zapcore.InfoLevel)
			c := &Checker{log: zap.New(core)}
			tg := &target{Target: aim("s:25", nil)}
			longest := *tg
			longest.CertWarning = tt.warning
			k := &check{targets: []*target{tg, &longest}}
			for range 30 {
				c.lookAt(k, nil, now)
				c.lookAt(k, cert, now)
				now = now.Add(time.Hour)
			}
			var got []string
			for _, e := range logs.TakeAll() {
				got = append(got, e.Message)
				require.Equal(t, zapcore.WarnLevel, e.Level)
				require.Equal(t, map[string]any{"upstream": "up", "peer": "s:25", "subject": `CN=mx\x0D\x0A`,
					"not_after": cert.NotAfter.UTC().Format(time.RFC3339)}, e.ContextMap())
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// The way there: fails if examine drops the certificate, or finish does not
// look at it.
func TestCertificateIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		config := certificate(t, time.Now().Add(time.Hour))
		c := start(zap.New(core), func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go (&strict{tls: config}).serve(server)
			return client, nil
		})
		defer c.Stop()
		var r reporter
		tg := aim("s:25", &r)
		tg.Settings.SMTP, tg.Settings.TLS, tg.CertWarning = true, StartTLS, 2*time.Hour
		c.Update([]Target{tg})
		pass(time.Minute)
		require.Greater(t, r.count(), 3)
		require.Equal(t, Result{Good: true, Why: "250 mx.example.com"}, r.last())
		require.Equal(t, 1, logs.FilterMessage("certificate ends soon").Len())
	})
}
