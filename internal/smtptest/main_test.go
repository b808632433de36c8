package smtptest

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// standIn in the environment makes this test binary the program under test of
// the runner's own tests.
const standIn = "SMTPTEST_STAND_IN"

const stamp = "2026/11/22 00:05:24 [notice] " // of a line in the log

func TestMain(m *testing.M) {
	if act := os.Getenv(standIn); act != "" {
		os.Exit(actAs(act))
	}
	os.Exit(Main(m))
}

// actAs does what a balancer does at its edges: it reads its configuration,
// says ready, and obeys signals, as far as the act wants that.
func actAs(act string) int {
	config, err := os.ReadFile(os.Args[2]) // -c FILE
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if strings.Contains(string(config), "broken") {
		fmt.Fprintln(os.Stderr, stamp+"not ready\n"+stamp+"already\n"+stamp+"ready-made")
		return 3
	}
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGTERM)
	if act == "race" {
		fmt.Fprintln(os.Stderr, "WARNING: DATA RACE")
	}
	fmt.Fprintln(os.Stderr, stamp+"ready")
	if act == "die" {
		return 4
	}
	for s := range c {
		if s == syscall.SIGTERM && act != "stubborn" {
			return 0
		}
		config, _ = os.ReadFile(os.Args[2])
		fmt.Fprintf(os.Stderr, "reloaded %s\n", config)
	}
	return 0
}

// fakeTB is a test that may fail without the real one failing.
type fakeTB struct {
	testing.TB

	mu       sync.Mutex // protects below
	said     []string
	failed   bool
	cleanups []func()
}

// try runs f as a test of its own, cleanups included, and returns whether it
// failed and what it said.
func try(t *testing.T, f func(testing.TB)) (failed bool, said string) {
	t.Helper()
	tb := &fakeTB{TB: t}
	run := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		select {
		case <-done:
		case <-time.After(60 * time.Second):
			panic("a fake test hangs")
		}
	}
	run(func() { f(tb) })
	for _, f := range slices.Backward(tb.cleanups) {
		run(f)
	}
	return tb.failed, strings.Join(tb.said, "\n")
}

func (f *fakeTB) say(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, s)
}

func (f *fakeTB) Helper()                      {}
func (f *fakeTB) Cleanup(c func())             { f.cleanups = append(f.cleanups, c) }
func (f *fakeTB) Logf(format string, a ...any) { f.say(fmt.Sprintf(format, a...)) }
func (f *fakeTB) Errorf(format string, a ...any) {
	f.failed = true
	f.Logf(format, a...)
}
func (f *fakeTB) Fatalf(format string, a ...any) {
	f.Errorf(format, a...)
	runtime.Goexit()
}
func (f *fakeTB) Failed() bool { return f.failed }
