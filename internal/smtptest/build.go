package smtptest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// builds are the programs built by this process, all in one directory.
var builds struct {
	mu   sync.Mutex // held while building: a second asker waits and shares
	dir  string     // "" outside Main
	made map[string]string
}

// Main runs the tests of a package that calls Build or Start, and removes what
// they built. Its TestMain is
//
//	func TestMain(m *testing.M) { os.Exit(smtptest.Main(m)) }
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "smtplb-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // a program may be run as another user
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "make a directory for built programs: %v\n", err)
		return 1
	}
	defer os.RemoveAll(dir)
	builds.mu.Lock()
	builds.dir = dir
	builds.mu.Unlock()
	return m.Run()
}

// Build compiles the balancer with the given flags of go build and returns the
// program's path. Each set of flags is compiled once in a test process. Under
// go test -race the program has the race detector too.
func Build(t testing.TB, flags ...string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	program, err := build(root, flags)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return program
}

func build(dir string, flags []string) (string, error) {
	if RaceEnabled() && !slices.Contains(flags, "-race") {
		flags = append([]string{"-race"}, flags...)
	}
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if builds.dir == "" {
		return "", errors.New("build: TestMain of this package has to call smtptest.Main")
	}
	key := dir + " " + strings.Join(flags, " ")
	if program, ok := builds.made[key]; ok {
		return program, nil
	}
	program := filepath.Join(builds.dir, fmt.Sprintf("smtplb%d", len(builds.made)))
	args := append(append([]string{"build", "-o", program}, flags...), ".")
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	if !slices.Contains(flags, "-race") { // which needs cgo
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the product is built
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	if builds.made == nil {
		builds.made = make(map[string]string)
	}
	builds.made[key] = program
	return program, nil
}

// moduleRoot is the directory of go.mod, upwards from the package under test.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod in %s or above", start)
		}
		dir = parent
	}
}

// RaceEnabled tells whether this test binary, and so what Build makes, has the
// race detector, which takes memory and time of its own.
func RaceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
