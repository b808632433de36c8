package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// A door is a server block of TestErrorLogsAsNginx: whom it passes to, and what
// else it says.
type door struct{ server, lines string }

// Which lines about sessions are in which file: nginx and smtplb run on the same
// nginx.conf, with several targets in main, in the stream block and in servers, at
// other levels, and with a file that all of them name; and have the same sessions,
// one after the other. What is about the process is in main's files alone.
//
// Fails if a level inherits beside its own, if a target has the level of another,
// if the first line of a session is in main's log, or if a file that is named
// twice has a line once.
func TestErrorLogsAsNginx(t *testing.T) {
	t.Parallel()
	w := newLogWorld(t)
	doors := []door{
		{w.talker, ""},
		{w.refused, ""},
		{w.refused, "error_log $dir/own.log info; error_log $dir/own-too.log error; error_log $dir/all.log crit;"},
		{w.talker, "error_log $dir/own.log info; error_log $dir/all.log info; error_log $dir/all.log info;"},
		{w.talker, "deny all;"},
		{w.talker, "error_log $dir/own-too.log; deny all;"},
		{w.talker, "limit_conn z 1; limit_conn_log_level notice; error_log $dir/own.log notice;"},
		{"unix:" + w.dir + "/none", "error_log $dir/own.log alert; error_log $dir/own-too.log crit;"},
		{w.talker, "error_log $dir/quiet.log emerg;"},
		{w.talker, "listen $host:%d proxy_protocol; set_real_ip_from 127.0.0.0/8; error_log $dir/own-too.log info;"},
	}
	ports := make([]int, len(doors))
	stream := strings.Builder{}
	stream.WriteString("limit_conn_zone $remote_addr zone=z:1m;\n")
	for i, d := range doors {
		ports[i] = smtptest.FreePort(t)
		lines := fmt.Sprintf("listen $host:%d; ", ports[i]) + d.lines
		if strings.Contains(d.lines, "%d") {
			lines = fmt.Sprintf(d.lines, ports[i])
		}
		fmt.Fprintf(&stream, "upstream g%d { server %s max_fails=0; }\nserver { %s proxy_pass g%d; }\n", i, d.server, lines, i)
	}
	stream.WriteString("error_log $dir/stream.log info;\nerror_log $dir/all.log warn;\n")
	sides := quietly(t, ports[0], "error_log $dir/main.log info;\nerror_log $dir/main-error.log;\nerror_log $dir/all.log error;", stream.String())

	files := []string{"main.log", "main-error.log", "all.log", "stream.log", "own.log", "own-too.log", "quiet.log"}
	var said [2]map[string]string
	for i, s := range sides {
		dial := func(port int) net.Conn {
			c, err := net.Dial("tcp", s.at(port))
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			return c
		}
		for _, port := range ports {
			c := dial(port)
			var second net.Conn
			if port == ports[6] { // the limit is one
				w.greeted(t, c)
				second = dial(port)
				ends(t, second)
			}
			_, err := c.Write([]byte("QUIT"))
			require.NoError(t, err)
			ends(t, c)
			c.Close()
		}
		s.quit()
		said[i] = sessionLinesOf(t, s, files, ports)
		main, err := os.ReadFile(filepath.Join(s.dir, "main.log"))
		require.NoError(t, err)
		require.Regexp(t, `\[notice\] \d+#\d+: (ready|start worker process )`, string(main))
	}
	require.Equal(t, said[0], said[1])
	for _, name := range []string{"all.log", "stream.log", "own.log", "own-too.log"} {
		require.NotEmpty(t, said[0][name], name)
	}
	for _, name := range files[3:] {
		text, err := os.ReadFile(filepath.Join(sides[1].dir, name))
		require.NoError(t, err)
		require.NotRegexp(t, `ready|signal received|graceful stop|stopped`, string(text), name)
	}
}

// sessionLinesOf are the lines about sessions of each file, without time, process,
// number, and what differs between the sides.
func sessionLinesOf(t *testing.T, s leaving, files []string, ports []int) map[string]string {
	t.Helper()
	names := []string{s.dir, "DIR"}
	for i, port := range ports {
		names = append(names, s.at(port), "DOOR"+strconv.Itoa(i))
	}
	said := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		require.NoError(t, err)
		var lines []string
		for _, m := range sessionLine.FindAllStringSubmatch(string(text), -1) {
			line := m[1] + " " + strings.NewReplacer(names...).Replace(m[3])
			lines = append(lines, sourcePort.ReplaceAllString(line, "${1}PORT connected"))
		}
		said[name] = strings.Join(lines, "\n")
	}
	return said
}

// logFile reads a file of a running program once it has a pattern n times.
func logFile(t *testing.T, path, pattern string, n int) string {
	t.Helper()
	var text []byte
	at := regexp.MustCompile(pattern)
	smtptest.Eventually(t, patience, fmt.Sprintf("%s has %q %d times", path, pattern, n), func() bool {
		text, _ = os.ReadFile(path)
		return len(at.FindAll(text, -1)) >= n
	})
	return string(text)
}

// The logs of servers over SIGUSR1 and reloads: all are opened anew, those that a
// reload adds are there, a session goes on in the log that it began with, and what
// nobody names any more is closed.
//
// Fails if SIGUSR1 opens the process's log alone, if a session asks its listener
// for the log of the day, or if a reload forgets to release.
func TestServerErrorLogs(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	dir, client := openDir(t), &ledger.Client{Addr: freeAddr(t)}
	config := func(main, own string) string {
		return fmt.Sprintf("error_log = [{ path = 'stderr', level = 'notice' }, '%s/%s']\n", dir, main) +
			upstream("mail", server(a.Addr())) +
			proxy(client.Addr, "mail", fmt.Sprintf("error_log = [{ path = '%[1]s/%[2]s', level = 'info' }, '%[1]s/shared']", dir, own))
	}
	p := smtptest.Start(t, config("main", "one"))
	require.Equal(t, "a", visits(t, client.Addr, 1))
	logFile(t, dir+"/one", "session ended", 1)

	for _, name := range []string{"main", "one", "shared"} {
		require.NoError(t, os.Rename(dir+"/"+name, dir+"/"+name+".1"))
	}
	p.Signal(syscall.SIGUSR1)
	p.Await("log reopened", 1)
	require.Equal(t, "a", visits(t, client.Addr, 1))
	logFile(t, dir+"/one", "session ended", 1)
	logFile(t, dir+"/main", "log reopened", 1)
	require.Equal(t, 1, strings.Count(logFile(t, dir+"/one.1", "session ended", 1), "session ended"))
	require.FileExists(t, dir+"/shared")

	old := hold(t, client, 1)[0]
	reload(t, p, config("shared", "two"))
	require.Equal(t, "a", visits(t, client.Addr, 1))
	logFile(t, dir+"/two", "session ended", 1)
	require.NoError(t, old.Finish())
	require.Equal(t, 2, strings.Count(logFile(t, dir+"/one", "session ended", 2), "session ended"))
	require.Equal(t, 1, strings.Count(logFile(t, dir+"/two", "session ended", 1), "session ended"))
	logFile(t, dir+"/shared", "reload done", 1)

	require.Zero(t, opened(t, p, dir+"/main"))
	require.Equal(t, 1, opened(t, p, dir+"/shared"))
	require.Zero(t, p.Count("session ended"))
	smtptest.Eventually(t, patience, "the log of the old configuration is closed", func() bool {
		hangUp(t, p)
		return opened(t, p, dir+"/one") == 0
	})
}

// opened counts the descriptors that a process has of a file.
func opened(t *testing.T, p *smtptest.Process, path string) (n int) {
	t.Helper()
	for _, to := range smtptest.FDs(t, p.Pid()) {
		if to == path {
			n++
		}
	}
	return n
}

// A reload, a start and -t say where in the file the error_log or the pid stands
// that cannot be opened, and a reload that is refused changes nothing.
//
// Fails without the place, or if the process's log changes before all is known to
// be well.
func TestPlaceOfBadLogs(t *testing.T) {
	t.Parallel()
	dir, addr := openDir(t), freeAddr(t)
	good := fmt.Sprintf("pid = '%[1]s/pid'\nerror_log = ['stderr', '%[1]s/log']\n", dir) + proxy(addr, "192.0.2.1:25")
	bad := strings.NewReplacer("/log'", "/none/log'")
	worse := good + fmt.Sprintf("error_log = ['%s/new',\n '%s/none/x']\n", dir, dir)
	p := smtptest.Start(t, good)
	config := p.ConfigPath()
	for n, test := range []struct{ text, want string }{
		{bad.Replace(good), ":2:24: open error log: .*create the directory first"},
		{worse, ":8:2: open error log: .*create the directory first"},
		{strings.Replace(good, "/pid'", "/none/pid'", 1), ":1:7: write pid file .*create the directory first"},
	} {
		p.Configure(test.text)
		p.Signal(syscall.SIGHUP)
		p.Await("reload failed, keeping the running configuration", n+1)
		require.Regexp(t, regexp.QuoteMeta(config)+test.want, p.Log())
		require.Equal(t, 1, opened(t, p, dir+"/log"))
		require.Zero(t, opened(t, p, dir+"/new"))

		o := outcomeOf(t, exec.Command(smtptest.Build(t), "-t", "-c", config))
		require.Equal(t, 1, o.code)
		require.Regexp(t, regexp.QuoteMeta(config)+test.want, o.stderr)
		// A start of its own, elsewhere.
		other := filepath.Join(dir, "other.toml")
		require.NoError(t, os.WriteFile(other, []byte(strings.Replace(test.text, addr, freeAddr(t), 1)), 0o600))
		o = outcomeOf(t, exec.Command(smtptest.Build(t), "-c", other))
		require.Equal(t, 1, o.code)
		require.Regexp(t, regexp.QuoteMeta(other)+test.want, o.stderr)
	}
	reload(t, p, good)
}

// A log that takes nothing, of one server, delays no session there or elsewhere,
// and no line of another log.
//
// Fails if a session waits for a log, or if logs share what waits for them.
func TestBlockedServerLog(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	dir, blocked, free := openDir(t), freeAddr(t), freeAddr(t)
	require.NoError(t, syscall.Mkfifo(dir+"/fifo", 0o600))
	reader, err := os.OpenFile(dir+"/fifo", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { reader.Close() })
	smtptest.Start(t, upstream("mail", server(a.Addr()))+
		proxy(blocked, "mail", fmt.Sprintf("error_log = [{ path = '%[1]s/fifo', level = 'info' }, { path = '%[1]s/beside', level = 'info' }]", dir))+
		proxy(free, "mail", fmt.Sprintf("error_log = { path = '%s/free', level = 'info' }", dir)))
	const sessions = 400 // a FIFO takes 64 KiB
	for range sessions {
		require.Equal(t, "a", visits(t, blocked, 1))
	}
	require.Equal(t, "aaa", visits(t, free, 3))
	require.Len(t, regexp.MustCompile("session ended").FindAllString(logFile(t, dir+"/beside", "session ended", sessions), -1), sessions)
	logFile(t, dir+"/free", "session ended", 3)
}
