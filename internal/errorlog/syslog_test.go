package errorlog

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func longString(n int) string { return strings.Repeat("x", n) }

// daemon is a syslog server that the test reads from.
func daemon(t *testing.T, path string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("unixgram", path)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	return c
}

func receive(t *testing.T, c net.PacketConn) string {
	t.Helper()
	p := make([]byte, 64<<10)
	n, _, err := c.ReadFrom(p)
	require.NoError(t, err)
	return string(p[:n])
}

// Each record is one datagram, with its level as the severity, whatever is in
// it, T28.
//
// Fails if the severity is fixed, if a line's end is sent, if a byte is not
// escaped, or if a long line is not cut.
func TestSyslogLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	server := daemon(t, path)
	log := mustOpen(t, "syslog:server=unix:"+path+",facility=mail,tag=lb", Debug)
	host, err := os.Hostname()
	require.NoError(t, err)
	stamp := `\w{3} [ \d]\d \d\d:\d\d:\d\d `
	for n, name := range []string{"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"} {
		level, err := ParseLevel(name)
		require.NoError(t, err)
		log.Logger().Log(level, "word [crit] word")
		require.Regexp(t, fmt.Sprintf(`^<%d>%s%s lb: \S+ \S+ \[%s\] word \[crit\] word$`, 2*8+n, stamp, regexp.QuoteMeta(strings.ToLower(host)), name), receive(t, server))
	}
	for b := range 256 {
		log.Logger().Info("from " + string([]byte{byte(b)}) + " outside")
		got := receive(t, server)
		require.NotRegexp(t, `[\x00-\x1f\x7f]`, got)
		require.Contains(t, got, "] from ")
	}
	log.Logger().Info(longString(5000))
	_, text, _ := strings.Cut(receive(t, server), " lb: ")
	require.Len(t, text, longestSyslog)
}

// A daemon that stops and comes back gets the next line; what was logged
// meanwhile is counted, and the count told.
//
// Fails if the connection of the old daemon is kept.
func TestSyslogRestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	log := mustOpen(t, "syslog:server=unix:"+path+",nohostname", Info)
	log.Logger().Info("before there is a daemon")
	require.NoError(t, log.Sync(patience))
	require.EqualValues(t, 1, log.Dropped())

	server := daemon(t, path)
	log.Logger().Info("one")
	both := []string{receive(t, server), receive(t, server)}
	slices.Sort(both) // a writer that was late tells the loss first
	require.Contains(t, both[0], `log lines dropped {"lines": 1}`)
	require.Contains(t, both[1], "] one")
	closeForAll(t, server)
	require.NoError(t, os.RemoveAll(path))
	server = daemon(t, path)
	log.Logger().Info("two")
	require.Contains(t, receive(t, server), "] two")
	require.NoError(t, log.Sync(patience))
	require.EqualValues(t, 1, log.Dropped())
}

// A daemon that takes nothing delays neither who logs nor, for longer than it
// is given, the end; lines are lost and counted.
//
// Fails if a line under way does not end with the log.
func TestSyslogBlocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	daemon(t, path) // reads nothing; its queue has room for some lines
	log, err := Open(Target{"syslog:server=unix:" + path, Info})
	require.NoError(t, err)
	start := time.Now()
	for range 10_000 {
		log.Logger().Info(longString(1000))
	}
	require.Less(t, time.Since(start), patience)
	require.Eventually(t, func() bool { return log.Dropped() > 0 }, patience, 5*time.Millisecond)
	queue := queueOf(log)
	_ = log.Close(100 * time.Millisecond)
	require.True(t, queue.Wait(patience), "the writer waits for ever")
}

// UDP to a port where nobody listens: the answer of the network is no reason to
// lose every second line.
func TestSyslogUDP(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	require.NoError(t, server.SetReadDeadline(time.Now().Add(patience)))
	log := mustOpen(t, "syslog:server="+server.LocalAddr().String(), Info)
	log.Logger().Warn("word")
	require.Regexp(t, `^<188>.* errorlog: .*\[warn\] word$`, receive(t, server))

	_, err = Open(Target{"syslog:server=no-such-host.invalid", Info})
	require.ErrorContains(t, err, "host not found in syslog server")
}
