package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/mail"
	"net/smtp"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// recipient is a mailbox that every Postfix of these tests has.
const recipient = "bob@example.test"

// postfix is a real server that takes part in the ledger.
type postfix struct {
	*peers.PostfixServer
	t    testing.TB
	name string
}

// startPostfix starts a Postfix that is called name in its greeting and in the
// ledger, with STARTTLS, and takes messages of up to 40 MB.
func startPostfix(t testing.TB, name string) *postfix {
	t.Helper()
	s := peers.Postfix(t, peers.PostfixOptions{
		STARTTLS: true,
		Main: map[string]string{
			"smtpd_banner":       name + " ESMTP",
			"message_size_limit": "40000000",
		},
	})
	return &postfix{s, t, name}
}

// Stored tells what is in the mailbox, with the bodies checked.
func (s *postfix) Stored() []ledger.Entry {
	s.t.Helper()
	messages := s.Messages()
	entries := make([]ledger.Entry, 0, len(messages))
	for _, m := range messages {
		if m.LedgerID == "" {
			continue // of a tool that writes no such header
		}
		entries = append(entries, ledger.Entry{
			ID:      m.LedgerID,
			Server:  s.name,
			Corrupt: m.Header.Get("X-Ledger-Sum") != bodySum(s.t, m.Path),
		})
	}
	return entries
}

// bodySum is the SHA-256 of a stored message's body as it was on the wire:
// Postfix stores lines with a bare LF.
func bodySum(t testing.TB, path string) string {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	m, err := mail.ReadMessage(bufio.NewReader(file))
	require.NoError(t, err)
	body, err := io.ReadAll(m.Body)
	require.NoError(t, err)
	return hexSum(bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")))
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Real mail between real programs: swaks, smtp-source and the ledger's client
// send to two Postfixes through the balancer, in the clear and by STARTTLS,
// small messages and one of 20 MB. All of it is stored once, unchanged, and
// every second session is each Postfix's.
//
// Fails if a splice that wrote less than the pipe holds is taken for a whole
// one.
func TestPostfix(t *testing.T) {
	t.Parallel()
	a, b := startPostfix(t, "a"), startPostfix(t, "b")
	addr := freeAddr(t)
	p := smtptest.Start(t, workers(2)+upstream("mail", server(a.Addr), server(b.Addr))+proxy(addr, "mail"))

	client := &ledger.Client{Addr: addr, Sessions: 60, Concurrency: 6, Mails: 2, To: recipient}
	client.Run(t.Context())
	large := &ledger.Client{Addr: addr, Sessions: 2, Size: 20_000_000, To: recipient}
	large.Run(t.Context())
	const sourced = 100
	peers.Run(t, "smtp-source", "-s", "5", "-m", fmt.Sprint(sourced), "-l", "10000",
		"-f", "ann@example.org", "-t", recipient, "-S", "source", addr)
	for _, more := range [][]string{nil, nil, {"--tls"}, {"--tls"}} {
		peers.Run(t, "swaks", append(more, "--server", addr, "--from", "ann@example.org", "--to", recipient,
			"--header", "Subject: swaks", "--body", "hello")...)
	}
	sealed := bytes.Repeat([]byte("a line of a message that only its ends can read\r\n"), 40_000)
	for range 2 {
		sendSealed(t, addr, sealed)
	}

	// What the tools sent is told apart by its subject.
	got := map[string]int{}
	for _, s := range []*postfix{a, b} {
		s.Settle()
		for _, m := range s.Messages() {
			if m.LedgerID != "" {
				continue
			}
			kind := s.name + " " + m.Subject
			if strings.Contains(m.Header.Get("Received"), "SMTPS id") {
				kind += ", sealed"
			}
			got[kind]++
			if m.Subject == "lines" {
				require.Equal(t, hexSum(sealed), bodySum(t, m.Path))
			}
		}
	}
	require.Equal(t, map[string]int{
		"a source": sourced / 2, "a swaks": 1, "a swaks, sealed": 1, "a lines, sealed": 1,
		"b source": sourced / 2, "b swaks": 1, "b swaks, sealed": 1, "b lines, sealed": 1,
	}, got)
	for _, c := range []*ledger.Client{client, large} {
		requireAll(t, c, of{c, a}, of{c, b})
		share := map[string]int{}
		for _, servers := range ledger.Reconcile(c, of{c, a}, of{c, b}).Copies {
			share[servers[0]]++
		}
		require.Equal(t, share["a"], share["b"])
	}
	require.Zero(t, p.Count(`\[(warn|error|crit|alert)\]`))
}

// sendSealed sends a message with the subject "lines" by STARTTLS.
func sendSealed(t *testing.T, addr string, body []byte) {
	t.Helper()
	c, err := smtp.Dial(addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.StartTLS(&tls.Config{InsecureSkipVerify: true}))
	require.NoError(t, c.Mail("ann@example.org"))
	require.NoError(t, c.Rcpt(recipient))
	w, err := c.Data()
	require.NoError(t, err)
	_, err = w.Write(append([]byte("Subject: lines\r\n\r\n"), body...))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, c.Quit())
}

// The death of a real server in the middle of a run costs the sessions that are
// live on it, and no message: what it had accepted is there when it is back.
//
// Fails without the next attempt after a refusal.
func TestPostfixDies(t *testing.T) {
	t.Parallel()
	a, b := startPostfix(t, "a"), startPostfix(t, "b")
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 8, To: recipient}
	p := smtptest.Start(t, workers(2)+verbose+
		upstream("mail", server(a.Addr, "fail_timeout = '1s'"), server(b.Addr, "fail_timeout = '1s'"))+
		proxy(client.Addr, "mail"))
	stop := run(t, client)
	more(t, client, 100)
	a.Kill()
	more(t, client, 100)
	a.Restart()
	p.Await(disabled, 1)
	more(t, client, 100)
	stop()

	a.Settle()
	b.Settle()
	report := ledger.Reconcile(client, a, b)
	require.Empty(t, report.Lost)
	require.Empty(t, report.Corrupt)
	require.Empty(t, report.Foreign)
	for _, id := range report.Duplicate {
		require.NotContains(t, report.Copies[id], "b", "Postfix repeats a delivery in which it was killed, and nobody else does")
	}
	requireBrokenOn(t, p, client, a.Addr)
	requireInGap(t, client, report)
}
