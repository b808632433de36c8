package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// longestPid is how much of a pid file is read: the digits of the largest
// 64-bit number, and a line's end.
const longestPid = 22

// ReadPidFile is the process that the pid file at path names. Its errors, and
// Signal's, are in nginx's words, which scripts look for.
func ReadPidFile(path string) (pid int, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, nginxError(fmt.Sprintf("open() %q", path), err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, longestPid))
	if err != nil {
		return 0, nginxError(fmt.Sprintf("read() %q", path), err)
	}
	text = bytes.TrimRight(text, "\r\n")
	// Digits alone, as nginx reads it: no sign, no blank. Nor 0, which kill takes
	// for all processes of the caller's group.
	number, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil || number == 0 {
		return 0, fmt.Errorf(`invalid PID number "%s" in %q`, text, path)
	}
	return int(number), nil
}

// Signal sends a signal to a process.
func Signal(pid int, sig syscall.Signal) error {
	if err := unix.Kill(pid, sig); err != nil {
		return nginxError(fmt.Sprintf("kill(%d, %d)", pid, int(sig)), err)
	}
	return nil
}

// nginxError words the failure of a call as nginx does: with the number, and
// the text as strerror has it.
func nginxError(call string, err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return fmt.Errorf("%s failed: %w", call, err)
	}
	text := errno.Error()
	return fmt.Errorf("%s failed (%d: %s)", call, int(errno), strings.ToUpper(text[:1])+text[1:])
}
