package integration

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/process"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// idleSessions is how many sessions share what is measured: enough that what
// the program needs once is not seen.
const idleSessions = 4000

// An idle session costs little memory beyond what the kernel has of it.
//
// Fails if each session reads into a buffer of its own, of 1 KiB.
func TestIdleSessionIsSmall(t *testing.T) {
	t.Parallel()
	perSession := idleMemory(t)
	t.Logf("%d bytes per idle session", perSession)
	if !smtptest.RaceEnabled() { // which keeps a shadow of all memory
		require.LessOrEqual(t, perSession, int64(1<<10), "bytes per idle session")
	}
}

func BenchmarkIdleSession(b *testing.B) {
	var sum, n int64
	for b.Loop() {
		sum += idleMemory(b)
		n++
	}
	b.ReportMetric(float64(sum)/float64(n), "B/session")
	b.ReportMetric(0, "ns/op") // means nothing here
}

// idleMemory is by how many bytes the program grows for one session that has
// said EHLO and waits, as seen in the memory that is its own alone: without
// the pages of its file, and without the kernel's sockets.
func idleMemory(t testing.TB) int64 {
	t.Helper()
	needFiles(t, 4*idleSessions)
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, proxy(client.Addr, mx(t, "a").Addr()))
	for range 100 { // what is made once is made now
		h, err := client.Hold(t.Context())
		require.NoError(t, err)
		require.NoError(t, h.Finish())
	}
	before := smtptest.PrivateMemory(t, p.Pid())
	held := make([]*ledger.Held, idleSessions)
	for i := range held {
		var err error
		held[i], err = client.Hold(t.Context())
		require.NoError(t, err)
		defer held[i].Abandon()
	}
	return (smtptest.PrivateMemory(t, p.Pid()) - before) / idleSessions
}

// needFiles makes sure that this process, with the tests beside this one, may
// have n files open.
func needFiles(t testing.TB, n uint64) {
	t.Helper()
	limits, err := process.RaiseNofile(0)
	require.NoError(t, err)
	if limits.Soft < n {
		limits, err = process.RaiseNofile(n)
		require.NoError(t, err)
	}
	require.GreaterOrEqual(t, limits.Soft, n, "the hard limit of open files is too low for this test: ulimit -Hn %d", n)
}
