package smtptest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// actor launches this test binary as a program under test.
func actor(t testing.TB, act string) Launch {
	self, err := os.Executable()
	require.NoError(t, err)
	return Launch{Binary: self, Env: []string{standIn + "=" + act}}
}

func TestProcessLife(t *testing.T) {
	t.Parallel()
	p := actor(t, "obey").Start(t, "first")
	p.Ready()
	require.Positive(t, Threads(t, p.Pid()))
	for i, config := range []string{"second", "third"} {
		p.Configure(config)
		n := p.Count("reloaded")
		require.Equal(t, i, n)
		p.Signal(syscall.SIGHUP)
		p.Await("reloaded", n+1)
	}
	require.Equal(t, 1, p.Count("reloaded second\nreloaded third"))
	p.Signal(syscall.SIGTERM)
	require.Equal(t, 0, p.Exit(patience))
	require.NoFileExists(t, p.ConfigPath()+".new")
}

// "already" and "ready-made" are not the message, and a process that has ended
// is not waited for.
func TestReadyIsNotSeenInAProcessThatEnded(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	failed, said := try(t, func(tb testing.TB) {
		p := actor(t, "obey").Start(tb, "broken")
		p.Await("not ready", 1)
		p.Ready()
	})
	require.True(t, failed)
	require.Contains(t, said, "exit status 3")
	require.Contains(t, said, "ready-made", "the log of a failed test is printed")
	require.Less(t, time.Since(begun), startTimeout)
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	p := actor(t, "obey").Start(t, "broken")
	require.Equal(t, 3, p.Exit(patience))

	p = actor(t, "obey").Start(t, "")
	p.Ready()
	p.Signal(syscall.SIGKILL)
	require.Equal(t, -1, p.Exit(patience))
}

// What a test must not overlook makes it fail at its end.
func TestCleanupReports(t *testing.T) {
	t.Parallel()
	for act, want := range map[string]string{
		"die":  "ended by itself: exit status 4",
		"race": "1 data races",
	} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			failed, said := try(t, func(tb testing.TB) {
				p := actor(t, act).Start(tb, "")
				p.Ready()
				if act == "die" {
					<-p.exited
				}
			})
			require.True(t, failed)
			require.Contains(t, said, want)
			require.Contains(t, said, stamp+"ready")
		})
	}
	failed, said := try(t, func(tb testing.TB) { actor(t, "obey").Start(tb, "").Ready() })
	require.False(t, failed, said)
}

func TestStubbornProcessIsKilledWithItsStacks(t *testing.T) {
	t.Parallel()
	var pid int
	failed, said := try(t, func(tb testing.TB) {
		p := actor(t, "stubborn").Start(tb, "")
		p.Ready()
		p.grace = 50 * time.Millisecond
		pid = p.Pid()
	})
	require.True(t, failed)
	require.Contains(t, said, "has not obeyed SIGTERM")
	require.Contains(t, said, "goroutine 1")
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

// module writes the files of a Go module.
func module(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files["go.mod"] = "module sample\n\ngo 1.26.0\n"
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

// Fails when the limit, the user or the permissions of the files are forgotten.
func TestLaunchLimitsFilesAndUser(t *testing.T) {
	t.Parallel()
	program, err := build(module(t, map[string]string{"main.go": `package main

import ("fmt"; "os"; "syscall")

func main() {
	var r syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
	config, err := os.ReadFile(os.Args[2])
	fmt.Println("ready", r.Max, os.Getuid(), os.Args[3:], string(config), err)
}
`}), nil)
	require.NoError(t, err)
	p := Launch{
		Binary:     program,
		Args:       []string{"-t"},
		NoFile:     77,
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
	}.Start(t, "text")
	require.Equal(t, 0, p.Exit(patience))
	require.Equal(t, "ready 77 65534 [-t] text <nil>\n", p.Log())
}

func TestBuildOnceForEachSetOfFlags(t *testing.T) {
	t.Parallel()
	dir := module(t, map[string]string{
		"main.go": "package main\n\nfunc main() { println(flag) }\n",
		"a.go":    "//go:build !other\n\npackage main\n\nconst flag = \"plain\"\n",
		"b.go":    "//go:build other\n\npackage main\n\nconst flag = \"other\"\n",
	})
	plain, err := build(dir, nil)
	require.NoError(t, err)
	other, err := build(dir, []string{"-tags", "other"})
	require.NoError(t, err)
	require.NotEqual(t, plain, other)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte("broken"), 0o644))
	again, err := build(dir, nil)
	require.NoError(t, err, "not built again")
	require.Equal(t, plain, again)
	_, err = build(dir, []string{"-tags", "third"})
	require.ErrorContains(t, err, "main.go:1:1")

	for program, want := range map[string]string{plain: "plain", other: "other"} {
		p := Launch{Binary: program}.Start(t, "")
		require.Equal(t, 0, p.Exit(patience))
		require.Equal(t, want, strings.TrimSpace(p.Log()))
	}
}

func TestModuleRoot(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "go.mod"))
	require.DirExists(t, filepath.Join(root, "internal", "smtptest"))
}

func TestReadyLine(t *testing.T) {
	t.Parallel()
	re := regexp.MustCompile(readyLine)
	for line, want := range map[string]bool{
		"ready":                       true,
		"server: ready":               true,
		`server: ready {"listen": 1}`: true,
		"ready\n" + stamp + "later":   true,
		"already":                     false,
		"not ready":                   false,
		"ready-made":                  false,
		"ready for nothing":           false,
	} {
		require.Equal(t, want, re.MatchString(stamp+line), line)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	require.Equal(t, "abc", tail("abc", 3))
	require.Equal(t, "[only the last 4 bytes]\nc\n", tail("a\nb\nc\n", 4))
}
