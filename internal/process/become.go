package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capability is one of capabilities(7).
type Capability uint

// What a balancer may need after it has given up the rest.
const (
	BindService Capability = unix.CAP_NET_BIND_SERVICE // ports below 1024, at a reload
	NetRaw      Capability = unix.CAP_NET_RAW          // sockets that are transparent (IP_TRANSPARENT)
)

// Become makes all threads of the process, and those to come, run as id, with
// the capabilities in keep as far as the process has them, and with no way back:
// no program that it may run gains any (no_new_privs, no ambient capability,
// and a bounding set of keep alone). It needs root, and a program built without
// cgo, as smtplb is: with cgo the runtime does not know all threads.
//
// What holds then is read back from the kernel. After an error the process is
// in between, and has to end.
func (id Identity) Become(keep ...Capability) error {
	had, err := permitted()
	if err != nil {
		return err
	}
	var mask uint64
	for _, c := range keep {
		mask |= 1 << c
	}
	mask &= had
	if err := id.become(mask); err != nil {
		return err
	}
	return id.verify(mask)
}

func (id Identity) become(mask uint64) error {
	// setuid takes all capabilities from a process of root's that does not keep
	// them by this.
	if err := onAllThreads("prctl(PR_SET_KEEPCAPS)", unix.PR_SET_KEEPCAPS, 1); err != nil {
		return err
	}
	// The bounding set is a second wall behind no_new_privs; a container's root
	// may be without the right to raise it (CAP_SETPCAP).
	for c := uintptr(0); c <= lastCapability(); c++ {
		if mask&(1<<c) == 0 {
			err := onAllThreads("prctl(PR_CAPBSET_DROP)", unix.PR_CAPBSET_DROP, c)
			if err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
		}
	}
	if err := syscall.Setgroups(id.Groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(id.GID, id.GID, id.GID); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(id.UID, id.UID, id.UID); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	if err := capset(mask); err != nil {
		return err
	}
	if err := onAllThreads("prctl(PR_CAP_AMBIENT)", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return err
	}
	if err := onAllThreads("prctl(PR_SET_KEEPCAPS)", unix.PR_SET_KEEPCAPS, 0); err != nil {
		return err
	}
	return onAllThreads("prctl(PR_SET_NO_NEW_PRIVS)", unix.PR_SET_NO_NEW_PRIVS, 1)
}

// onAllThreads calls prctl on each thread: what it sets is a thread's own.
func onAllThreads(what string, option, value uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, value, 0, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case unix.ENOTSUP:
		return fmt.Errorf("%w: this program was built with cgo, build it with CGO_ENABLED=0", os.NewSyscallError(what, errno))
	}
	return os.NewSyscallError(what, errno)
}

// permitted is what capabilities this thread may have.
func permitted() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

// lastCapability is the highest that the kernel knows; below it there is none
// that it does not.
func lastCapability() uintptr {
	return uintptr(min(readUint("/proc/sys/kernel/cap_last_cap", unix.CAP_LAST_CAP), 63))
}

// verify asks the kernel about each thread, and tries to go back.
func (id Identity) verify(mask uint64) error {
	if id.UID != 0 {
		if err := syscall.Setuid(0); err == nil {
			return errors.New("verify the change of user: the process could become root again")
		}
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(threads) == 0 {
		return errors.New("verify the change of user: /proc/self/task cannot be read; mount /proc")
	}
	for _, path := range threads {
		status, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return fmt.Errorf("verify the change of user: %w", err)
		}
		if err := id.verifyThread(string(status), mask); err != nil {
			return fmt.Errorf("verify the change of user: %s: %w", path, err)
		}
	}
	return nil
}

func (id Identity) verifyThread(status string, mask uint64) error {
	caps := fmt.Sprintf("%016x", mask)
	groups := slices.Clone(id.Groups)
	slices.Sort(groups)
	words := func(n, times int) string { return strings.TrimSpace(strings.Repeat(strconv.Itoa(n)+" ", times)) }
	want := map[string]string{
		"Uid":        words(id.UID, 4),
		"Gid":        words(id.GID, 4),
		"Groups":     strings.Trim(fmt.Sprint(slices.Compact(groups)), "[]"),
		"CapInh":     fmt.Sprintf("%016x", 0),
		"CapPrm":     caps,
		"CapEff":     caps,
		"CapAmb":     fmt.Sprintf("%016x", 0),
		"NoNewPrivs": "1",
	}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		wanted, ok := want[key]
		if got := strings.Join(strings.Fields(value), " "); ok && got != wanted {
			return fmt.Errorf("%s is %s, want %s", key, got, wanted)
		}
		delete(want, key)
	}
	if len(want) > 1 || len(want) == 1 && want["CapAmb"] == "" { // no ambient set before Linux 4.3
		return fmt.Errorf("no %v in it", want)
	}
	return nil
}
