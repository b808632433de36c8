package process

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// request is what a child process, this test binary again, does to its own
// limits; they are the process's, and lowering a hard limit is for ever.
type request struct {
	Soft, Hard uint64 // to begin with
	Privileged bool   // keep CAP_SYS_RESOURCE, if the test run has it
	Want       uint64
}

const requestVariable = "SMTPLB_TEST_LIMITS"

func TestMain(m *testing.M) {
	if how := os.Getenv(detachVariable); how != "" {
		os.Exit(detachAs(how))
	}
	if text := os.Getenv(requestVariable); text != "" {
		if err := answer(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func answer(text string) error {
	var r request
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
		return err
	}
	if !r.Privileged {
		runtime.LockOSThread() // a capability is a thread's
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
	}
	limits, err := RaiseNofile(r.Want)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(limits)
}

func ask(t *testing.T, r request) (got Limits) {
	t.Helper()
	text, err := json.Marshal(r)
	require.NoError(t, err)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), requestVariable+"="+string(text))
	out, err := child.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &got))
	return got
}

// TestRaiseNofile fails if the hard limit is lowered with the soft one, if a
// want above the hard limit is given up instead of cut, and if the answer is
// what was asked for instead of what holds.
func TestRaiseNofile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		r     request
		want  Limits
		short bool
	}{
		{"nothing asked", request{Soft: 300, Hard: 400, Want: 0}, Limits{Soft: 300, Hard: 400, Want: 0}, false},
		{"below the soft limit", request{Soft: 300, Hard: 400, Want: 200}, Limits{Soft: 200, Hard: 400, Want: 200}, false},
		{"up to the hard limit", request{Soft: 300, Hard: 400, Want: 400}, Limits{Soft: 400, Hard: 400, Want: 400}, false},
		{"above the hard limit", request{Soft: 300, Hard: 400, Want: 401}, Limits{Soft: 400, Hard: 400, Want: 401}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, c.r)
			require.Equal(t, c.want, got)
			require.Equal(t, c.short, got.Short())
		})
	}
}

// TestRaiseNofilePrivileged asks for more than the hard limit with whatever
// privilege the test run has; root in a container often lacks this one.
func TestRaiseNofilePrivileged(t *testing.T) {
	t.Parallel()
	got := ask(t, request{Soft: 300, Hard: 400, Want: 500, Privileged: true})
	if mayRaise(t) {
		require.Equal(t, Limits{Soft: 500, Hard: 500, Want: 500}, got)
	} else {
		require.Equal(t, Limits{Soft: 400, Hard: 400, Want: 500}, got)
	}
}

func mayRaise(t *testing.T) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// TestRaiseNofileKernel puts a kernel's rules in place of the kernel, so that
// the privileged ways are walked wherever the test runs. Fails if the hard
// limit is not tried, and if fs.nr_open does not bound what is tried: the
// kernel refuses, and the process stays at its low hard limit.
func TestRaiseNofileKernel(t *testing.T) {
	t.Parallel()
	const top = 1000
	for _, c := range []struct {
		name       string
		privileged bool
		want       uint64
		now, then  unix.Rlimit
	}{
		{"privileged", true, 500, unix.Rlimit{Cur: 300, Max: 400}, unix.Rlimit{Cur: 500, Max: 500}},
		{"privileged, above nr_open", true, 5000, unix.Rlimit{Cur: 300, Max: 400}, unix.Rlimit{Cur: top, Max: top}},
		{"hard limit above nr_open", true, 5000, unix.Rlimit{Cur: 300, Max: 2000}, unix.Rlimit{Cur: 2000, Max: 2000}},
		{"unprivileged", false, 500, unix.Rlimit{Cur: 300, Max: 400}, unix.Rlimit{Cur: 400, Max: 400}},
		{"privileged, below", true, 200, unix.Rlimit{Cur: 300, Max: 400}, unix.Rlimit{Cur: 200, Max: 400}},
	} {
		now := c.now
		raiseNofile(c.want, now, top, func(to unix.Rlimit) error {
			if to.Max > now.Max && (!c.privileged || to.Max > top) {
				return unix.EPERM
			}
			now = to
			return nil
		})
		require.Equal(t, c.then, now, c.name)
	}
}

// TestSessionCap: the first row is the documented example, 512 pipes in
// 20,000 descriptors. Fails for any change of the formula.
func TestSessionCap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		nofile  uint64
		poolFDs int
		want    int
	}{
		{20000, 1024, 9456},
		{1024, 128, 416},
		{67, 0, 1},
		{68, 0, 2},
		{64, 0, 1},
		{0, 1024, 1},
		{math.MaxUint64, 1024, (math.MaxUint64 - 1088) / 2},
	} {
		require.Equal(t, c.want, SessionCap(c.nofile, c.poolFDs), "%+v", c)
	}
}

// TestPipeBudget has one row for each of the rule's bounds.
func TestPipeBudget(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pages, nofile uint64
		want          int
	}{
		{0, 1 << 20, 512},
		{0, math.MaxUint64, 512},
		{65536, 1 << 20, 512},
		{16384, 1 << 20, 128},
		{1024, 1 << 20, 8},
		{16384, 1024, 64},
		{0, 1024, 64},
		{127, 1 << 20, 1},
		{16384, 15, 1},
		{math.MaxUint64, 8192, 512},
	} {
		require.Equal(t, c.want, pipeBudget(c.pages, c.nofile), "%+v", c)
	}
	require.Equal(t, pipeBudget(PipePages(), 4096), PipeBudget(4096))
}

func TestReadUint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.Equal(t, uint64(7), readUint(dir+"/none", 7))
	mustWrite(t, dir+"/number", "1048576\n")
	require.Equal(t, uint64(1048576), readUint(dir+"/number", 7))
	mustWrite(t, dir+"/text", "many\n")
	require.Equal(t, uint64(7), readUint(dir+"/text", 7))
}
