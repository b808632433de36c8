package smtptest

import (
	"fmt"
	"slices"
	"time"
)

// Latency is a summary of durations.
type Latency struct {
	N             int
	P50, P99, Max time.Duration
}

// Summarize sorts d and sums it up. A quantile is the smallest duration that
// at least that share of all do not exceed.
func Summarize(d []time.Duration) Latency {
	if len(d) == 0 {
		return Latency{}
	}
	slices.Sort(d)
	rank := func(percent int) time.Duration { return d[(len(d)*percent+99)/100-1] }
	return Latency{N: len(d), P50: rank(50), P99: rank(99), Max: d[len(d)-1]}
}

func (l Latency) String() string {
	return fmt.Sprintf("p50 %v p99 %v max %v of %d", l.P50, l.P99, l.Max, l.N)
}
