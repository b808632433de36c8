package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Go program cannot fork: its other threads would be missing. So the process
// that the operator has started starts the program anew, in a session of its
// own, and stays until that one is ready. Between both is a pipe, of which the
// new one finds its end by a variable of the environment.
const (
	readyVariable = "SMTPLB_READY"
	readyFD       = 3
)

// Detach starts this program again with the same command line, detached from
// the terminal, and waits until it calls Parent.Ready, or ends. It returns what
// this process should exit with. The other one has our standard error until it
// is ready, and so tells itself what goes wrong. A signal to stop, while we wait,
// stops the other one, too.
func Detach() (code int, err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)

	ready, theirs, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	child, err := spawn(theirs)
	_ = theirs.Close() // whose end is then the child's alone: it is told by EOF
	if err != nil {
		return 0, fmt.Errorf("start in the background: %w", err)
	}
	said := make(chan bool, 1)
	go func() {
		n, _ := ready.Read(make([]byte, 1))
		said <- n == 1
	}()
	for {
		select {
		case <-signals:
			_ = child.Signal(syscall.SIGTERM)
			code = 1 // even if it becomes ready first
		case ok := <-said:
			if ok {
				return code, nil
			}
			state, err := child.Wait()
			if err != nil {
				return 0, fmt.Errorf("wait for the background process: %w", err)
			}
			if !state.Exited() {
				return 0, fmt.Errorf("the background process ended before it was ready: %v", state)
			}
			return max(state.ExitCode(), 1), nil
		}
	}
}

func spawn(ready *os.File) (*os.Process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(program, os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), readyVariable+"="+strconv.Itoa(readyFD)),
		Files: []*os.File{null, null, os.Stderr, ready},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// Parent is the process that has started this one by Detach, and waits for it.
type Parent struct{ ready *os.File }

// Detached is the waiting parent, or nil if there is none. It has to be the
// first to look, before another thing may inherit the pipe.
func Detached() *Parent {
	text, ok := os.LookupEnv(readyVariable)
	_ = os.Unsetenv(readyVariable)
	var st unix.Stat_t
	if !ok || text != strconv.Itoa(readyFD) || unix.Fstat(readyFD, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	unix.CloseOnExec(readyFD)
	// A symbolic link "nginx" has led to another file's name; tools that look for
	// a process by its name look for the one it was called by.
	name := filepath.Base(os.Args[0])
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
	return &Parent{os.NewFile(readyFD, "ready")}
}

// Ready tells the parent that all is well, once the process needs nothing of it
// any more. Unless keepStderr, standard error goes nowhere from then on; the
// terminal it may be is the parent's.
func (p *Parent) Ready(keepStderr bool) error {
	if !keepStderr {
		if err := muteStderr(); err != nil {
			return err
		}
	}
	_, err := p.ready.Write([]byte{'\n'})
	return errors.Join(err, p.ready.Close())
}

func muteStderr() error {
	null, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open "+os.DevNull, err)
	}
	defer unix.Close(null)
	return os.NewSyscallError("dup3", unix.Dup3(null, unix.Stderr, 0))
}
