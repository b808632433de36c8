package process

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are the limits of open descriptors (RLIMIT_NOFILE) that hold.
type Limits struct {
	Want uint64 // what was asked for; 0: nothing was
	Soft uint64 // how many descriptors the process may have open
	Hard uint64 // how far Soft may be raised without privilege
}

// Short says whether the process got less than was asked for. It works all the
// same, with fewer sessions: an alert for the log, no reason to refuse the
// start.
func (l Limits) Short() bool { return l.Soft < l.Want }

// RaiseNofile brings the soft limit to want and returns what holds then. want
// may be below the present limit; 0 keeps it (the Go runtime has raised it to
// the hard limit at the start). Above the hard limit it takes what privilege
// (CAP_SYS_RESOURCE) and fs.nr_open allow, and else the hard limit. The hard
// limit is never lowered: without privilege a reload could not raise it again.
//
// An error means that the limits could not even be read.
func RaiseNofile(want uint64) (Limits, error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return Limits{}, os.NewSyscallError("getrlimit", err)
	}
	if want != 0 {
		raiseNofile(want, now, readUint("/proc/sys/fs/nr_open", want), setNofile)
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
			return Limits{}, os.NewSyscallError("getrlimit", err)
		}
	}
	return Limits{Want: want, Soft: now.Cur, Hard: now.Max}, nil
}

func setNofile(limit unix.Rlimit) error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// raiseNofile tries the best first. It returns no error: RaiseNofile reads back
// what came of it. top is fs.nr_open, above which no privilege leads.
func raiseNofile(want uint64, now unix.Rlimit, top uint64, set func(unix.Rlimit) error) {
	if want > now.Max {
		all := min(want, top)
		if all > now.Max && set(unix.Rlimit{Cur: all, Max: all}) == nil {
			return
		}
		want = now.Max
	}
	_ = set(unix.Rlimit{Cur: want, Max: now.Max})
}

// reservedFDs are descriptors that no session may count on: listeners, epoll
// instances, logs, probes, the reserve at accept.
const reservedFDs = 64

// SessionCap is how many sessions a limit of nofile descriptors carries, two
// sockets each, while poolFDs descriptors (two a pipe) may be pooled. It is at
// least 1: a limit too low for anything shows in the log, not as a balancer
// that takes no one.
func SessionCap(nofile uint64, poolFDs int) int {
	reserved := uint64(reservedFDs + poolFDs)
	if nofile < reserved+2 {
		return 1
	}
	return int(min((nofile-reserved)/2, math.MaxInt))
}

const (
	// PipeBytes is how much a pipe should hold: with 64 slots instead of the
	// kernel's 16 a gigabyte takes an eighth less processor time, and further
	// ones gain nothing.
	PipeBytes    = 256 << 10
	pagesPerPipe = PipeBytes / 4096

	// maxPipes is enough for as many bulk transfers at one moment.
	maxPipes = 512

	// The kernel's fs.pipe-user-pages-soft at boot (PIPE_DEF_BUFFERS * INR_OPEN_CUR).
	defaultPipePages = 16384
)

// PipePages is fs.pipe-user-pages-soft: the pages that all pipes of one
// unprivileged user may have before further ones get two instead of 16.
// 0 means no limit.
func PipePages() uint64 {
	return readUint("/proc/sys/fs/pipe-user-pages-soft", defaultPipePages)
}

// PipeBudget is how many pipes the process may have at a time, with a limit of
// nofile descriptors: the least of 512, the pipes of half the user's pages
// (the other half is for the user's other processes, a second smtplb during an
// upgrade among them), and one for 16 descriptors, so that pipes take at most
// an eighth of them; but at least 1. Privileged processes are exempt from the
// kernel's limit; the rule is the same for them, so that what holds in a test
// as root holds in production.
func PipeBudget(nofile uint64) int {
	return pipeBudget(PipePages(), nofile)
}

func pipeBudget(pages, nofile uint64) int {
	budget := min(maxPipes, nofile/16)
	if pages != 0 {
		budget = min(budget, pages/2/pagesPerPipe)
	}
	return int(max(budget, 1))
}

// readUint is the number in a file of /proc/sys, or otherwise where there is
// none: some containers show only parts of /proc.
func readUint(path string, otherwise uint64) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return otherwise
	}
	return value
}
