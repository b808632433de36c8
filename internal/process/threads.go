package process

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capsetArgs are in memory that does not move while all threads read it.
var capsetArgs struct {
	mu     sync.Mutex // protects below
	header unix.CapUserHeader
	data   [2]unix.CapUserData
}

// capset makes mask the effective and the permitted set of each thread.
func capset(mask uint64) error {
	a := &capsetArgs
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	for i := range a.data {
		half := uint32(mask >> (32 * i))
		a.data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&a.header)), uintptr(unsafe.Pointer(&a.data)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}

// takeThread gives this thread, and no other, to id. Capabilities go with the
// user id.
func (id Identity) takeThread() error {
	groups := make([]uint32, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = uint32(g)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	gid := uintptr(id.GID)
	if _, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	uid := uintptr(id.UID)
	if _, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}
