package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// A start that cannot succeed ends at once, with one line that says what is
// wrong and what to do, and a code that says failure. Whoever holds the port
// meanwhile is not disturbed by it, nor by -t, which opens no port.
//
// Fails if the error of a listener is only logged, and if -t binds.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	dir := shortDir(t)
	addr := freeAddr(t)
	good := upstream("mail", server(a.Addr())) + proxy(addr, "mail")
	smtptest.Start(t, good)

	for _, test := range []struct {
		name, config, want string
		user               *syscall.Credential
		hidden             bool // from -t
	}{
		{"port in use", good, `listen ` + addr + `: address already in use: another process .* holds it; find it with "ss -ltnp`, nil, true},
		{"port not allowed", proxy("127.0.0.1:25", "192.0.2.1:25"), `listen 127.0.0.1:25: permission denied: .*AmbientCapabilities=CAP_NET_BIND_SERVICE`, nobody, true},
		{"transparent not allowed", proxy(freeAddr(t), "192.0.2.1:25", "proxy_bind = 'client'"), `:4:14: proxy_bind: .*AmbientCapabilities=CAP_NET_RAW: setsockopt IP_TRANSPARENT: operation not permitted`, nobody, true},
		{"no address", "", `nothing would listen; add one`, nil, false},
		{"zero bytes", "\x7fELF\x00\x00", `:1:\d: not a text file`, nil, false},
		{"log not allowed", fmt.Sprintf("error_log = '%s/log'\n", dir) + proxy(freeAddr(t), "192.0.2.1:25"), `open error log: .*permission denied: give the user of this process write permission`, nobody, false},
		{"pid not possible", fmt.Sprintf("pid = '%s/none/pid'\n", dir) + proxy(freeAddr(t), "192.0.2.1:25"), `write pid file .*: create the directory first`, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := smtptest.Launch{Credential: test.user}.Start(t, test.config)
			require.Equal(t, 1, p.Exit(patience))
			require.Regexp(t, `^smtplb: \[emerg\] .*`+test.want, p.Log())
			require.Equal(t, 1, strings.Count(p.Log(), "\n"), p.Log())

			tested := smtptest.Launch{Credential: test.user, Args: []string{"-t"}}.Start(t, test.config)
			if test.hidden {
				require.Zero(t, tested.Exit(patience), tested.Log())
			} else {
				require.Equal(t, 1, tested.Exit(patience))
				require.Regexp(t, `(?m)^smtplb: \[emerg\] .*`+test.want, tested.Log())
			}
		})
	}
	require.Equal(t, "aa", visits(t, addr, 2))
}

// What is given as a configuration and is none is told apart: no file, a
// directory, a file that may not be read, a program. The rest of the command
// line is in cli_test.go.
//
// Fails if a wrong command line, or a file that cannot be read, is a success.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	secret := filepath.Join(dir, "secret.toml")
	require.NoError(t, os.WriteFile(secret, []byte(proxy(freeAddr(t), "192.0.2.1:25")), 0o600))
	program := smtptest.Build(t)
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-c " + dir + "/none.toml", 1, "smtplb: [emerg] " + dir + "/none.toml: no such file; check the path\n"},
		{"-c " + dir, 1, "smtplb: [emerg] " + dir + ": is a directory; name the files in it, as in \"conf.d/*.toml\"\n"},
		{"-c " + secret, 1, "smtplb: [emerg] " + secret + ": permission denied; let user id 65534 read the file and enter its directories\n"},
		{"-c " + program, 1, "not a text file; a configuration is UTF-8 text without zero bytes\n"},
		{"-c /dev/null", 1, "smtplb: [emerg] /dev/null: is not a regular file; a configuration must be readable again at reload\n"},
		{"-d", 0, "[[upstream]]"},
		{"-t", 0, "smtplb: configuration file built-in configuration test is successful\n"},
	} {
		cmd := exec.Command(program, strings.Fields(test.args)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		out, err := cmd.CombinedOutput()
		if test.code == 0 {
			require.NoError(t, err, test.args)
		} else {
			require.EqualError(t, err, fmt.Sprintf("exit status %d", test.code), test.args)
		}
		require.Contains(t, string(out), test.want, test.args)
	}
}

// The examples can be used as they stand.
//
// Fails if an example has a directive that is not there.
func TestExamplesPass(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob("../examples/*.toml")
	require.NoError(t, err)
	require.NotEmpty(t, examples)
	dir := shortDir(t)
	for _, example := range examples {
		text, err := os.ReadFile(example)
		require.NoError(t, err)
		// -t looks whether there is room for the log.
		path := filepath.Join(dir, filepath.Base(example))
		require.NoError(t, os.WriteFile(path, bytes.ReplaceAll(text, []byte("/var/log/smtplb/"), []byte(dir+"/")), 0o644))
		out, err := exec.Command(smtptest.Build(t), "-t", "-c", path).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "smtplb: the configuration file "+path+" syntax is ok\n"+
			"smtplb: configuration file "+path+" test is successful\n", string(out))
	}
}

// A limit of open files that cannot be had is an alert and no obstacle: there
// are as many sessions as it allows, and who comes then waits for one to end.
//
// Fails if the limit wanted instead of the one got decides on the sessions:
// accept then fails for want of descriptors.
func TestFileLimit(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Launch{NoFile: 200, Credential: nobody}.Start(t, "worker_rlimit_nofile = 100000\n"+workers(2)+
		upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail", noGate))
	p.Ready()
	require.Equal(t, 1, p.Count(`\[alert\] worker_rlimit_nofile is above the hard limit, .*\{"want": 100000, "got": 200\}`))
	// 64 descriptors are the process's own, and 2 each its 200/16 = 12 pipes'.
	const limit = (200 - 64 - 2*12) / 2
	require.Equal(t, 1, p.Count(fmt.Sprintf(`"nofile": 200, "max_sessions": %d, "pipes": 12`, limit)))

	held := hold(t, client, limit)
	waiting := queue(t, client.Addr, 1)
	p.Await("accepting paused; clients wait in the backlog", 1)
	require.Equal(t, limit, a.Accepted())
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	waiting.Run(t.Context())
	requireAll(t, waiting, of{waiting, a})
	require.Zero(t, p.Count("no descriptors or memory left"))
}

// Whoever reads the output may go away: the program does its work without a
// log, and still obeys.
//
// Fails if SIGPIPE is not ignored.
func TestOutputReaderGone(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Sessions: 20}
	config := filepath.Join(t.TempDir(), "smtplb.toml")
	require.NoError(t, os.WriteFile(config, []byte(verbose+upstream("mail", server(a.Addr()))+proxy(client.Addr, "mail")), 0o644))

	cmd := exec.Command(smtptest.Build(t), "-c", config)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	for in := bufio.NewReader(stderr); ; {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		if strings.Contains(line, "] ready {") {
			break
		}
	}
	require.NoError(t, stderr.Close())
	require.NoError(t, stdout.Close())

	client.Run(t.Context())
	requireAll(t, client, a)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	client.Run(t.Context())
	requireAll(t, client, a)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}
