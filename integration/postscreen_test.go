package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// stranger is the address of a client that postscreen must know by the PROXY
// header alone.
const stranger = "127.0.0.77"

// dialFrom connects from an address.
func dialFrom(ctx context.Context, from, addr string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return dialer.DialContext(ctx, "tcp", addr)
}

// screened starts a Postfix whose postscreen knows clients by PROXY headers.
func screened(t testing.TB) *peers.PostfixServer {
	t.Helper()
	return peers.Postfix(t, peers.PostfixOptions{
		Postscreen: true,
		Main:       map[string]string{"postscreen_upstream_proxy_protocol": "haproxy"},
	})
}

// slowToGreet starts a Postfix whose smtpd knows clients by PROXY headers, and
// gives them three seconds to speak before it greets.
func slowToGreet(t testing.TB) *peers.PostfixServer {
	t.Helper()
	return peers.Postfix(t, peers.PostfixOptions{Main: map[string]string{
		"smtpd_upstream_proxy_protocol": "haproxy",
		"smtpd_client_restrictions":     "sleep 3",
		"smtpd_delay_reject":            "no",
	}})
}

// informed is an upstream that is told who the client is.
func informed(addr, version string) string {
	return fmt.Sprintf("[[upstream]]\nname = 'mail'\nproxy_protocol = %q\nservers = [%q]\n", version, addr)
}

// Postscreen tests the client itself, by the address in either version of the
// PROXY header, and hands its mail on: the client waits for the second line of
// the greeting once, and is known after that.
//
// Fails if no header is sent, or one with our own address.
func TestPostscreenLearnsTheClient(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			mx := screened(t)
			const sessions = 5
			client := &ledger.Client{
				Addr: freeAddr(t), Sessions: sessions, To: recipient,
				Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
					return dialFrom(ctx, stranger, addr)
				},
			}
			smtptest.Start(t, workers(1)+informed(mx.Addr, version)+proxy(client.Addr, "mail"))
			client.Run(t.Context())
			require.Equal(t, sessions, client.Tally().OK, "%v\n%s", client.Tally(), mx.Log())
			mx.Settle()
			require.Len(t, mx.Messages(), sessions)
			// A daemon's lines reach the log after the client has its replies.
			smtptest.Eventually(t, patience, "the last session's end in the log", func() bool {
				return strings.Count(mx.Log(), "disconnect from unknown["+stranger+"]") == sessions
			})
			log := mx.Log()
			require.Equal(t, sessions, strings.Count(log, "CONNECT from ["+stranger+"]:"), log)
			require.Equal(t, sessions, strings.Count(log, "CONNECT from ["), log)
			require.Equal(t, 1, strings.Count(log, "PASS NEW ["+stranger+"]:"), log)
			require.Equal(t, sessions-1, strings.Count(log, "PASS OLD ["+stranger+"]:"), log)
		})
	}
}

// A client that speaks before it is greeted is caught by the server, under its
// own address, if its words are passed on at once: by postscreen, which refuses
// its mail, or by smtpd, which only notes it. If they are held, neither finds
// anything to note.
//
// Fails if smtp_pregreet does the opposite of what it says, if the first line of
// a greeting, postscreen's teaser, ends the hold, or if no header is sent.
func TestServersCatchEarlyTalkers(t *testing.T) {
	t.Parallel()
	type row struct {
		start    func(testing.TB) *peers.PostfixServer
		pregreet string
		caught   string // what the log says; empty: nothing
	}
	pipelining := `improper command pipelining after CONNECT from unknown\[` + stranger + `\]: HELO early`
	for name, r := range map[string]row{
		"postscreen, passed": {screened, "pass", `PREGREET 12 after \S+ from \[` + stranger + `\]:\d+: HELO early`},
		"smtpd, passed":      {slowToGreet, "pass", pipelining},
		"smtpd, held":        {slowToGreet, "hold", ""},
		"postscreen, held":   {screened, "hold", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := r.start(t)
			addr := freeAddr(t)
			smtptest.Start(t, workers(1)+informed(mx.Addr, "v2")+proxy(addr, "mail", fmt.Sprintf("smtp_pregreet = %q", r.pregreet)))
			speakEarly(t, addr)
			ended := regexp.MustCompile(`(?i)disconnect (from unknown)?\[` + stranger + `\]`)
			smtptest.Eventually(t, patience, "the session's end in the log", func() bool { return ended.MatchString(mx.Log()) })
			if r.caught != "" {
				require.Regexp(t, r.caught, mx.Log())
				return
			}
			require.NotContains(t, mx.Log(), "PREGREET")
			require.NotContains(t, mx.Log(), "improper command pipelining")
		})
	}
}

// speakEarly is a client that says HELO before it is greeted, and otherwise
// behaves.
func speakEarly(t *testing.T, addr string) {
	t.Helper()
	conn, err := dialFrom(t.Context(), stranger, addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	in := bufio.NewReader(conn)
	_, err = io.WriteString(conn, "HELO early\r\n")
	require.NoError(t, err)
	for line := ""; !strings.HasPrefix(line, "250 "); { // postscreen leaves out the greeting's last line
		line, err = in.ReadString('\n')
		require.NoError(t, err)
	}
	_, err = io.WriteString(conn, "QUIT\r\n")
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, in)
	require.NoError(t, err)
}
