package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// outcome is what a command has done.
type outcome struct {
	code           int
	stdout, stderr string
}

func outcomeOf(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// asNginx is the program in a directory of its own under the name nginx.
func asNginx(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "nginx")
	require.NoError(t, os.Symlink(smtptest.Build(t), path))
	return path
}

// Debian's nginx says its errors as a log line when its log is standard error;
// every other build says "nginx: [emerg] …", as smtplb does.
var debianLine = regexp.MustCompile(`(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[\w+\]) \d+#\d+:`)

// Called by the name of nginx, the program takes and refuses the same command
// lines with the same words and exit code, on the same stream.
//
// Fails if joined letters or values at a letter are not understood, and if a
// message differs by a byte.
func TestCommandLineAsNginx(t *testing.T) {
	t.Parallel()
	theirs, ours := peers.Path(t, "nginx"), asNginx(t)
	dir := shortDir(t)
	// The language differs, and the words of what is wrong in it.
	write := func(name, nginx, smtplb string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(nginx), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "smtplb", name), []byte(smtplb), 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "smtplb"), 0o755))
	server := proxy("127.0.0.1:2", "192.0.2.1:25")
	write("ok", "events {}\npid pid;\n", "pid = 'pid'\n"+server)
	write("bad", "bogus;\n", "bogus = 1\n"+server)
	write("nolog", "events {}\npid pid;\nerror_log none/log;\n", "pid = 'pid'\nerror_log = 'none/log'\n"+server)

	for _, test := range []struct {
		args []string
		pid  string // what the pid file has; "-": there is none
	}{
		{args: []string{"-x"}}, {args: []string{"-tqx"}}, {args: []string{"-d"}}, {args: []string{"x"}}, {args: []string{""}},
		{args: []string{"-c"}}, {args: []string{"-p"}}, {args: []string{"-e"}}, {args: []string{"-g"}}, {args: []string{"-s"}},
		{args: []string{"-tc"}}, {args: []string{"-tsx"}},
		{args: []string{"-s", "halt"}}, {args: []string{"-shalt"}}, {args: []string{"-s", ""}}, {args: []string{"-s", "stop", "-s"}},
		{args: []string{"-c", "ok", "-x"}},

		{args: []string{"-t", "-c", "ok"}}, {args: []string{"-tc", "ok"}}, {args: []string{"-tcok"}}, {args: []string{"-cok", "-t"}},
		{args: []string{"-tqcok"}}, {args: []string{"-qtc", "ok"}}, {args: []string{"-", "-tcok"}}, {args: []string{"-tgdaemon on;", "-cok"}},
		{args: []string{"-tq", "-g", "daemon on; master_process on;", "-cok"}},
		{args: []string{"-t", "-cok", "-g", "daemon maybe;"}}, {args: []string{"-t", "-cok", "-g", "daemon on"}},
		{args: []string{"-t", "-cok", "-g", "bogus on;"}}, {args: []string{"-t", "-cok", "-g", "daemon on; daemon off;"}},
		{args: []string{"-t", "-cok", "-g", "daemon on off;"}}, {args: []string{"-t", "-cok", "-g", "events {}"}},
		{args: []string{"-t", "-cok", "-g", "}"}}, {args: []string{"-t", "-cok", "-g", "daemon on; daemon"}},

		{args: []string{"-scok"}}, {args: []string{"-s", "stop", "-cok"}, pid: "-"},
		{args: []string{"-s", "quit", "-cok"}, pid: ""}, {args: []string{"-sreload", "-cok"}, pid: "\n"},
		{args: []string{"-s", "reopen", "-cok"}, pid: "12x\n"}, {args: []string{"-s", "reload", "-cok"}, pid: " 12"},
		{args: []string{"-s", "reload", "-cok"}, pid: "-1"}, {args: []string{"-s", "reload", "-cok"}, pid: strings.Repeat("123", 9)},
		{args: []string{"-s", "reload", "-cok"}, pid: "99999999\r\n\n"}, {args: []string{"-s", "stop", "-cok"}, pid: "99999999"},
	} {
		name := fmt.Sprintf("%q %q", test.args, test.pid)
		run := func(program, prefix string) outcome {
			pid := filepath.Join(prefix, "pid")
			os.Remove(pid)
			if test.pid != "-" {
				require.NoError(t, os.WriteFile(pid, []byte(test.pid), 0o644))
			}
			o := outcomeOf(t, exec.Command(program, append([]string{"-p", prefix}, test.args...)...))
			o.stderr = debianLine.ReplaceAllString(o.stderr, "nginx: $1")
			o.stderr = strings.ReplaceAll(o.stderr, prefix+"/", "")
			// Worth a line in a log, not on a terminal.
			o.stderr = strings.ReplaceAll(o.stderr, "nginx: [notice] signal process started\n", "")
			return o
		}
		want := run(theirs, dir)
		require.Equal(t, want, run(ours, filepath.Join(dir, "smtplb")), name)
	}

	// What is wrong with a file is said in other words, everything else alike.
	emerg := regexp.MustCompile(`(?m)^nginx: \[emerg\].*$`)
	for _, args := range [][]string{{"-t", "-cbad"}, {"-tq", "-cbad"}, {"-t", "-cnone"}, {"-cbad"}, {"-cnone", "-sstop"}, {"-tc", "nolog"}, {"-tqc", "nolog"}} {
		run := func(program, prefix string) outcome {
			o := outcomeOf(t, exec.Command(program, append([]string{"-p", prefix}, args...)...))
			o.stderr = debianLine.ReplaceAllString(o.stderr, "nginx: $1")
			o.stderr = strings.ReplaceAll(o.stderr, prefix+"/", "")
			require.Contains(t, o.stderr, "nginx: [emerg]", "%q", args)
			o.stderr = emerg.ReplaceAllString(o.stderr, "nginx: [emerg]")
			return o
		}
		require.Equal(t, run(theirs, dir), run(ours, filepath.Join(dir, "smtplb")), "%q", args)
	}
}

// -v, -V and -h have nginx's form, on standard error; -T writes the files to
// standard output in nginx's form, in the order in which they are read.
//
// Fails if -T writes to standard error, or -v to standard output, or if -T
// leaves out a file.
func TestVersionAndDump(t *testing.T) {
	t.Parallel()
	theirs, ours := peers.Path(t, "nginx"), asNginx(t)
	first := func(o outcome) string { line, _, _ := strings.Cut(o.stderr, "\n"); return line }
	for _, flag := range []string{"-v", "-V", "-h", "-?", "-hv"} {
		want, got := outcomeOf(t, exec.Command(theirs, flag)), outcomeOf(t, exec.Command(ours, flag))
		require.Zero(t, got.code)
		require.Empty(t, got.stdout)
		require.Equal(t, first(want)+" (smtplb dev)", first(got))
		if flag != "-V" {
			require.Equal(t, strings.TrimPrefix(want.stderr, first(want)), strings.TrimPrefix(got.stderr, first(got)))
		}
	}
	require.Contains(t, outcomeOf(t, exec.Command(ours, "-V")).stderr, "\nconfigure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf ")
	require.Equal(t, outcome{stderr: "smtplb version: smtplb/dev\n"}, outcomeOf(t, exec.Command(smtptest.Build(t), "-v")))

	dir := shortDir(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	main, included := "events {}\ninclude inc;\n", "worker_shutdown_timeout 1s;" // no line's end
	write("n", main)
	write("inc", included)
	want := outcomeOf(t, exec.Command(theirs, "-Tq", "-g", "pid pid;", "-p", dir, "-c", "n"))
	require.Zero(t, want.code, want.stderr)

	ourMain, ourIncluded := "include = 'ourinc'\n", strings.TrimSuffix(proxy("127.0.0.1:2", "192.0.2.1:25"), "\n")
	write("o", ourMain)
	write("ourinc", ourIncluded)
	got := outcomeOf(t, exec.Command(ours, "-Tq", "-g", "pid pid;", "-p", dir, "-c", "o"))
	got.stdout = strings.NewReplacer(ourMain, main, ourIncluded, included, dir+"/ourinc", dir+"/inc", dir+"/o:", dir+"/n:").Replace(got.stdout)
	require.Equal(t, want, got)
	require.Equal(t, 2, strings.Count(got.stdout, "# configuration file "))
}

// -e takes what goes wrong before the configuration is read, beside standard
// error, and the log of a configuration that names none.
//
// Fails if -e is ignored.
func TestEarlyLog(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	early := filepath.Join(dir, "early.log")
	cmd := exec.Command(smtptest.Build(t), "-p", dir, "-e", "early.log", "-c", "none")
	require.Equal(t, outcome{1, "", "smtplb: [emerg] " + dir + "/none: no such file; check the path\n"}, outcomeOf(t, cmd))
	text, err := os.ReadFile(early)
	require.NoError(t, err)
	require.Regexp(t, `^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[emerg\] `+dir+"/none: no such file; check the path\n$", string(text))

	require.NoError(t, os.Remove(early))
	p := smtptest.Launch{Args: []string{"-e", early}}.Start(t, proxy(freeAddr(t), "192.0.2.1:25"))
	smtptest.Eventually(t, patience, "ready in the early log", func() bool {
		text, _ := os.ReadFile(early)
		return strings.Contains(string(text), "[notice] ready {")
	})
	require.Empty(t, p.Log())
}
