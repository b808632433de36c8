package smtptest

import (
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	addr := Refused(t)
	_, err := net.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = net.Listen("tcp", addr)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

// Fails when FreePort keeps no claim: 200 of some 22,000 ports meet each other
// in most runs, and the second loop finds one held.
func TestFreePort(t *testing.T) {
	t.Parallel()
	var ports []int
	failed, said := try(t, func(tb testing.TB) {
		seen := make(map[int]bool)
		for range 200 {
			p := FreePort(tb)
			require.False(t, seen[p])
			seen[p] = true
			ports = append(ports, p)
			require.GreaterOrEqual(t, p, 10000)
			require.Less(t, p, firstEphemeral(), "a connection could take it")
			_, err := net.Listen("unix", "@smtptest-port-"+strconv.Itoa(p))
			require.ErrorIs(t, err, syscall.EADDRINUSE, "claimed against other processes")
		}
		ln, err := net.Listen("tcp", ":"+strconv.Itoa(ports[0]))
		require.NoError(t, err, "it is free to listen on")
		ln.Close()
	})
	require.False(t, failed, said)
	ln, err := net.Listen("unix", "@smtptest-port-"+strconv.Itoa(ports[0]))
	require.NoError(t, err, "released at the end of the test")
	ln.Close()
}

func TestEventually(t *testing.T) {
	t.Parallel()
	n := 0
	Eventually(t, patience, "third time", func() bool { n++; return n == 3 })
	failed, said := try(t, func(tb testing.TB) {
		Eventually(tb, 5*time.Millisecond, "pigs fly", func() bool { return false })
	})
	require.True(t, failed)
	require.Equal(t, "not within 5ms: pigs fly", said)
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	require.Equal(t, Latency{}, Summarize(nil))
	require.Equal(t, Latency{N: 1, P50: 7, P99: 7, Max: 7}, Summarize([]time.Duration{7}))
	var d []time.Duration
	for i := 200; i >= 1; i-- {
		d = append(d, time.Duration(i))
	}
	require.Equal(t, Latency{N: 200, P50: 100, P99: 198, Max: 200}, Summarize(d))
	require.Equal(t, "p50 1s p99 1s max 1s of 1", Summarize([]time.Duration{time.Second}).String())
}

// Not parallel: other tests open descriptors and start threads.
func TestProcessFigures(t *testing.T) {
	pid := os.Getpid()
	before := FDs(t, pid)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.Len(t, FDs(t, pid), len(before)+2)
	require.NoError(t, r.Close())
	require.NoError(t, w.Close())
	require.Equal(t, before, FDs(t, pid))

	require.Greater(t, RSS(t, pid), int64(1<<20))
	require.Greater(t, PrivateMemory(t, pid), int64(1<<19))
	require.Less(t, PrivateMemory(t, pid), RSS(t, pid))

	threads := Threads(t, pid)
	var ended sync.WaitGroup
	release := make(chan struct{})
	for range 50 {
		ready := make(chan struct{})
		ended.Go(func() {
			runtime.LockOSThread() // and not unlocked: the thread ends, too
			close(ready)
			<-release
		})
		<-ready
	}
	require.GreaterOrEqual(t, Threads(t, pid), max(51, threads))
	close(release)
	ended.Wait()

	// However busy the machine is, work is counted, and no more of it than all
	// processors can do.
	const work = 20 * time.Millisecond
	begin, idle := time.Now(), CPU(t, pid)
	for CPU(t, pid)-idle < work {
		require.Less(t, time.Since(begin), patience)
	}
	require.Greater(t, time.Since(begin)*time.Duration(runtime.NumCPU()), work)

	for name, f := range map[string]func(testing.TB){
		"FDs":     func(tb testing.TB) { FDs(tb, 1<<30) },
		"Threads": func(tb testing.TB) { Threads(tb, 1<<30) },
		"CPU":     func(tb testing.TB) { CPU(tb, 1<<28) },
	} {
		failed, _ := try(t, f)
		require.True(t, failed, name)
	}
}
