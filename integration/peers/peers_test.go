package peers

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every tool and server is known by its version, so that a Debian release that
// changes one shows here first. Fails if a wrapper names a file that fetch.sh
// did not unpack.
func TestPath(t *testing.T) {
	t.Parallel()
	require.Contains(t, Run(t, "swaks", "--version"), "swaks version")
	require.Contains(t, Run(t, "nginx", "-v"), "nginx version")
	require.Contains(t, Run(t, "haproxy", "-v"), "HAProxy version")
	require.FileExists(t, Path(t, "smtp-source"))
	require.FileExists(t, Path(t, "smtp-sink"))
}

// Fails if the socket that keeps the address is closed at once: some of so many
// addresses then come twice, or the kernel gives one to a listener.
func TestReserveAddr(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 2000 {
		addr := ReserveAddr(t)
		require.False(t, seen[addr], "reserved twice: %s", addr)
		seen[addr] = true
	}
	for range 2000 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		require.False(t, seen[l.Addr().String()], "taken though reserved: %s", l.Addr())
	}
}

// A server may listen on a reserved address, and again after it has stopped.
// Fails without SO_REUSEADDR on the socket that keeps the address.
func TestReserveAddrListen(t *testing.T) {
	t.Parallel()
	addr := ReserveAddr(t)
	for range 2 {
		l, err := net.Listen("tcp4", addr)
		require.NoError(t, err)
		up, err := listening(addr)
		require.NoError(t, err)
		require.True(t, up)

		require.NoError(t, l.Close())
		up, err = listening(addr)
		require.NoError(t, err)
		require.False(t, up)
	}
}

// Mail by swaks and by smtp-source reaches the mailbox with its ledger id,
// subject and recipient. Fails with "static:/dev/null" as virtual_mailbox_maps,
// which accepts and forgets.
func TestPostfixStores(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{})

	Run(t, "swaks", "--server", mx.Addr, "--from", "ann@example.org", "--to", "bob@example.test,eve@example.test",
		"--header", "Subject: one", "--add-header", "X-Ledger-Id: L1")
	mx.Settle()
	var got []string
	for _, m := range mx.Messages() {
		got = append(got, fmt.Sprintf("%s %s %s %s", m.LedgerID, m.Subject, m.Recipient, m.Header.Get("Return-Path")))
	}
	require.ElementsMatch(t, []string{
		"L1 one bob@example.test <ann@example.org>",
		"L1 one eve@example.test <ann@example.org>",
	}, got)

	smtpSource(t, mx.Addr, 60)
	mx.Settle()
	require.Len(t, mx.Messages(), 2+60)
	awaitLog(t, &mx.Daemon, "status=sent (delivered to maildir)")
}

// Recipients of other domains are refused, so that no test can send mail out.
// Fails with "permit_mynetworks" before reject_unauth_destination and loopback in
// mynetworks.
func TestPostfixRefusesRelay(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{Domain: "example.com"})
	for rcpt, code := range map[string]string{"bob@example.com": "250", "bob@example.test": "554"} {
		require.Contains(t, dialogue(t, mx.Addr, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<"+rcpt+">\r\nQUIT\r\n"),
			"\n"+code+" ", rcpt)
	}
}

// Fails without STARTTLS in the options.
func TestPostfixSTARTTLS(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{STARTTLS: true})
	Run(t, "swaks", "--server", mx.Addr, "--to", "bob@example.test", "--tls", "--header", "Subject: sealed")
	mx.Settle()
	messages := mx.Messages()
	require.Len(t, messages, 1)
	require.Equal(t, "sealed", messages[0].Subject)
	require.Contains(t, messages[0].Header.Get("Received"), "with ESMTPS")
}

// Settings of the test reach main.cf. Fails if Main is not copied.
func TestPostfixMain(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{Main: map[string]string{"smtpd_banner": "$myhostname ESMTP of this test"}})
	require.Contains(t, dialogue(t, mx.Addr, "QUIT\r\n"), "220 mx.example.test ESMTP of this test\r\n")
}

// Each server stores the mail that was sent to it and no other. Fails without
// the wait in Settle.
func TestPostfixSideBySide(t *testing.T) {
	t.Parallel()
	const servers = 3
	var mx [servers]*PostfixServer
	for i := range mx {
		mx[i] = Postfix(t, PostfixOptions{})
	}
	for i, s := range mx {
		smtpSource(t, s.Addr, 10*(i+1))
	}
	for i, s := range mx {
		s.Settle()
		require.Len(t, s.Messages(), 10*(i+1))
	}
}

// Postscreen makes a client wait that it does not know, refuses one that speaks
// before the greeting, and hands a patient one's mail to smtpd. Fails without
// Postscreen in the options, and with permit_mynetworks as its access list.
func TestPostfixPostscreen(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{Postscreen: true})
	require.Contains(t, dialogue(t, mx.Addr, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\nQUIT\r\n"),
		"\n550 5.5.1 Protocol error")
	awaitLog(t, &mx.Daemon, "PREGREET ")

	mx = Postfix(t, PostfixOptions{Postscreen: true})
	smtpSource(t, mx.Addr, 1)
	mx.Settle()
	require.Len(t, mx.Messages(), 1)
	awaitLog(t, &mx.Daemon, "PASS NEW ")
}

// Exim takes mail for its domain and no other, logs how a session ends, and does
// not bear a client that speaks out of turn. Fails without "+all" in
// log_selector, with "accept" for all recipients, and if early pipelining
// (PIPECONNECT) is offered.
func TestExim(t *testing.T) {
	t.Parallel()
	mx := Exim(t, EximOptions{STARTTLS: true})
	Run(t, "swaks", "--server", mx.Addr, "--to", "bob@example.test,eve@example.org", "--tls")
	awaitLog(t, mx, "RCPT <bob@example.test>: discarded by RCPT ACL")
	awaitLog(t, mx, "rejected RCPT <eve@example.org>: no mail leaves a test")
	awaitLog(t, mx, "closed by QUIT")

	require.Contains(t, dialogue(t, mx.Addr, "HELO c\r\nQUIT\r\n"), "554 SMTP synchronization error")
	awaitLog(t, mx, "SMTP protocol synchronization error")

	pids := mx.PIDs()
	mx.Stop()
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
}

// A killed Postfix is gone with all its daemons, starts again on the same
// address, and what it had accepted is stored in the end, perhaps twice. Fails
// without CLONE_NEWPID: smtpd and others outlive the kill.
func TestPostfixKillRestart(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{})
	smtpSource(t, mx.Addr, 20)

	mx.Kill()
	require.Empty(t, processes(t, mx.dir))
	_, err := net.Dial("tcp", mx.Addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	mx.Restart()
	smtpSource(t, mx.Addr, 20)
	mx.Settle()
	stored := make(map[string]bool)
	for _, m := range mx.Messages() {
		stored[m.Header.Get("Message-Id")] = true
	}
	require.Len(t, stored, 40)
}

// SIGTERM reaches Postfix's master, and Stop leaves nothing behind. Fails if
// initScript does not pass the signal on: Stop then has to kill.
func TestPostfixStop(t *testing.T) {
	t.Parallel()
	mx := Postfix(t, PostfixOptions{})
	smtpSource(t, mx.Addr, 1)
	mx.Stop()
	require.Empty(t, processes(t, mx.dir))
	mx.Stop() // of a stopped server is nothing
}

// dieEnv makes TestDeath, in a process of its own, start a Postfix and wait to
// be killed.
const dieEnv = "SMTPLB_PEERS_TEST_DIE"

// Peers die with a test binary that has no time to clean up. Fails without
// Pdeathsig, and with master itself as the first process of the namespace.
func TestDeath(t *testing.T) {
	if os.Getenv(dieEnv) != "" {
		mx := Postfix(t, PostfixOptions{})
		smtpSource(t, mx.Addr, 1)
		fmt.Println(mx.dir)
		select {}
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeath$")
	cmd.Env = append(os.Environ(), dieEnv+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	dir, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	dir = strings.TrimSpace(dir)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NotEmpty(t, processes(t, dir))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return len(processes(t, dir)) == 0 }, startTimeout, pollInterval)
}

// Mail passes nginx, HAProxy and smtp-sink as the tests start them. Fails with
// a wrong address in any of the three configurations.
func TestProxies(t *testing.T) {
	t.Parallel()
	sink := SMTPSink(t)
	nginxAddr, haproxyAddr := ReserveAddr(t), ReserveAddr(t)
	nginx := NginxStream(t, nginxAddr, fmt.Sprintf("server { listen %s; proxy_pass %s; }", nginxAddr, sink.Addr))
	haproxy := HAProxy(t, haproxyAddr, fmt.Sprintf("listen mail\n bind %s\n server mx %s\n", haproxyAddr, nginx.Addr))
	smtpSource(t, haproxy.Addr, 50)

	require.Len(t, nginx.PIDs(), 2) // master and worker
	for _, d := range []*Daemon{haproxy, nginx, sink} {
		pids := d.PIDs()
		require.NotEmpty(t, pids, d.name)
		d.Stop()
		for _, pid := range pids {
			require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, d.name)
		}
		_, err := net.Dial("tcp", d.Addr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, d.name)
	}
}

// awaitLog waits until a peer's log has the text: a server may write its lines
// when the client has its replies already.
func awaitLog(t *testing.T, d *Daemon, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(d.Log(), text) }, startTimeout, pollInterval, text)
}

// smtpSource sends messages of 1 KiB on ten connections at a time.
func smtpSource(t *testing.T, addr string, messages int) {
	t.Helper()
	Run(t, "smtp-source", "-d", "-s", "10", "-m", fmt.Sprint(messages), "-l", "1024",
		"-f", "ann@example.org", "-t", "bob@example.test", addr)
}

// dialogue sends all commands at once and returns all that comes until the
// server closes.
func dialogue(t *testing.T, addr, commands string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = c.Write([]byte(commands))
	require.NoError(t, err)
	var replies bytes.Buffer
	_, err = replies.ReadFrom(c)
	require.NoError(t, err)
	return replies.String()
}

// processes returns the command lines of all processes with a working directory
// or an argument under dir.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []string
	for _, entry := range entries {
		// Both are empty for a process that is just ending.
		cwd, _ := os.Readlink(filepath.Join(entry, "cwd"))
		args, _ := os.ReadFile(filepath.Join(entry, "cmdline"))
		if strings.HasPrefix(cwd, dir) || bytes.Contains(args, []byte(dir)) {
			found = append(found, string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return found
}
