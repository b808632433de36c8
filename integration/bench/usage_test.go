package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
)

// usage is what a proxy has used since its start.
type usage struct {
	cpu      time.Duration // user and system
	switches int           // of context, by its present threads
}

func (u usage) minus(v usage) usage { return usage{u.cpu - v.cpu, u.switches - v.switches} }

// used is what the proxy has used so far. It waits until that does not grow any
// more: a client is done before the proxy has closed its last sessions.
func (p proxy) used(t testing.TB) usage {
	t.Helper()
	const quiet = 20 * time.Millisecond
	var last usage
	smtptest.Eventually(t, 10*time.Second, p.name+" is idle", func() bool {
		before := last
		time.Sleep(quiet)
		last = usage{switches: sumStatus(t, p.pids, "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")}
		for _, pid := range p.pids {
			last.cpu += smtptest.CPU(t, pid)
		}
		return last == before
	})
	return last
}

// countSyscalls counts the system calls of the proxy during work. strace slows
// it down, so more happens between two calls of epoll_wait than else: take the
// figure for what it is.
func (p proxy) countSyscalls(t testing.TB, work func()) int {
	t.Helper()
	counts := filepath.Join(t.TempDir(), "counts")
	args := []string{"-f", "-q", "-c", "-U", "name,calls", "-o", counts}
	for _, pid := range p.pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.Command("strace", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // for a Fatal in between; else it has ended
	smtptest.Eventually(t, 10*time.Second, "strace watches "+p.name+" "+stderr.String(), func() bool {
		threads := 0
		for _, pid := range p.pids {
			threads += smtptest.Threads(t, pid)
		}
		return sumStatus(t, p.pids, "TracerPid:") == threads*cmd.Process.Pid
	})
	work()
	p.used(t) // that is, once it is idle
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // by the signal
	text, err := os.ReadFile(counts)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	total := 0
	if n := len(fields); n >= 2 && fields[n-2] == "total" {
		total, err = strconv.Atoi(fields[n-1])
	}
	if total == 0 || err != nil {
		t.Fatalf("read what strace has counted: no total in\n%s%s", text, stderr.String())
	}
	return total
}

// sumStatus sums up numbers of /proc/PID/task/TID/status over all threads.
func sumStatus(t testing.TB, pids []int, keys ...string) int {
	t.Helper()
	sum := 0
	for _, pid := range pids {
		for _, tid := range threads(t, pid) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid)) // empty: it has ended
			for line := range strings.Lines(string(text)) {
				for _, key := range keys {
					if number, ok := strings.CutPrefix(line, key); ok {
						n, err := strconv.Atoi(strings.TrimSpace(number))
						if err != nil {
							t.Fatal(err)
						}
						sum += n
					}
				}
			}
		}
	}
	return sum
}

func threads(t testing.TB, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}

// processors returns those that we may use, and of them the first and the last.
// On a machine with one all are the same, and the figures of little worth.
func processors(t testing.TB) (all, first, last unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(os.NewSyscallError("sched_getaffinity", err))
	}
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if left == all.Count() {
			first.Set(cpu)
		}
		if left == 1 {
			last.Set(cpu)
		}
		left--
	}
	return all, first, last
}

// bind binds this process to processors, and so what it starts from now on.
func bind(t testing.TB, cpus unix.CPUSet) {
	t.Helper()
	// A thread begins with the binding of the one that made it. So once a pass
	// over the threads meets none that is new, all are bound.
	bound := make(map[int]bool)
	for again := true; again; {
		again = false
		for _, tid := range threads(t, os.Getpid()) {
			if bound[tid] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, &cpus); err != nil && err != unix.ESRCH {
				t.Fatal(os.NewSyscallError("sched_setaffinity", err))
			}
			bound[tid], again = true, true
		}
	}
}
