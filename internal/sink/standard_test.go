package sink

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const childVariable = "SMTPLB_TEST_SINK"

// TestMain runs as a child, with a standard output of the test's making, what
// only a whole process can show.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	for range 2 {
		d, err := Open("/dev/stdout", Format{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		q := NewQueue(d, Options{Room: 100, Lost: func(_ uint64, err error) { fmt.Println(err) }})
		q.Add([]byte("line\n"))
		q.Close(10 * time.Second)
		q.Wait(10 * time.Second)
	}
	fmt.Println("still open")
}

// Standard output is written to even if it cannot be opened, as the socket that
// it is under systemd, and belongs to the process.
//
// Fails if the path is opened (no such device or address), or if a queue closes
// what it got or gives it a deadline.
func TestStandardOutput(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("unix", t.TempDir()+"/s")
	require.NoError(t, err)
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	require.NoError(t, err)
	stdout, err := client.(*net.UnixConn).File()
	require.NoError(t, err)
	require.NoError(t, client.Close())
	server, err := listener.Accept()
	require.NoError(t, err)
	defer server.Close()

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	child.Stdout = stdout
	require.NoError(t, child.Run())
	require.NoError(t, stdout.Close())
	require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	all, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "line\nline\nstill open\n", string(all))
}
