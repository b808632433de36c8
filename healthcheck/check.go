package healthcheck

import (
	"context"
	"math/rand/v2"
	"time"
)

// hurry is the time from the end of a probe to the next when somebody waits for
// it, and the least one that anybody can make it.
const hurry = time.Second

// check is what the targets of equal Settings share. It is owned by the
// scheduler. While a probe runs it is not in the queue, otherwise it is.
type check struct {
	settings Settings
	targets  []*target // empty only while a probe that was cut has not ended yet

	due   time.Time
	index int // in the queue

	cancel context.CancelFunc // of the running probe; nil if none runs
	cut    bool               // the running probe: its result counts for nothing
	ended  time.Time          // of the last probe; zero if there was none

	warned time.Time // of its certificate
}

func (k *check) running() bool { return k.cancel != nil }

// begin notes that a probe runs from now on.
func (k *check) begin(cancel context.CancelFunc) {
	k.cancel, k.cut = cancel, false
	for _, t := range k.targets {
		t.again = false
	}
}

// interval is the shortest one of the targets.
func (k *check) interval() time.Duration {
	shortest := k.targets[0].interval()
	for _, t := range k.targets[1:] {
		shortest = min(shortest, t.interval())
	}
	return shortest
}

// next is when the next probe is due after one that ends now. The second one
// comes at any time in the latter half of the interval: checks that began
// together are as far apart from there on as can be.
//
// It comes sooner if somebody wants it within a time that is not 0, though not
// within a hurry, unless that is the interval.
func (k *check) next(now time.Time, wanted time.Duration) time.Time {
	low, high := 0.8, 1.2
	if k.ended.IsZero() {
		low, high = 0.5, 1
	}
	interval := k.interval()
	pause := time.Duration((low + (high-low)*rand.Float64()) * float64(interval))
	if wanted > 0 {
		pause = min(pause, max(wanted, min(interval, hurry)))
	}
	return now.Add(pause)
}

// soonest is when a probe may begin that somebody asks for now.
func (k *check) soonest(now time.Time) time.Time {
	return later(now, k.ended.Add(hurry))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// queue holds the checks that wait, the one due first in front; see
// container/heap.
type queue []*check

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	k := x.(*check)
	k.index = len(*q)
	*q = append(*q, k)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	k := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return k
}
