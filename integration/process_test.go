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
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// background is a program that has left its starter, known by its pid file.
type background struct {
	t       *testing.T
	program string
	dir     string // has its files: conf.toml, pid, log
	pid     int
}

// startBackground starts the program in the background and returns when the
// command does. The test ends it.
func startBackground(t *testing.T, program, dir, config string) *background {
	t.Helper()
	b := &background{t: t, program: program, dir: dir}
	endByPidFile(t, b.path("pid"))
	b.configure(config)
	o := b.command()
	require.Zero(t, o.code, o.stderr)
	require.Empty(t, o.stdout+o.stderr)
	text, err := os.ReadFile(b.path("pid"))
	require.NoError(t, err, "there when the command returns")
	b.pid, err = strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of process %d:\n%s", b.pid, b.log())
		}
	})
	return b
}

// endByPidFile ends, with the test, whoever is in the pid file then: a process
// in the background is nobody's child.
func endByPidFile(t *testing.T, path string) {
	t.Helper()
	t.Cleanup(func() {
		text, _ := os.ReadFile(path)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), "conf.toml") { // not another of that number
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

func (b *background) path(name string) string { return filepath.Join(b.dir, name) }

func (b *background) configure(config string) {
	b.t.Helper()
	text := "daemon = true\npid = 'pid'\nerror_log = 'log'\n" + config
	require.NoError(b.t, os.WriteFile(b.path("conf.toml"), []byte(text), 0o644))
}

// command runs the program on the configuration, where all paths are relative.
func (b *background) command(args ...string) outcome {
	b.t.Helper()
	cmd := exec.Command(b.program, append([]string{"-p", "./", "-c", "conf.toml"}, args...)...)
	cmd.Dir = b.dir
	return outcomeOf(b.t, cmd)
}

// signal is -s, which has to work and to say nothing.
func (b *background) signal(name string) {
	b.t.Helper()
	require.Equal(b.t, outcome{}, b.command("-s", name))
}

func (b *background) log() string {
	text, _ := os.ReadFile(b.path("log"))
	return string(text)
}

func (b *background) await(pattern string, n int) {
	b.t.Helper()
	re := regexp.MustCompile(pattern)
	smtptest.Eventually(b.t, patience, fmt.Sprintf("%d times %q in the log", n, pattern), func() bool {
		return len(re.FindAllStringIndex(b.log(), -1)) >= n
	})
}

// ended waits for the end of the process. Somebody else is its parent now, and
// may be slow to take notice of its end.
func (b *background) ended() {
	b.t.Helper()
	smtptest.Eventually(b.t, patience, "the end of the process", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.pid))
		return err != nil || strings.Contains(string(text), ") Z ")
	})
}

// In the background the program is ready when the command returns, in a session
// of its own, with nothing of the starter's; it obeys -s, and what the runtime
// says of a crash is in the log.
//
// Fails if the command returns before the ports are open, if the terminal stays
// open as standard error, if the process keeps the starter's session, and if
// crashes go to standard error alone.
func TestDaemon(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	addr := freeAddr(t)
	config := upstream("mail", server(a.Addr())) + proxy(addr, "mail")
	b := startBackground(t, asNginx(t), shortDir(t), config)
	require.Equal(t, "a", visits(t, addr, 1))

	session, err := unix.Getsid(b.pid)
	require.NoError(t, err)
	require.Equal(t, b.pid, session)
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", b.pid, fd))
		require.NoError(t, err)
		require.Equal(t, os.DevNull, to)
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", b.pid))
	require.NoError(t, err)
	require.Equal(t, "nginx\n", string(name), "as start-stop-daemon seeks it")

	second := b.command()
	require.Equal(t, 1, second.code)
	require.Regexp(t, `^nginx: \[emerg\] .*address already in use`, second.stderr)
	require.Equal(t, 1, strings.Count(second.stderr, "\n"), second.stderr)
	b.await(`\[emerg\] start failed \{"error": ".*address already in use`, 1)

	b.signal("reload")
	b.await("reload done", 1)
	require.NoError(t, os.Rename(b.path("log"), b.path("log.1")))
	b.signal("reopen")
	b.await("log reopened", 1)
	b.configure(config + "[[server]]\nlisten = 'nowhere'\n")
	require.Equal(t, 1, b.command("-s", "reload").code, "as nginx's does")
	b.configure(config)
	require.Equal(t, "a", visits(t, addr, 1))

	require.NoError(t, syscall.Kill(b.pid, syscall.SIGUSR2))
	b.await(`\[error\] SIGUSR2: .* restart it instead`, 1)
	b.signal("quit")
	b.ended()
	require.NoFileExists(t, b.path("pid"))
	require.Contains(t, b.log(), "] stopped {")
	b.command("-s", "quit")

	b = startBackground(t, b.program, b.dir, config)
	require.NoError(t, syscall.Kill(b.pid, syscall.SIGABRT))
	b.ended()
	require.Contains(t, b.log(), "SIGABRT: abort")
}

// A process in the background that cannot start says why where the command was
// given, whose exit code tells it, and leaves nothing. One whose log is
// standard error keeps that.
//
// Fails if the command succeeds as soon as the other process exists.
func TestDaemonRefused(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	endByPidFile(t, dir+"/pid")
	config := filepath.Join(dir, "conf.toml")
	addr := freeAddr(t)
	write := func(text string) {
		require.NoError(t, os.WriteFile(config, []byte("daemon = true\n"+text+proxy(addr, "192.0.2.1:25")), 0o644))
	}
	run := func() outcome {
		cmd := exec.Command(smtptest.Build(t), "-c", config)
		cmd.WaitDelay = patience
		return outcomeOf(t, cmd)
	}
	write("user = 'no-such-user'\n")
	got := run()
	require.Equal(t, 1, got.code)
	require.Regexp(t, `^smtplb: \[emerg\] .*getpwnam\("no-such-user"\) failed.*\n$`, got.stderr)

	write("working_directory = '" + dir + "/none'\npid = '" + dir + "/pid'\n")
	got = run()
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "smtplb: [emerg] working_directory: chdir "+dir+"/none: no such file or directory\n")
	require.NoFileExists(t, dir+"/pid")
	requireRefused(t, addr)
}

// threadStatuses is what the kernel knows of each thread of a process.
func threadStatuses(t *testing.T, pid int) []string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	var all []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil { // else the thread has ended
			all = append(all, string(text))
		}
	}
	require.NotEmpty(t, all)
	return all
}

// Started by root, the program becomes the user that the configuration names,
// with all threads, and with no right but to bind ports: at a reload, too. The
// log goes on in files that are the user's, and in the old one otherwise; the
// pid file is emptied where it cannot be removed; and -t tells beforehand what
// the user could not open.
//
// Fails if groups, capabilities or no_new_privs are left out (the program then
// refuses to start); if the change is made before the ports are bound or for one
// thread; if the capability is not kept; if the log keeps root as its owner; and
// if the pid file stays as it is.
func TestUser(t *testing.T) {
	if smtptest.RaceEnabled() {
		t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
	}
	t.Parallel()
	a := mx(t, "a")
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	host := fmt.Sprintf("127.25.%d.%d", os.Getpid()/250%250, 1+os.Getpid()%250) // ours alone
	config := func(ports ...string) string {
		text := "user = 'nobody:daemon'\nworking_directory = '/var'\n" + workers(2) + upstream("mail", server(a.Addr()))
		for _, port := range ports {
			text += proxy(net.JoinHostPort(host, port), "mail")
		}
		return text
	}
	b := startBackground(t, smtptest.Build(t), dir, config("25"))
	for _, status := range threadStatuses(t, b.pid) {
		require.Regexp(t, `(?m)^Uid:\t65534\t65534\t65534\t65534$`, status)
		require.Regexp(t, `(?m)^Gid:\t1\t1\t1\t1$`, status)
		require.Regexp(t, `(?m)^Groups:\t1 65534 $`, status)
		require.Regexp(t, `(?m)^CapPrm:\t0{13}400$`, status)
		require.Regexp(t, `(?m)^CapEff:\t0{13}400$`, status)
		require.Regexp(t, `(?m)^CapBnd:\t0{13}400$`, status)
		require.Regexp(t, `(?m)^Cap(Inh|Amb):\t0{16}$`, status)
		require.Regexp(t, `(?m)^NoNewPrivs:\t1$`, status)
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", b.pid))
	require.NoError(t, err)
	require.Equal(t, "/var", cwd)
	require.Equal(t, "aa", visits(t, host+":25", 2))

	// The pid file is found and the port bound, by another user elsewhere.
	b.configure(config("25", "26"))
	b.signal("reload")
	b.await("reload done", 1)
	require.NotContains(t, b.log(), "[warn]", "neither of the reload nor of the start")
	require.Equal(t, "aa", visits(t, host+":26", 2))

	// logrotate's way without "create", and with it.
	require.NoError(t, os.Rename(b.path("log"), b.path("log.1")))
	b.signal("reopen")
	rotated := func() string { text, _ := os.ReadFile(b.path("log.1")); return string(text) }
	smtptest.Eventually(t, patience, "a word in the old log", func() bool { return strings.Contains(rotated(), "log not reopened") })
	require.NoFileExists(t, b.path("log"))
	require.NoError(t, os.WriteFile(b.path("log"), nil, 0o640))
	require.NoError(t, os.Chown(b.path("log"), 65534, -1))
	b.signal("reopen")
	b.await("log reopened", 1)

	// A file that only root may read.
	require.NoError(t, os.WriteFile(b.path("more.toml"), nil, 0o600))
	b.configure("include = 'more.toml'\n" + config("25", "26"))
	tested := b.command("-t")
	require.Zero(t, tested.code)
	require.Contains(t, tested.stderr, "smtplb: [warn] user \"nobody\": more.toml: permission denied: a reload cannot read it\n")
	require.Contains(t, tested.stderr, `smtplb: [warn] user "nobody": `+dir+": permission denied: a log that was renamed is written on unless")
	require.Equal(t, 2, strings.Count(tested.stderr, "[warn]"), tested.stderr)
	b.signal("reload")
	b.await("reload failed, keeping the running configuration.*more.toml: permission denied", 1)
	require.Equal(t, "aa", visits(t, host+":26", 2))

	b.configure(config("25", "26"))
	b.signal("stop")
	b.ended()
	text, err := os.ReadFile(b.path("pid"))
	require.NoError(t, err)
	require.Empty(t, string(text))
	got := b.command("-s", "stop")
	require.Equal(t, fmt.Sprintf("smtplb: [error] invalid PID number \"\" in %q\n", b.path("pid")), got.stderr)

	// The next start finds it all usable.
	b = startBackground(t, b.program, dir, config("25"))
	require.Equal(t, "a", visits(t, host+":25", 1))
}

// A log that root has made in a directory of the user's stays root's: the start
// says so, and not only the reload that cannot open it anew.
//
// Fails if only -t looks, or at error logs alone.
func TestUserCannotReopen(t *testing.T) {
	t.Parallel()
	if smtptest.RaceEnabled() {
		t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
	}
	dir := openDir(t)
	require.NoError(t, os.Chown(dir, 65534, -1))
	p := smtptest.Start(t, "user = 'nobody'\n[[log_format]]\nname = 'f'\nformat = '$status'\n"+
		proxy(freeAddr(t), "192.0.2.1:25", fmt.Sprintf("access_log = { path = '%s/log', format = 'f' }", dir)))
	p.Await(`\[warn\] user "nobody": `+dir+`/log: permission denied: the log cannot be opened again`, 1)
	hangUp(t, p)
	p.Await("access log not reopened, writing to the old file", 1)
}

// A right that only some configurations need is kept for them alone: a reload
// that needs it later is refused, and a start with it works as another user.
//
// Fails if the right is kept always, or never.
func TestUserTransparent(t *testing.T) {
	t.Parallel()
	if smtptest.RaceEnabled() {
		t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
	}
	a := mx(t, "a")
	addr := freeAddr(t)
	without := "user = 'nobody'\n" + proxy(addr, a.Addr())
	with := "user = 'nobody'\n" + proxy(addr, a.Addr(), "proxy_bind = { address = '127.0.0.9', transparent = true }")
	p := smtptest.Start(t, without)
	p.Configure(with)
	p.Signal(syscall.SIGHUP)
	p.Await(`reload failed, .*CAP_NET_RAW`, 1)
	require.Equal(t, "a", visits(t, addr, 1))
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit(patience))

	p = smtptest.Start(t, with)
	for _, status := range threadStatuses(t, p.Pid()) {
		require.Regexp(t, `(?m)^CapEff:\t0{12}2400$`, status)
	}
	require.Equal(t, "a", visits(t, addr, 1))
	hangUp(t, p)
	require.Equal(t, "a", visits(t, addr, 1))
}

// A container's log leads to standard error by a link. The user, who could not
// open root's pipe, need not.
//
// Fails if the link is followed like any other.
func TestUserLogsToStderr(t *testing.T) {
	t.Parallel()
	if smtptest.RaceEnabled() {
		t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
	}
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	link := filepath.Join(dir, "error.log")
	require.NoError(t, os.Symlink("/dev/stderr", link))
	p := smtptest.Start(t, fmt.Sprintf("user = 'nobody'\nerror_log = %q\n", link)+proxy(freeAddr(t), "192.0.2.1:25"))
	hangUp(t, p)
	p.Signal(syscall.SIGUSR1)
	p.Await("log reopened", 1)
	require.Zero(t, p.Count(`\[error\]`))
}

// A user that only root could become is a warning to anybody else.
//
// Fails if the program then refuses to start.
func TestUserWithoutRoot(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	addr := freeAddr(t)
	p := smtptest.Launch{Credential: nobody}.Start(t, "user = 'daemon'\n"+proxy(addr, a.Addr()))
	p.Ready()
	p.Await(`\[warn\] .*the \\?"user\\?" directive makes sense only if .* super-user privileges, ignored`, 1)
	require.Equal(t, "a", visits(t, addr, 1))
}

// A syslog daemon that reads nothing holds up nobody: not the sessions, not a
// reload, not the end.
//
// Fails if a line is written where it is logged.
func TestSyslogBlocked(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Sessions: 50}
	socket := filepath.Join(shortDir(t), "log")
	daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	require.NoError(t, err)
	t.Cleanup(func() { daemon.Close() })
	read := func() string {
		line := make([]byte, 4096)
		n, err := daemon.Read(line)
		require.NoError(t, err)
		return string(line[:n])
	}

	config := fmt.Sprintf("error_log = { path = 'syslog:server=unix:%s,facility=mail,tag=lb,nohostname', level = 'info' }\n", socket) +
		upstream("mail", server(a.Addr())) + proxy(client.Addr, "mail")
	p := smtptest.Launch{}.Start(t, config)
	for line := ""; !strings.Contains(line, "] ready {"); line = read() {
		if line != "" {
			require.Regexp(t, `^<21>\w{3} [ \d]\d \d\d:\d\d:\d\d lb: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[notice\] server \{`, line)
		}
	}
	start := time.Now()
	client.Run(t.Context())
	requireAll(t, client, a)
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGUSR1)
	client.Run(t.Context())
	requireAll(t, client, a)
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Exit(patience))
	t.Logf("took %v", time.Since(start))
	require.Empty(t, p.Log())
}
