// Package peers runs the real counterparts of the balancer in tests: Postfix,
// Exim, swaks, smtp-source, smtp-sink, nginx and HAProxy as Debian ships them.
//
//	mx := peers.Postfix(t, peers.PostfixOptions{})
//	peers.Run(t, "swaks", "--server", mx.Addr, "--to", "bob@example.test")
//	mx.Settle()
//	for _, m := range mx.Messages() { … }
//
// The peers are not installed. fetch.sh (`make peers`) unpacks their packages
// under build/peers; each one runs from there with a configuration of its own,
// in a temporary directory, on loopback addresses, so that the mail system of
// the machine is neither used nor changed and any number may run at a time.
//
// Every peer lives in a PID namespace, which needs root. It ends as a whole
// with the test, with Kill or with the test binary, however that dies: nothing
// of it can be left behind. A peer that is missing fails the test; no test is
// skipped.
//
// Functions and methods that take or keep a testing.TB must be called from the
// test's own goroutine.
package peers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// runTimeout bounds a tool that sends mail; it is there for tools that hang.
const runTimeout = 2 * time.Minute

// Path returns the absolute path of a fetched tool: swaks, smtp-source,
// smtp-sink, nginx or haproxy. It can be executed as it stands.
func Path(t testing.TB, tool string) string {
	t.Helper()
	return fetched(t, "bin", tool)
}

// Run runs a fetched tool to its end and returns what it printed. The test
// fails if the tool does.
func Run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, Path(t, tool), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("run %s %q: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

// fetched returns the absolute path of a file that fetch.sh unpacked.
func fetched(t testing.TB, elem ...string) string {
	t.Helper()
	dir := filepath.Join(repository(t), "build", "peers")
	// The stamp is written last: without it the other files may be half there.
	for _, file := range []string{filepath.Join(dir, "stamp"), filepath.Join(append([]string{dir}, elem...)...)} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("find test peer: %v (run \"make peers\")", err)
		}
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// repository returns the directory that holds go.mod. Tests run in the
// directory of their package.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("find test peers: no go.mod in this directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}
