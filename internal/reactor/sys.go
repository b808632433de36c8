package reactor

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every descriptor here is non-blocking, so none of these calls can block and
// all go past the scheduler. They do not retry EINTR: a non-blocking socket
// call does not return it.

// Recv reads what is there into b: 0 bytes and no error at the end of the
// stream, EAGAIN when nothing is there.
func Recv(fd int, b []byte) (int, syscall.Errno) {
	return recv(fd, b, 0)
}

// Peek is Recv that leaves the bytes in the socket.
func Peek(fd int, b []byte) (int, syscall.Errno) {
	return recv(fd, b, unix.MSG_PEEK)
}

func recv(fd int, b []byte, flags uintptr) (int, syscall.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Send writes as much of b as the socket takes now. A peer that is gone is an
// errno (EPIPE, ECONNRESET), never a signal.
func Send(fd int, b []byte) (int, syscall.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Splice moves up to n bytes from one descriptor to another, one of which is a
// pipe. SPLICE_F_NONBLOCK is always set (a kernel before 5.1 may block on the
// pipe without it, golang/go#63795) and SPLICE_F_MORE never: it held a short
// reply back for 200 ms (golang/go#10948).
func Splice(from, to, n int) (int, syscall.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// ReadPipe reads from the read end of a pipe.
func ReadPipe(fd int, b []byte) (int, syscall.Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// ShutdownWrite sends the end of our stream (FIN) after what is queued.
func ShutdownWrite(fd int) syscall.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

// Close closes a descriptor. Whatever it returns, the descriptor is gone.
func Close(fd int) {
	// A socket with unsent data does not linger in close (SO_LINGER is never
	// set with a positive time), so this cannot block.
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// SetInt sets an integer socket option.
func SetInt(fd, level, option, value int) syscall.Errno {
	v := int32(value)
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), 4, 0)
	return e
}

// SocketError returns and clears the socket's pending error (SO_ERROR).
func SocketError(fd int) syscall.Errno {
	var v int32
	l := uint32(4)
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&l)), 0)
	if e != 0 {
		return e
	}
	return syscall.Errno(v)
}

// Unread returns how many bytes a socket has for a read (SIOCINQ).
func Unread(fd int) int {
	var v int32
	_, _, _ = unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&v)))
	return int(v)
}

// Unsent returns how many bytes written to a TCP socket its peer has not
// acknowledged (SIOCOUTQ), or -1 where that is unknown.
func Unsent(fd int) int {
	var v int32
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&v)))
	if e != 0 {
		return -1
	}
	return int(v)
}

// AbortOnClose makes the next Close send a reset instead of an end of stream.
func AbortOnClose(fd int) {
	l := unix.Linger{Onoff: 1, Linger: 0}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
}
