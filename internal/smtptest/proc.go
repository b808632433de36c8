package smtptest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FDs returns what the open descriptors of a process are, sorted: "socket:[4711]",
// "anon_inode:[eventpoll]", a path. Its length is what has to come back to a
// baseline; its text says what did not.
func FDs(t testing.TB, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("read descriptors: %v", err)
	}
	fds := make([]string, 0, len(entries))
	for _, e := range entries {
		if target, err := os.Readlink(dir + e.Name()); err == nil { // else closed meanwhile
			fds = append(fds, target)
		}
	}
	slices.Sort(fds)
	return fds
}

// Threads is the number of threads of a process.
func Threads(t testing.TB, pid int) int {
	t.Helper()
	return status(t, pid, "Threads:")
}

// RSS is the memory of a process that is resident, in bytes.
func RSS(t testing.TB, pid int) int64 {
	t.Helper()
	return int64(status(t, pid, "VmRSS:")) << 10
}

// PrivateMemory is the part of RSS that belongs to this process alone, in
// bytes: without the pages of its program file, and without shared memory.
func PrivateMemory(t testing.TB, pid int) int64 {
	t.Helper()
	return int64(status(t, pid, "RssAnon:")) << 10
}

// CPU is the processor time that a process has used, all its threads that are
// or were, user and system. It is exact to the nanosecond, unlike
// /proc/PID/stat with its ticks of 10 ms.
func CPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	used, err := CPUTime(pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return used
}

// CPUTime is CPU for any goroutine.
func CPUTime(pid int) (time.Duration, error) {
	// MAKE_PROCESS_CPUCLOCK of linux/posix-timers.h; see clock_getcpuclockid(3).
	const cpuclockSched = 2
	clock := int32(^pid<<3 | cpuclockSched)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// status reads a number from /proc/PID/status.
func status(t testing.TB, pid int, key string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("read process status: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if n, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil {
				return n
			}
		}
	}
	t.Fatalf("process %d has no %s in its status: it has ended", pid, key)
	return 0
}
