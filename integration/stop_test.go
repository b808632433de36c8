package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// inGap runs n sessions of a client at once and returns when the server has
// each one's message whole and has not answered its final dot. Every session
// sends as many bytes, so that tells.
func inGap(t *testing.T, c *ledger.Client, a *ledger.Server, n int) (wait func()) {
	t.Helper()
	c.Sessions, c.Concurrency, c.Size = n, n, 4096
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	smtptest.Eventually(t, patience, "every session is between final dot and reply", func() bool {
		whole := 0
		sessions := a.Sessions()
		for _, s := range sessions {
			if s.Received > 4096 && s.Received == sessions[0].Received {
				whole++
			}
		}
		return whole == n
	})
	return func() { <-done }
}

// SIGQUIT lets every session end by itself, T5 case 1: 50 that wait for the
// reply to their final dot get it, slowly, and say goodbye. Nobody new is
// taken, and the process leaves no pid file and says 0.
//
// Fails if the sessions are closed at once, and if the listeners stay open
// until the end.
func TestQuitWaitsForSessions(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	a := ledger.NewServer(t, smtptest.Script{Name: "a", Dot: smtptest.Step{Until: answer, ByteGap: 50 * time.Millisecond}})
	client := &ledger.Client{Addr: freeAddr(t)}
	pid := filepath.Join(t.TempDir(), "pid")
	p := smtptest.Start(t, fmt.Sprintf("pid = %q\n", pid)+workers(2)+upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail"))
	text, err := os.ReadFile(pid)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintln(p.Pid()), string(text))

	wait := inGap(t, client, a, 50)
	p.Signal(syscall.SIGQUIT)
	p.Await("graceful stop, waiting for sessions", 1)
	requireRefused(t, client.Addr)
	close(answer)
	wait()
	requireAll(t, client, a)
	require.Zero(t, p.Exit(patience))
	require.NoFileExists(t, pid)
	require.Zero(t, p.Count(`\[(warn|error|crit|alert)\]`))
}

// When worker_shutdown_timeout is over, T5 case 2, a session in which the
// client is to speak is cut, and one in which the server owes an answer still
// gets it: nothing is lost and nothing sent twice.
//
// Fails if all sessions are cut at the deadline, or none.
func TestQuitAfterDeadline(t *testing.T) {
	t.Parallel()
	const gaps, idles = 20, 5
	answer := make(chan struct{})
	a := ledger.NewServer(t, smtptest.Script{Name: "a", Dot: smtptest.Step{Until: answer}})
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, "worker_shutdown_timeout = '1s'\n"+workers(2)+upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail"))

	wait := inGap(t, client, a, gaps)
	idle := hold(t, &ledger.Client{Addr: client.Addr}, idles)
	p.Signal(syscall.SIGQUIT)
	p.Await(fmt.Sprintf(`worker_shutdown_timeout has passed, sessions cut \{"ended": %d, "half_closed": %d`, idles, gaps), 1)
	for _, h := range idle {
		require.ErrorContains(t, h.Noop(), "EOF")
		h.Abandon()
	}
	close(answer)
	wait()
	require.Zero(t, p.Exit(patience))
	report := ledger.Reconcile(client, a)
	require.NoError(t, report.Err())
	require.Equal(t, gaps, report.Accepted, "%v", report)
	require.Empty(t, report.Unconfirmed)
}

// SIGTERM takes nothing more from any client, but what servers answer within
// stop_timeout arrives: replies to final dots, and to its last byte a reply
// that a slow client has still to take.
//
// Fails if stop_timeout is not waited for, or if a splice that wrote less than
// the pipe holds is taken for a whole one.
func TestTermDeliversReplies(t *testing.T) {
	t.Parallel()
	const gaps = 20
	long := strings.Repeat("250-"+strings.Repeat("x", 60)+"\r\n", 100_000) + "250 ok\r\n" // 6.6 MB
	answer := make(chan struct{})
	a := ledger.NewServer(t, smtptest.Script{Name: "a", Dot: smtptest.Step{Until: answer}, Noop: smtptest.Step{Reply: long}})
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, "stop_timeout = '15s'\n"+workers(2)+upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail"))
	wait := inGap(t, client, a, gaps)
	slow, err := net.Dial("tcp", client.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { slow.Close() })
	require.NoError(t, slow.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(slow, "NOOP\r\n")
	require.NoError(t, err)
	const greeting = "220 a ESMTP smtptest\r\n"
	_, err = io.ReadFull(slow, make([]byte, len(greeting)+1)) // the reply has begun
	require.NoError(t, err)

	p.Signal(syscall.SIGTERM)
	p.Await("fast stop", 1)
	requireRefused(t, client.Addr)
	close(answer)
	rest, err := io.ReadAll(slow)
	require.NoError(t, err)
	require.Equal(t, len(long)-1, len(rest))
	require.True(t, bytes.HasSuffix(rest, []byte("250 ok\r\n")))
	slow.Close()
	wait()
	require.Zero(t, p.Exit(patience))
	report := ledger.Reconcile(client, a)
	require.NoError(t, report.Err())
	require.Equal(t, gaps, report.Accepted, "%v", report)
}

// A stop that takes long is hurried by a TERM, be it a graceful or a fast one,
// and by worker_shutdown_timeout and stop_timeout at the latest.
//
// Fails if a signal that comes while the process stops is not looked at.
func TestTermHurries(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	for name, test := range map[string]struct {
		settings string
		signals  []syscall.Signal
	}{
		"quit-term-term": {"", []syscall.Signal{syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTERM}},
		"term-int":       {"stop_timeout = '1h'\n", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}},
		"quit-term":      {"stop_timeout = '500ms'\n", []syscall.Signal{syscall.SIGQUIT, syscall.SIGTERM}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := ledger.NewServer(t, smtptest.Script{Name: "a", Dot: smtptest.Step{Until: never}})
			client := &ledger.Client{Addr: freeAddr(t)}
			p := smtptest.Start(t, test.settings+workers(2)+upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail"))
			inGap(t, client, a, 3)
			for _, s := range test.signals {
				line := "fast stop"
				if s == syscall.SIGQUIT {
					line = "graceful stop"
				}
				n := p.Count(line)
				p.Signal(s)
				if n == 0 {
					p.Await(line, 1)
				}
			}
			start := time.Now()
			require.Zero(t, p.Exit(patience))
			require.Less(t, time.Since(start), 9*time.Second, "stop_timeout is 10s without being set")
			p.Await("sessions ended by the stop", 1)
		})
	}
}

// A stop is heard whatever else was sent before, while the process was busy: here
// with a log that nobody reads, and that takes its time to be opened anew.
//
// Fails if all signals come through one channel, be it for 16.
func TestStopIsHeard(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	addr, fifo := freeAddr(t), filepath.Join(shortDir(t), "log")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	room, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 4096)
	require.NoError(t, err)
	p := smtptest.Launch{}.Start(t, fmt.Sprintf("error_log = %q\n", fifo)+upstream("mail", server(a.Addr()))+proxy(addr, "mail"))
	smtptest.Eventually(t, patience, "it listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	smtptest.Eventually(t, patience, "the log is full", func() bool {
		p.Signal(syscall.SIGUSR2)
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		require.NoError(t, err)
		return n > room-100
	})
	p.Signal(syscall.SIGUSR2)
	p.Signal(syscall.SIGUSR1)
	pause := time.NewTicker(2 * time.Millisecond) // lest the kernel make one of them
	defer pause.Stop()
	for range 40 {
		<-pause.C
		p.Signal(syscall.SIGUSR2)
	}
	<-pause.C
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit(patience))
}

// SIGUSR1, and a reload as in nginx, go on with new files where the logs were,
// after these were renamed; no line is lost in between, and when the log says that
// it is done, nobody writes to the old files any more.
//
// Fails if an old file is kept, by either signal, or if it is said before.
func TestRotation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		signal syscall.Signal
		done   string
	}{{syscall.SIGUSR1, "log reopened"}, {syscall.SIGHUP, "reload done"}} {
		t.Run(test.done, func(t *testing.T) {
			t.Parallel()
			a := mx(t, "a")
			addr, dir := freeAddr(t), t.TempDir()
			lines := func(name, what string) int {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					return 0
				}
				return strings.Count(string(text), what)
			}
			p := smtptest.Launch{}.Start(t, fmt.Sprintf("error_log = { path = '%s/log', level = 'info' }\n", dir)+
				"[[log_format]]\nname = 'end'\nformat = '$session_end'\n"+
				upstream("mail", server(a.Addr()))+
				proxy(addr, "mail", fmt.Sprintf("access_log = { path = '%s/access', format = 'end' }", dir)))
			smtptest.Eventually(t, patience, "the log says ready", func() bool { return lines("log", "] ready {") == 1 })
			client := &ledger.Client{Addr: addr, Concurrency: 2}
			stop := run(t, client)
			more(t, client, 20)
			for _, name := range []string{"log", "access"} {
				require.NoError(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".1")))
			}
			more(t, client, 20)
			require.NoFileExists(t, filepath.Join(dir, "log"))
			p.Signal(test.signal)
			smtptest.Eventually(t, patience, test.done, func() bool { return lines("log", test.done) == 1 })
			whole, wholeAccess := lines("log.1", "\n"), lines("access.1", "\n")
			more(t, client, 20)
			stop()
			requireAll(t, client, a)
			p.Signal(syscall.SIGTERM)
			require.Zero(t, p.Exit(patience))
			require.Equal(t, whole, lines("log.1", "\n"))
			require.Equal(t, wholeAccess, lines("access.1", "\n"))
			require.Equal(t, client.Tally().Sessions, lines("log", "session ended")+lines("log.1", "session ended"))
			require.Equal(t, client.Tally().Sessions, lines("access", "\n")+lines("access.1", "\n"))
			require.Empty(t, p.Log(), "the log is in the file")
		})
	}
}

// A program that is killed, under whatever starts it again, listens again as
// soon as it runs, and no mail is lost, T24: only messages whose reply was
// under way are stored without their client's knowledge. The pid file and the
// unix socket that it left behind are no obstacle.
//
// Fails if a leftover of the dead process stops the start.
func TestKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	a := ledger.NewServer(t, smtptest.Script{Name: "a", Dot: smtptest.Step{Jitter: 20 * time.Millisecond}})
	b := ledger.NewServer(t, smtptest.Script{Name: "b", Dot: smtptest.Step{Jitter: 20 * time.Millisecond}})
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 10, Rate: 200}
	dir := shortDir(t)
	config := fmt.Sprintf("pid = '%s/pid'\n", dir) + workers(2) +
		upstream("mail", server(a.Addr()), server(b.Addr())) +
		proxy(client.Addr, "mail") + proxy("unix:"+dir+"/smtp", "mail")
	p := smtptest.Start(t, config)
	stop := run(t, client)
	for range 3 {
		more(t, client, 100)
		p.Signal(syscall.SIGKILL)
		require.Equal(t, -1, p.Exit(patience))
		dead := time.Now()
		p = smtptest.Launch{}.Start(t, config)
		smtptest.Eventually(t, patience, "it listens again", func() bool {
			conn, err := net.Dial("tcp", client.Addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		t.Logf("listens again after %v", time.Since(dead))
		p.Ready()
	}
	more(t, client, 100)
	stop()
	report := ledger.Reconcile(client, a, b)
	require.NoError(t, report.Err())
	require.Positive(t, report.Broken)
	requireInGap(t, client, report)
	t.Logf("%v", report)
}
