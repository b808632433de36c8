package integration

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// sometimesBusy lets every other connection meet with a 421.
type sometimesBusy struct {
	net.Listener
	n, busy atomic.Int64
}

func (l *sometimesBusy) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.n.Add(1)%2 == 0 {
			return conn, err
		}
		l.busy.Add(1)
		go func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, "421 4.3.2 b too busy\r\n"); err == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
		}()
	}
}

// One of three servers accepts and hangs, one greets with 421 half of the
// time: of 1,000 mails none is lost, no client sees anything but a good
// greeting, and none waits longer than the budget.
//
// Fails with smtp = false, and if a 421 or a missing greeting is not passed
// over.
func TestBadServersAreNeverSeen(t *testing.T) {
	t.Parallel()
	hangs := ledger.NewServer(t, smtptest.Script{Name: "hangs", Connect: smtptest.Step{Mute: true, Then: smtptest.Linger}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	busy := &sometimesBusy{Listener: ln}
	b := ledger.Serve(t, busy, smtptest.Script{Name: "b"})
	c := mx(t, "c")
	client := &ledger.Client{Addr: freeAddr(t), Sessions: 1000, Concurrency: 20}
	const budget = 10 * time.Second
	p := smtptest.Start(t, workers(2)+
		upstream("mail", server(hangs.Addr(), "fail_timeout = '1s'"), server(ln.Addr().String(), "max_fails = 0"), server(c.Addr()))+
		proxy(client.Addr, "mail", "smtp_greeting_timeout = '300ms'", "proxy_next_upstream_timeout = '10s'"))
	client.Run(t.Context())
	requireAll(t, client, b, c)
	for _, s := range client.History() {
		name, _, _ := strings.Cut(s.Greeting, " ")
		require.Contains(t, []string{"b", "c"}, name)
	}
	tally := client.Tally()
	require.Less(t, tally.Banner.Max, budget)
	require.Positive(t, busy.busy.Load(), "the busy server was asked")
	require.Positive(t, p.Count("temporarily disabled .*"+hangs.Addr()), "the hanging server was asked")
	t.Logf("banner: %v; 421 passed over: %d", tally.Banner, busy.busy.Load())
}

// A Postfix that wants a PROXY header logs the client's own address, by both
// versions of the protocol; without one it would take no session.
//
// Fails if no header is sent, or one with our own address.
func TestPostfixLearnsTheClient(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			mx := peers.Postfix(t, peers.PostfixOptions{Main: map[string]string{
				"smtpd_upstream_proxy_protocol": "haproxy",
				"mynetworks":                    "192.0.2.0/24",
			}})
			const from = "127.0.0.77"
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			client := &ledger.Client{
				Addr: freeAddr(t), Sessions: 5, To: recipient,
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					return dialer.DialContext(ctx, network, addr)
				},
			}
			smtptest.Start(t, workers(1)+
				"[[upstream]]\nname = 'mail'\nproxy_protocol = '"+version+"'\nservers = ['"+mx.Addr+"']\n"+
				proxy(client.Addr, "mail"))
			client.Run(t.Context())
			require.Equal(t, 5, client.Tally().OK, "%v\n%s", client.Tally(), mx.Log())
			smtptest.Eventually(t, patience, "5 clients in the log by their address", func() bool {
				log := mx.Log()
				return strings.Count(log, "disconnect from unknown["+from+"]")+strings.Count(log, "disconnect from localhost["+from+"]") == 5
			})
		})
	}
}
