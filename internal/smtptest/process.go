package smtptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 20 * time.Second // also covers the race detector on a busy machine
	awaitTimeout = 20 * time.Second
	stopTimeout  = 15 * time.Second // for SIGTERM
)

// readyLine is the line of the error log whose message is "ready".
const readyLine = `(?m)\[\w+\] (\S+: )?ready( \{.*)?$`

// Launch says how to run the program under test. The zero Launch runs what
// Build makes, as the test's own user.
type Launch struct {
	Binary     string              // "" means Build(t)
	Args       []string            // after -c FILE
	Env        []string            // in addition to the test's own
	NoFile     uint64              // limit of open files, soft and hard; 0 leaves it
	Credential *syscall.Credential // user to run as; nil means the test's own

	// On runs what starts the program on a thread that outlives it, such as the
	// one at the far side of a link (tunpump.Link.Do); nil: on any.
	On func(start func() error) error
}

// Process is a running program under test. Its methods are for the test's
// goroutine, except Pid, Signal, Log and Count.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	config string // path
	log    logBuffer
	grace  time.Duration // how long cleanup waits for SIGTERM to be obeyed

	exited chan struct{} // closed when the process has been waited for
	asked  atomic.Bool   // whether the test wanted it to end
}

// Start runs the program on a configuration in TOML and waits until it is
// ready.
func Start(t testing.TB, config string) *Process {
	t.Helper()
	p := Launch{}.Start(t, config)
	p.Ready()
	return p
}

// Start runs the program on a configuration in TOML, without waiting for
// anything. When the test ends, the program is stopped by SIGTERM; the test
// fails if it does not obey, if it has ended before without being asked, or if
// its log has a data race. The log of a failed test is printed.
func (l Launch) Start(t testing.TB, config string) *Process {
	t.Helper()
	if l.Binary == "" {
		l.Binary = Build(t)
	}
	p := &Process{t: t, config: configFile(t), grace: stopTimeout, exited: make(chan struct{})}
	p.Configure(config)

	argv := append([]string{l.Binary, "-c", p.config}, l.Args...)
	if l.NoFile > 0 {
		script := "ulimit -n " + strconv.FormatUint(l.NoFile, 10) + ` && exec "$0" "$@"`
		argv = append([]string{"/bin/sh", "-c", script}, argv...)
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), l.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.WaitDelay = 5 * time.Second // should a grandchild keep the log open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: l.Credential,
		Pdeathsig:  syscall.SIGKILL, // no orphan, however the test process ends
	}
	started := make(chan error, 1)
	go p.run(started, l.On)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", l.Binary, err)
	}
	t.Cleanup(p.cleanup)
	return p
}

// configFile returns the path of a file to be that any user can read.
func configFile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtplb-conf-") //nolint:usetesting // other users cannot enter what is in a t.TempDir
	if err != nil {
		t.Fatalf("make a directory for the configuration: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("make the configuration readable: %v", err)
	}
	return filepath.Join(dir, "smtplb.toml")
}

// run starts the process, reports that, and waits for its end. It keeps one
// thread all the while, since Pdeathsig comes when the starting *thread* ends,
// as threads of package tunpump do.
func (p *Process) run(started chan<- error, on func(func() error) error) {
	if on == nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		on = func(start func() error) error { return start() }
	}
	err := on(p.cmd.Start)
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // its error is what ProcessState says
	close(p.exited)
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// ConfigPath is the path of the configuration file.
func (p *Process) ConfigPath() string { return p.config }

// Configure replaces the configuration file by renaming a new one over it; the
// program reads it at the next SIGHUP.
func (p *Process) Configure(config string) {
	p.t.Helper()
	next := p.config + ".new"
	err := os.WriteFile(next, []byte(config), 0o644)
	if err == nil {
		err = os.Rename(next, p.config)
	}
	if err != nil {
		p.t.Fatalf("write the configuration: %v", err)
	}
}

// Signal sends sig to the process.
func (p *Process) Signal(sig syscall.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL, syscall.SIGABRT:
		p.asked.Store(true)
	}
	// An error can only mean that it has ended, which cleanup reports.
	_ = p.cmd.Process.Signal(sig)
}

// Log is all that the process has written so far.
func (p *Process) Log() string { return p.log.String() }

// Count is the number of times that the pattern, a regular expression (so a
// message will do), occurs in the log.
func (p *Process) Count(pattern string) int {
	return len(regexp.MustCompile(pattern).FindAllStringIndex(p.Log(), -1))
}

// Await waits until the pattern, as for Count, has occurred n times in the log.
// To see what follows a signal, Count first and then await one more.
func (p *Process) Await(pattern string, n int) {
	p.t.Helper()
	p.await(pattern, n, awaitTimeout)
}

// Ready waits until the process says that it takes connections.
func (p *Process) Ready() {
	p.t.Helper()
	p.await(readyLine, 1, startTimeout)
}

func (p *Process) await(pattern string, n int, within time.Duration) {
	p.t.Helper()
	ended := false
	ok := poll(within, func() bool {
		ended = p.hasExited() // before the last look at the log
		return p.Count(pattern) >= n || ended
	})
	switch {
	case p.Count(pattern) >= n:
	case ended:
		p.t.Fatalf("the process ended (%v) before its log had %q %d times", p.cmd.ProcessState, pattern, n)
	case !ok:
		p.t.Fatalf("not within %v: %q %d times in the log", within, pattern, n)
	}
}

// Exit waits until the process has ended, as it has to by itself or by a
// signal, and returns its exit code: -1 if a signal ended it.
func (p *Process) Exit(within time.Duration) int {
	p.t.Helper()
	p.asked.Store(true)
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("process %d has not ended within %v", p.Pid(), within)
		return 0
	}
}

func (p *Process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// cleanup ends the process and reports what a test must not overlook.
func (p *Process) cleanup() {
	if p.hasExited() {
		if !p.asked.Load() {
			p.t.Errorf("process %d ended by itself: %v", p.Pid(), p.cmd.ProcessState)
		}
	} else {
		p.Signal(syscall.SIGTERM)
		if !p.endsWithin(p.grace) {
			p.t.Errorf("process %d has not obeyed SIGTERM for %v; its goroutines are in its log", p.Pid(), p.grace)
			p.Signal(syscall.SIGABRT) // the Go runtime prints all goroutines
			if !p.endsWithin(stopTimeout) {
				p.Signal(syscall.SIGKILL)
				<-p.exited
			}
		}
	}
	if n := strings.Count(p.Log(), "WARNING: DATA RACE"); n > 0 {
		p.t.Errorf("%d data races in process %d", n, p.Pid())
	}
	if p.t.Failed() {
		p.t.Logf("log of process %d:\n%s", p.Pid(), tail(p.Log(), 32<<10))
	}
}

func (p *Process) endsWithin(d time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// tail is the end of s, from the beginning of a line.
func tail(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[len(s)-limit:]
	_, s, _ = strings.Cut(s, "\n")
	return fmt.Sprintf("[only the last %d bytes]\n%s", limit, s)
}

// logBuffer collects what a process writes.
type logBuffer struct {
	mu sync.Mutex // protects b
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
