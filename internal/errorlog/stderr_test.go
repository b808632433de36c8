package errorlog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childVariable makes this test binary run the function of that name in
// children instead of tests, with a stderr of the test's making.
const childVariable = "SMTPLB_TEST_ERRORLOG"

var children = map[string]func() error{
	"stderr closed": func() error {
		signal.Ignore(syscall.SIGPIPE) // as main does
		log, err := Open(Target{Stderr, Notice})
		if err != nil {
			return err
		}
		for range 3 {
			log.Logger().Info("nobody reads this")
			if err := log.Sync(patience); err != nil {
				return err
			}
		}
		if got := log.Dropped(); got != 3 {
			return fmt.Errorf("dropped: want 3, got %d", got)
		}
		return log.Close(patience)
	},
	"stderr blocked": func() error {
		log, err := Open(Target{Stderr, Notice})
		if err != nil {
			return err
		}
		for log.Dropped() == 0 {
			log.Logger().Info("nobody reads this in time")
		}
		if err := log.Reconfigure(Target{os.DevNull, Notice}); err != nil {
			return err
		}
		log.Logger().Info("written")
		if err := log.Sync(patience); err != nil {
			return err
		}
		if err := log.Reconfigure(Target{Stderr, Notice}); err != nil {
			return err
		}
		log.Logger().Info("nobody reads this either")
		if err := log.Close(50 * time.Millisecond); err == nil {
			return errors.New("close: want an error while stderr blocks")
		}
		log.Logger().Info("too late")
		return nil
	},
	"stderr": func() error {
		log, err := Open(Target{Stderr, Notice})
		if err != nil {
			return err
		}
		log.Logger().Info("first")
		if err := log.Reopen(); err != nil {
			return err
		}
		log.Logger().Log(Emerg, "last")
		if err := log.Close(patience); err != nil {
			return err
		}
		_, err = fmt.Fprintln(os.Stderr, "still open")
		return err
	},
}

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childVariable)]; child != nil {
		if err := child(); err != nil {
			fmt.Println(err) // stderr is what is being tested
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func childCommand(name string) *exec.Cmd {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+name)
	return child
}

// TestStderr is a process's whole life on stderr. Fails if Reopen or Close
// closes stderr, or Close does not write what is queued.
func TestStderr(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	child := childCommand("stderr")
	child.Stderr = &out
	stdout, err := child.Output()
	require.NoError(t, err, "%s", stdout)
	require.Regexp(t, `^[^\n]*\[notice\] first\n[^\n]*\[emerg\] last\nstill open\n$`, out.String())
}

// TestStderrClosed: the reader of stderr is gone. Fails, killed by SIGPIPE,
// without the Ignore that main has.
func TestStderrClosed(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	child := childCommand("stderr closed")
	child.Stderr = w
	stdout, err := child.Output()
	require.NoError(t, w.Close())
	require.NoError(t, err, "%s", stdout)
}

// TestStderrBlocked: a stderr that nobody reads holds up neither the logging
// nor a change of the log nor the exit. Fails (the child is killed) if
// Reconfigure or Close waits for the sink without end.
func TestStderrBlocked(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	child := childCommand("stderr blocked")
	child.Stderr = w
	child.WaitDelay = patience
	limit := time.AfterFunc(patience, func() { _ = child.Process.Kill() })
	defer limit.Stop()
	stdout, err := child.Output()
	require.NoError(t, w.Close())
	require.NoError(t, err, "%s", stdout)
}
