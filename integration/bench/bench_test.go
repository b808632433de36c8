package bench

import (
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

var (
	rounds    = flag.Int("rounds", 7, "rounds that count")
	sessions  = flag.Int("sessions", 4000, "sessions of a round, for each proxy")
	megabytes = flag.Int("megabytes", 1000, "bulk mail of a round, for each proxy")
)

// A workload is what each proxy carries in a round: messages, each in a session
// of its own.
type workload struct {
	per      string // what its figures are for: perSession or perGB
	messages int
	size     int // of a message, bytes
	parallel int // sessions at a time
	traced   int // messages while system calls are counted
}

const (
	perSession = "per session"
	perGB      = "per GB"
)

// units is the size of a load of so many messages.
func (w workload) units(messages int) float64 {
	if w.per == perGB {
		return float64(messages) * float64(w.size) / 1e9
	}
	return float64(messages)
}

func (w workload) String() string {
	size := fmt.Sprintf("%d KiB", w.size>>10)
	if w.per == perGB {
		size = fmt.Sprintf("%g MB", float64(w.size)/1e6)
	}
	return fmt.Sprintf("%d messages of %s a round, %d at a time", w.messages, size, w.parallel)
}

// BenchmarkProxies is the comparison that the package's documentation tells of.
// One iteration is all of it.
func BenchmarkProxies(b *testing.B) {
	const bulk = 10e6
	short := workload{per: perSession, messages: *sessions, size: 1 << 10, parallel: 20, traced: 500}
	long := workload{per: perGB, messages: int(math.Ceil(float64(*megabytes) * 1e6 / bulk)), size: bulk, parallel: 4, traced: 10}
	for b.Loop() {
		proxies := startAll(b)
		fmt.Printf("\n\n%s; %d rounds.\n", machine(b), *rounds)

		scores := compare(b, proxies, short, *rounds)
		fmt.Printf("\nSessions: %v.\n\n%s\n", short, table(short, scores))
		b.ReportMetric(median(scores[product].ratios(scores[baseline])), "sessions/nginx")

		scores = compare(b, proxies, long, *rounds)
		fmt.Printf("Bulk: %v.\n\n%s\n", long, table(long, scores))
		b.ReportMetric(median(scores[product].ratios(scores[baseline])), "bulk/nginx")
	}
	b.ReportMetric(0, "ns/op") // says nothing
}

// startAll starts the server and the proxies, and leaves this program on the
// processor for the load.
func startAll(t testing.TB) []proxy {
	t.Helper()
	smtptest.Build(t) // on all processors
	all, first, last := processors(t)
	t.Cleanup(func() { bind(t, all) })
	bind(t, last)
	sink := peers.SMTPSink(t)
	bind(t, first)
	proxies := startProxies(t, sink.Addr)
	bind(t, last)
	return proxies
}

// compare lets each proxy carry the workload in each round.
func compare(t testing.TB, proxies []proxy, w workload, rounds int) []score {
	t.Helper()
	proxies = slices.DeleteFunc(slices.Clone(proxies), func(p proxy) bool { return p.only != "" && p.only != w.per })
	for _, p := range proxies { // pages, caches and pools are warm after this
		p.send(t, w, (w.messages+9)/10)
	}
	scores := make([]score, len(proxies))
	order := make([]int, len(proxies))
	for i, p := range proxies {
		scores[i].proxy = p.name
		order[i] = i
	}
	for range rounds {
		for _, i := range order {
			p := proxies[i]
			before := p.used(t)
			p.send(t, w, w.messages)
			scores[i].rounds = append(scores[i].rounds, p.used(t).minus(before))
		}
		slices.Reverse(order)
	}
	if _, err := exec.LookPath("strace"); err != nil {
		return scores
	}
	for i, p := range proxies {
		scores[i].traced = w.units(w.traced)
		scores[i].syscalls = p.countSyscalls(t, func() { p.send(t, w, w.traced) })
	}
	return scores
}

// machine describes where the figures come from.
func machine(t testing.TB) string {
	t.Helper()
	model := runtime.GOARCH
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); m != nil {
		model = string(m[1])
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(os.NewSyscallError("uname", err))
	}
	return fmt.Sprintf("%s, %d processors, Linux %s, %s", model, runtime.NumCPU(),
		unix.ByteSliceToString(u.Release[:]), runtime.Version())
}

// The whole comparison in small. Fails when a proxy does not start, carries no
// mail or is measured with the load of another: each has to use time.
func TestCompare(t *testing.T) {
	w := workload{per: perSession, messages: 40, size: 1 << 10, parallel: 5, traced: 5}
	proxies := startAll(t) // one of them for bulk only
	scores := compare(t, proxies, w, 2)
	require.Len(t, scores, len(proxies)-1)
	for _, s := range scores {
		require.Len(t, s.rounds, 2)
		for _, u := range s.rounds {
			require.Positive(t, u.cpu, s.proxy)
			require.Positive(t, u.switches, s.proxy)
		}
	}
	require.Equal(t, 1+len(proxies), strings.Count(table(w, scores), "\n"))
	require.NotEmpty(t, machine(t))
}
