package integration

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// soakVariable says how long servers are probed, if longer than make test has
// time for; a Go duration.
const soakVariable = "SMTPLB_SOAK"

func soak(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv(soakVariable)
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, soakVariable)
	return d
}

// A witness is a real server that is probed, and how its log tells of a visit.
type witness struct {
	*peers.Daemon
	name    string // of the upstream
	lines   string // of the upstream's configuration
	connect *regexp.Regexp
	quit    *regexp.Regexp // a visit that ended as it should
}

// In the log of smtpd a command that was not understood makes "2/3" of "2".
// Postscreen, while it plays the server itself, does not say what ended a visit:
// it says HANGUP if that was not QUIT.
var (
	postscreenConnect    = regexp.MustCompile(`postscreen\[\d+\]: CONNECT from \[127\.0\.0\.1\]:`)
	postscreenDisconnect = regexp.MustCompile(`postscreen\[\d+\]: DISCONNECT \[127\.0\.0\.1\]:`)
	smtpdQuit            = regexp.MustCompile(`smtpd\[\d+\]: disconnect from unknown\[127\.0\.0\.1\] .*\bquit=1 commands=\d+\n`)
	eximConnect          = regexp.MustCompile(`SMTP connection from \[127\.0\.0\.1\].*TCP/IP connection count`)
	eximQuit             = regexp.MustCompile(`SMTP connection from .* closed by QUIT\n`)
)

// complaint is what no visit may bring into a log: of the words of smtpd,
// postscreen, tlsproxy and Exim all those for clients that leave without a
// word, speak out of turn, or in a wrong way.
var complaint = regexp.MustCompile(`(?i).*(` + strings.Join([]string{
	"lost connection", "connection lost", `\blost( D=|\n)`, "unexpected", "HANGUP", "incomplete transaction",
	"PREGREET", "pipelining", "synchronization", "protocol error", "NON-SMTP", "BARE NEWLINE",
	"timeout", "LIMIT", "reject", "haproxy", "TLS error", "SSL_accept", "tls handshake",
	"warning:", "error:", "fatal:", "panic:",
}, "|") + `).*`)

// screening are the settings of postscreen that make it play the server itself
// for clients it does not know, and complain of what they say.
var screening = map[string]string{
	"postscreen_pipelining_enable":       "yes",
	"postscreen_pipelining_action":       "enforce",
	"postscreen_non_smtp_command_enable": "yes",
	"postscreen_non_smtp_command_action": "enforce",
	"postscreen_bare_newline_enable":     "yes",
	"postscreen_bare_newline_action":     "enforce",
}

// witnesses starts servers of each kind; their probes differ as an operator may
// have them.
func witnesses(t testing.TB) []witness {
	t.Helper()
	var all []witness
	add := func(d *peers.Daemon, connect, quit *regexp.Regexp, header string, keys ...string) {
		keys = append([]string{"type = 'smtp'", "interval = '1s'", "timeout = '5s'"}, keys...)
		all = append(all, witness{
			d, fmt.Sprintf("mail%d", len(all)),
			fmt.Sprintf("proxy_protocol = '%s'\ncheck = { %s }", header, strings.Join(keys, ", ")),
			connect, quit,
		})
	}
	postscreen := func(starttls bool, settings map[string]string) *peers.Daemon {
		return &peers.Postfix(t, peers.PostfixOptions{Postscreen: true, STARTTLS: starttls, Main: settings}).Daemon
	}
	headers := map[string]string{"postscreen_upstream_proxy_protocol": "haproxy"}

	add(postscreen(false, nil), postscreenConnect, smtpdQuit, "off", "rcpt_to = '"+recipient+"'")
	add(postscreen(false, headers), postscreenConnect, smtpdQuit, "v1")
	add(postscreen(false, headers), postscreenConnect, smtpdQuit, "v2")
	add(postscreen(true, nil), postscreenConnect, smtpdQuit, "off", "tls = 'starttls'")
	add(postscreen(false, screening), postscreenConnect, postscreenDisconnect, "off")
	add(postscreen(true, screening), postscreenConnect, postscreenDisconnect, "off", "tls = 'starttls'")
	add(peers.Exim(t, peers.EximOptions{}), eximConnect, eximQuit, "off")
	add(peers.Exim(t, peers.EximOptions{STARTTLS: true}), eximConnect, eximQuit, "off", "tls = 'starttls'")
	return all
}

// T29: a probe each second, and the logs of a Postfix with postscreen and of an
// Exim complain of nothing. All visits end with QUIT, and they go on all the
// time: postscreen keeps a new client waiting for two seconds of each, and a busy
// machine takes its part.
//
// Fails if a probe does not say QUIT, says EHLO before the greeting's last line
// or anything before the last line of a reply, or sends no PROXY header, or one
// of v1 with UNKNOWN.
func TestProbesLeaveNoComplaints(t *testing.T) {
	t.Parallel()
	all, duration := witnesses(t), soak(t)
	config := workers(2)
	for _, w := range all {
		config += fmt.Sprintf("[[upstream]]\nname = %q\nservers = [%q]\n%s\n", w.name, w.Addr, w.lines) +
			proxy(freeAddr(t), w.name)
	}
	p := smtptest.Start(t, config)
	<-time.After(duration)

	for _, w := range all {
		var log string
		var connects, quits int
		smtptest.Eventually(t, patience, "the end of a visit", func() bool {
			log = w.Log()
			connects, quits = len(w.connect.FindAllString(log, -1)), len(w.quit.FindAllString(log, -1))
			return connects == quits || complaint.MatchString(log)
		})
		t.Logf("%d visits in %v: %s", quits, duration, strings.ReplaceAll(w.lines, "\n", ", "))
		require.Empty(t, complaint.FindAllString(log, -1), w.lines)
		require.Greater(t, float64(quits), 0.4*duration.Seconds(), "%s\n%s", w.lines, log)
	}
	require.Zero(t, p.Count("server state "), "no server has been anything but up")
}
