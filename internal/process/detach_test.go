package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const detachVariable = "SMTPLB_TEST_DETACH"

// detachAs is this test binary as a program that goes to the background, and
// what it does there.
func detachAs(how string) int {
	parent := Detached()
	if parent == nil {
		code, err := Detach()
		if err != nil {
			fmt.Fprintln(os.Stderr, "parent:", err)
			return 9
		}
		return code
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if _, again := os.LookupEnv(readyVariable); again {
		return 8
	}
	switch how {
	case "refuse":
		fmt.Fprintln(os.Stderr, "no room")
		return 7
	case "succeed": // which it must not
		return 0
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "wait", "late":
		fmt.Fprintln(os.Stderr, "waiting")
		<-signals
		if how == "wait" {
			return 6
		}
	}
	if err := parent.Ready(how == "loud"); err != nil {
		return 5
	}
	fmt.Fprintln(os.Stderr, "afterwards")
	return 0
}

// The starter's exit code and standard error are those of the start.
//
// Fails if the end of the background process before it is ready counts as
// ready, if it may succeed by exit code 0, if signals are not passed on, and if
// a start that was called off counts as one.
func TestDetach(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		how    string
		code   int
		stderr string
	}{
		{"ready", 0, ""},
		{"loud", 0, "afterwards\n"},
		{"refuse", 7, "no room\n"},
		{"succeed", 1, ""},
		{"die", 9, "parent: the background process ended before it was ready: signal: killed\n"},
		{"wait", 6, "waiting\n"},
		{"late", 1, "waiting\n"},
	} {
		t.Run(test.how, func(t *testing.T) {
			t.Parallel()
			parent := exec.Command(os.Args[0])
			parent.Env = append(os.Environ(), detachVariable+"="+test.how)
			stderr, err := parent.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, parent.Start())
			var said strings.Builder
			for in := bufio.NewScanner(stderr); in.Scan(); { // until the last holder has closed it
				fmt.Fprintln(&said, in.Text())
				if in.Text() == "waiting" {
					require.NoError(t, parent.Process.Signal(syscall.SIGINT))
				}
			}
			_ = parent.Wait() // its error is the exit code
			require.Equal(t, test.code, parent.ProcessState.ExitCode(), said.String())
			require.Equal(t, test.stderr, said.String())
		})
	}
}

// Who has the variable but no pipe was not started by Detach.
//
// Fails if the variable alone is believed.
func TestDetachedByNobody(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), detachVariable+"=ready", readyVariable+"=3")
	require.NoError(t, cmd.Run(), "it then detaches by itself")
}
