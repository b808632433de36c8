package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A score is what one proxy has used for a workload.
type score struct {
	proxy    string
	rounds   []usage // each of the whole load
	syscalls int     // of a load of their own; 0: not counted
	// traced is the size of that load, in units.
	traced float64
}

// ratios are the processor times of s by those of base, round by round.
func (s score) ratios(base score) []float64 {
	all := make([]float64, len(s.rounds))
	for i := range all {
		all[i] = float64(s.rounds[i].cpu) / float64(base.rounds[i].cpu)
	}
	return all
}

// cpu is the median of the processor time for one unit.
func (s score) cpu(w workload) time.Duration {
	return time.Duration(median(each(s.rounds, func(u usage) float64 { return float64(u.cpu) })) / w.units(w.messages))
}

// switches is the median of the context switches for one unit.
func (s score) switches(w workload) float64 {
	return median(each(s.rounds, func(u usage) float64 { return float64(u.switches) })) / w.units(w.messages)
}

func each(rounds []usage, f func(usage) float64) []float64 {
	var all []float64
	for _, u := range rounds {
		all = append(all, f(u))
	}
	return all
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// table returns the scores as a table in Markdown.
func table(w workload, scores []score) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| %s | CPU | × nginx | min–max | context switches | system calls |\n", w.per)
	fmt.Fprintf(&out, "|---|--:|--:|--:|--:|--:|\n")
	for _, s := range scores {
		ratios := s.ratios(scores[baseline])
		syscalls := "not counted"
		if s.syscalls > 0 {
			syscalls = count(float64(s.syscalls) / s.traced)
		}
		fmt.Fprintf(&out, "| %s | %s | %.2f | %.2f–%.2f | %s | %s |\n", s.proxy, precise(s.cpu(w)),
			median(ratios), slices.Min(ratios), slices.Max(ratios), count(s.switches(w)), syscalls)
	}
	return out.String()
}

// precise writes a time with three digits or so.
func precise(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
	}
	return fmt.Sprintf("%.3f s", d.Seconds())
}

// count writes a number that may be of few or of many.
func count(n float64) string {
	if n < 100 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// Fails when the ratio is that of the medians (0.50 in the second line), or when
// the load that strace has watched is taken for that of the rounds.
func TestTable(t *testing.T) {
	t.Parallel()
	ms := func(all ...int) (rounds []usage) {
		for _, n := range all {
			rounds = append(rounds, usage{cpu: time.Duration(n) * time.Millisecond, switches: 1000 * n})
		}
		return rounds
	}
	require.Equal(t, ""+
		"| per session | CPU | × nginx | min–max | context switches | system calls |\n"+
		"|---|--:|--:|--:|--:|--:|\n"+
		"| one | 80.0 µs | 1.00 | 1.00–1.00 | 80.0 | 12.0 |\n"+
		"| two | 40.0 µs | 0.80 | 0.20–2.00 | 40.0 | not counted |\n",
		table(workload{per: perSession, messages: 1000}, []score{
			{proxy: "one", rounds: ms(50, 100, 80), syscalls: 1200, traced: 100},
			{proxy: "two", rounds: ms(40, 20, 160)},
		}))
}
