package bench

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"

	"smtplb/internal/smtptest"
)

// copyTo, in the environment, makes this program the proxy that copies to that
// address: to be measured, it has to be a process of its own.
const copyTo = "SMTPLB_BENCH_COPY_TO"

func TestMain(m *testing.M) {
	if to := os.Getenv(copyTo); to != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // ends when the benchmark does
			os.Exit(0)
		}()
		fmt.Fprintln(os.Stderr, copyProxy(to))
		os.Exit(1)
	}
	os.Exit(smtptest.Main(m))
}

// startCopyProxy starts the proxy in a process of its own.
func startCopyProxy(t testing.TB, to string) proxy {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), copyTo+"="+to)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{f} // its descriptor 3
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start the copying proxy: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("stop the copying proxy: %v", err)
		}
	})
	return proxy{name: "goroutines and io.Copy", addr: ln.Addr().String(), pids: []int{cmd.Process.Pid}}
}

// copyProxy is the plain way to write a proxy in Go: two goroutines a session.
// Its listening socket is descriptor 3.
func copyProxy(to string) error {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	for {
		client, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp4", to)
			if err != nil {
				return
			}
			defer server.Close()
			go pass(server, client)
			pass(client, server)
		}()
	}
}

// pass copies one direction, by splice where io.Copy can, and passes its end
// on. An error shows as mail that smtp-source could not send.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.(*net.TCPConn).CloseWrite()
}
