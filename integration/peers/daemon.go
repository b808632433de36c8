package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second // a loaded machine, not a slow peer
	stopTimeout  = 10 * time.Second
	pollInterval = 5 * time.Millisecond
)

// A Daemon is a peer that runs until the test ends. Its methods belong to the
// test's goroutine.
type Daemon struct {
	Addr string // where it listens, "127.0.0.1:port"; the same after a Restart

	t       testing.TB
	name    string // of the tool
	command []string
	env     []string
	logFile string

	init   *os.Process   // of the namespace; nil while stopped
	exited chan struct{} // closed when every process of the namespace is gone
}

// initScript is the first process of a peer's PID namespace: when it ends, the
// kernel kills the others. It cannot be the peer, since a change of credentials
// (Postfix's master makes one as it starts) clears Pdeathsig.
const initScript = `
ulimit -n $(ulimit -Hn)
"$@" & peer=$!
trap 'kill -TERM $peer' TERM
wait $peer # until the peer has ended or SIGTERM has come
wait $peer`

// start starts the peer and waits until it listens.
func (d *Daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", initScript, d.name}, d.command...)...)
	cmd.Env = append(os.Environ(), d.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}

	started := make(chan error)
	d.exited = make(chan struct{})
	go supervise(cmd, started, d.exited)
	if err := <-started; err != nil {
		d.t.Fatalf("start %s: %v (test peers need root and the right to make a PID namespace)", d.name, err)
	}
	d.init = cmd.Process
	d.await("not listening on "+d.Addr, func() bool {
		ready, err := listening(d.Addr)
		if err != nil {
			d.t.Fatal(err)
		}
		return ready
	})
}

// supervise starts cmd and closes exited after its end. It keeps its thread, for
// Pdeathsig means the death of the thread that started the process
// (golang.org/issue/27505).
func supervise(cmd *exec.Cmd, started chan<- error, exited chan<- struct{}) {
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	// The status is that of a killed process or of no interest: a peer that
	// ends by itself is reported by whoever waits for it to listen.
	_ = cmd.Wait()
	close(exited)
}

// await waits until a peer that starts is ready. If it is not in time, the test
// fails, and says what it is otherwise.
func (d *Daemon) await(otherwise string, ready func() bool) {
	d.t.Helper()
	deadline := time.After(startTimeout)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for !ready() {
		select {
		case <-d.exited:
			d.t.Fatalf("start %s: it ended, %s\n%s", d.name, otherwise, d.logEnd())
		case <-deadline:
			d.t.Fatalf("start %s: %s after %v\n%s", d.name, otherwise, startTimeout, d.logEnd())
		case <-poll.C:
		}
	}
}

// Stop ends the peer in its own orderly way (SIGTERM) and returns when all its
// processes are gone.
func (d *Daemon) Stop() {
	d.t.Helper()
	if d.init == nil {
		return
	}
	d.signal(syscall.SIGTERM)
	select {
	case <-d.exited:
		d.init = nil
	case <-time.After(stopTimeout):
		d.t.Errorf("stop %s: still running after %v\n%s", d.name, stopTimeout, d.logEnd())
		d.Kill()
	}
}

// Kill ends all processes of the peer at once (SIGKILL), as a crash of its
// machine would, but that what it wrote to files is there.
func (d *Daemon) Kill() {
	d.t.Helper()
	if d.init == nil {
		return
	}
	d.signal(syscall.SIGKILL)
	<-d.exited
	d.init = nil
}

// Restart starts a peer again on the same address; a running one is killed.
func (d *Daemon) Restart() {
	d.t.Helper()
	d.Kill()
	d.start()
}

func (d *Daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.init.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatalf("stop %s: %v", d.name, err)
	}
}

// Log returns what the peer has logged so far, over all its runs.
func (d *Daemon) Log() string {
	d.t.Helper()
	log, err := os.ReadFile(d.logFile)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(log)
}

// logEnd returns as much of the log as helps to explain a failure.
func (d *Daemon) logEnd() string {
	d.t.Helper()
	log := d.Log()
	return log[max(0, len(log)-32<<10):]
}

// PIDs returns the processes of a running peer, parents before children, for
// measuring them and binding them to processors.
func (d *Daemon) PIDs() []int {
	d.t.Helper()
	if d.init == nil {
		return nil
	}
	all := children(d.init.Pid)
	for i := 0; i < len(all); i++ {
		all = append(all, children(all[i])...)
	}
	return all
}

// children returns the child processes of a process; of one that is gone, none.
func children(pid int) []int {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(list)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tempDir makes a directory that the unprivileged users of a peer may enter,
// which t.TempDir is not. It is removed when the test ends.
func tempDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtplb-"+name+"-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
