package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
)

// T21: on each loop one flow as fast as it can be relayed, and beside them 200
// sessions in dialogue. The loops share the sessions, and none of these waits
// for a flow. A flow is spliced, or it is copied: then it costs the balancer
// more than its two ends, and it always has something to do.
//
// What counts is the processor time that a loop spends on other things before
// it relays a command and its reply, so one that has to wait for a processor is
// not blamed for that.
//
// Fails if a half may go on for as long as it has something to do (copied), and
// if a loop keeps all sessions that it accepts.
func TestBulkBesideDialogue(t *testing.T) {
	t.Parallel()
	const (
		loops    = 2
		sessions = 200
		duration = 2 * time.Second
		pause    = 50 * time.Millisecond // of each session between exchanges
		least    = 10 << 20              // bytes
	)
	for _, test := range []struct {
		name  string
		pour  func(c *net.TCPConn, until time.Time) error
		moved string // how the log names their bytes
	}{
		{"spliced", pour, "bytes_spliced"},
		{"copied", pourUrgently, "bytes_copied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := smtptest.Serve(t, loopback(t), chat).Addr()
			addr := freeAddr(t)
			p := smtptest.Start(t, workers(loops)+proxy(addr, server, "proxy_buffer_size = '1k'"))
			direct, proxied := make([]*caller, sessions), make([]*caller, sessions+loops)
			for i := range direct {
				direct[i] = call(t, server)
			}
			for i := range proxied {
				proxied[i] = call(t, addr)
				proxied[i].clock = func() (time.Duration, error) {
					used, err := smtptest.CPUTime(p.Pid())
					return used / loops, err
				}
			}
			shares := spread(t, p, proxied)
			require.Len(t, shares, loops)
			fair := float64(len(proxied)) / loops
			for _, share := range shares {
				require.InDelta(t, fair, len(share), fair/4, "sessions of a loop")
			}

			until := time.Now().Add(duration)
			var all sync.WaitGroup
			run := func(f func() error) {
				all.Go(func() {
					if err := f(); err != nil {
						t.Error(err)
					}
				})
			}
			for _, share := range shares {
				flow := share[0]
				proxied = slices.DeleteFunc(proxied, func(c *caller) bool { return c == flow })
				run(func() error { return test.pour(flow.Conn.(*net.TCPConn), until) })
			}
			for i := range sessions {
				run(func() error {
					for time.Now().Before(until) {
						if err := errors.Join(direct[i].exchange("NOOP\r\n"), proxied[i].exchange("NOOP\r\n")); err != nil {
							return err
						}
						time.Sleep(pause)
					}
					return nil
				})
			}
			all.Wait()
			requireNoStall(t, took(direct), took(proxied))

			for _, c := range proxied {
				c.Close()
			}
			p.Signal(syscall.SIGTERM)
			require.Zero(t, p.Exit(patience))
			m := regexp.MustCompile(`"` + test.moved + `": (\d+)`).FindStringSubmatch(p.Log())
			require.Len(t, m, 2)
			moved, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			t.Logf("%d MiB %s", moved>>20, test.name)
			require.Greater(t, moved, least, "flows that are slow prove nothing")
		})
	}
}

func took(callers []*caller) (all []time.Duration) {
	for _, c := range callers {
		all = append(all, c.took...)
	}
	return all
}

// pour makes c a flow, and closes it when the time has come. The flow comes
// from a program of its own, as it is read by one: this one keeps its
// processor time for the dialogues.
func pour(c *net.TCPConn, until time.Time) error {
	defer c.Close()
	if err := say(c, "BULK\r\n"); err != nil {
		return err
	}
	f, err := c.File()
	if err != nil {
		return err
	}
	defer f.Close()
	cat := exec.Command("cat", "/dev/zero")
	cat.Stdout = f
	if err := cat.Start(); err != nil {
		return err
	}
	time.Sleep(time.Until(until))
	if err := cat.Process.Kill(); err != nil {
		return err
	}
	_ = cat.Wait() // killed
	return nil
}

// pourUrgently is pour with an urgent byte now and then: what has one in it is
// not spliced.
func pourUrgently(c *net.TCPConn, until time.Time) error {
	defer c.Close()
	if err := say(c, "BULK\r\n"); err != nil {
		return err
	}
	if err := c.SetDeadline(until); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for chunk := make([]byte, 256<<10); ; {
		// A byte for which there is no room is not missed.
		_ = raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), chunk[:1], unix.MSG_OOB|unix.MSG_DONTWAIT, nil) })
		if _, err := c.Write(chunk); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// discard reads c to its end.
func discard(c net.Conn) {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return
	}
	defer f.Close()
	cat := exec.Command("cat")
	cat.Stdin = f
	_ = cat.Run() // ends with the connection, however that ends
}

// spread returns the callers that each loop of the program serves. The kernel
// tells what an epoll instance watches, by inode.
func spread(t testing.TB, p *smtptest.Process, callers []*caller) (loops [][]*caller) {
	t.Helper()
	var byInode map[uint64]*caller
	smtptest.Eventually(t, patience, "the kernel's table has all callers", func() bool {
		byInode = inodes(t, p, callers) // one is missed where another socket goes
		return len(byInode) == len(callers)
	})
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", p.Pid()))
	require.NoError(t, err)
	watched := regexp.MustCompile(`(?m)^tfd:.* ino:([0-9a-f]+)`)
	for _, path := range infos {
		info, err := os.ReadFile(path)
		if err != nil {
			continue // closed meanwhile
		}
		var loop []*caller
		for _, m := range watched.FindAllSubmatch(info, -1) {
			inode, err := strconv.ParseUint(string(m[1]), 16, 64)
			require.NoError(t, err)
			if c := byInode[inode]; c != nil {
				loop = append(loop, c)
			}
		}
		if len(loop) > 0 {
			loops = append(loops, loop)
		}
	}
	return loops
}

// inodes returns the callers by the inode of the program's end of their
// connections, as /proc/net/tcp has it.
func inodes(t testing.TB, p *smtptest.Process, callers []*caller) map[uint64]*caller {
	t.Helper()
	byEnds := make(map[string]*caller)
	for _, c := range callers {
		byEnds[endsOf(c.RemoteAddr(), c.LocalAddr())] = c
	}
	f, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", p.Pid()))
	require.NoError(t, err)
	byInode := make(map[uint64]*caller)
	for line := range strings.Lines(string(f)) {
		field := strings.Fields(line)
		if c := byEnds[field[1]+" "+field[2]]; c != nil {
			inode, err := strconv.ParseUint(field[9], 10, 64)
			require.NoError(t, err)
			byInode[inode] = c
		}
	}
	return byInode
}

// endsOf writes the ends of a connection as /proc/net/tcp does: each address as
// a number of this machine, then the port.
func endsOf(local, remote net.Addr) string {
	end := func(a net.Addr) string {
		tcp := a.(*net.TCPAddr)
		return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(tcp.IP.To4()), tcp.Port)
	}
	return end(local) + " " + end(remote)
}
