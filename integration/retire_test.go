package integration

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// What a configuration had for its sessions goes when the last of them has, and
// not before: seen by its access logs.

const portFormat = "[[log_format]]\nname = 'port'\nformat = '$remote_port'\n"

// portLog is a line of a server for a log that says each client's port. What it
// says stays in its buffer for as long as the log is open.
func portLog(path string) string {
	return fmt.Sprintf("access_log = { path = %q, format = 'port', buffer = '1m' }", path)
}

// holds reports whether the program has the file open.
func holds(t *testing.T, p *smtptest.Process, path string) bool {
	t.Helper()
	return slices.Contains(smtptest.FDs(t, p.Pid()), path)
}

func linesOf(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.Fields(string(text))
}

// A log that a reload removes is there for the sessions that began with it, and
// is complete and closed when the last one has ended, with no further reload and
// however many others come and go meanwhile.
//
// Fails if the reload releases the log at once (the line is lost), or if that waits
// until there is no session at all.
func TestLogEndsWithItsSessions(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t)}
	busy := &ledger.Client{Addr: freeAddr(t), Concurrency: 4}
	path := filepath.Join(t.TempDir(), "access.log")
	with := workers(2) + portFormat + proxy(busy.Addr, a.Addr()) + proxy(client.Addr, a.Addr(), portLog(path))
	without := workers(2) + proxy(busy.Addr, a.Addr()) + proxy(client.Addr, a.Addr())

	p := smtptest.Start(t, with)
	held := hold(t, client, 1)[0]
	stop := run(t, busy)
	reload(t, p, without)
	hangUp(t, p) // the configuration between is one that nobody holds
	more(t, busy, 20)
	require.True(t, holds(t, p, path))
	require.NoError(t, held.Finish())
	smtptest.Eventually(t, patience, "the log is closed", func() bool { return !holds(t, p, path) })
	_, port, err := net.SplitHostPort(held.Local())
	require.NoError(t, err)
	require.Equal(t, []string{port}, linesOf(t, path))
	stop()
	requireAll(t, busy, of{busy, a})
}

// A listener that goes together with its log, by one reload, while clients wait in
// its backlog: there was no room for them before, and each has its line in the end.
//
// Fails if the log does not wait for the listener to close: none of the sessions
// that there are at the reload has that log.
func TestLogOfTheLastInTheBacklog(t *testing.T) {
	t.Parallel()
	const waiting = 20
	a := mx(t, "a")
	stays, goes := freeAddr(t), freeAddr(t)
	path := filepath.Join(t.TempDir(), "access.log")
	common := "worker_rlimit_nofile = 512\n" + workers(2) + portFormat + proxy(stays, a.Addr(), noGate)
	p := smtptest.Start(t, common)

	client := &ledger.Client{Addr: stays}
	held := hold(t, client, sessionLimit(t, p))
	reload(t, p, common+proxy(goes, a.Addr(), noGate, portLog(path)))
	var clients []net.Conn
	var want []string
	for range waiting {
		c := open(t, "tcp", goes, quit)
		clients, want = append(clients, c), append(want, portOf(c))
	}
	p.Await("accepting paused", 1)
	reload(t, p, common)
	require.True(t, holds(t, p, path))

	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	for _, c := range clients {
		line, err := bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, "220 a")
		c.Close()
	}
	smtptest.Eventually(t, patience, "the log is closed", func() bool { return !holds(t, p, path) })
	require.ElementsMatch(t, want, linesOf(t, path))
}

// 200 reloads under load, each with a log of its own: no session's line is lost,
// and no log stays open but the last.
//
// Fails if a retired log is closed a moment too early, or never.
func TestReloadsUnderLoadWithLogs(t *testing.T) {
	t.Parallel()
	const reloads = 200
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 4}
	dir := t.TempDir()
	log := func(n int) string { return filepath.Join(dir, strconv.Itoa(n)) }
	config := func(n int) string {
		return workers(2) + portFormat + proxy(client.Addr, a.Addr(), portLog(log(n)))
	}
	p := smtptest.Start(t, config(0))
	before := smtptest.FDs(t, p.Pid())
	stop := run(t, client)
	for n := range reloads {
		reload(t, p, config(n+1))
		more(t, client, 1)
	}
	stop()
	reload(t, p, workers(2)+proxy(client.Addr, a.Addr()))
	smtptest.Eventually(t, patience, "all logs are closed", func() bool {
		return len(smtptest.FDs(t, p.Pid())) == len(before)-1
	})
	total := 0
	for n := range reloads + 1 {
		total += len(linesOf(t, log(n)))
	}
	require.Equal(t, client.Ended(), total)
	require.Zero(t, p.Count("lines lost"))
	requireAll(t, client, a)
}
