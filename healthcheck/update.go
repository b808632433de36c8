package healthcheck

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"time"
)

const (
	// spread is the time over which first probes begin, unless there are so
	// many that more than startRate would begin in a second.
	spread    = time.Second
	startRate = 200
)

// apply carries out an Update.
func (c *Checker) apply(list []Target, now time.Time) {
	targets := make(map[Reporter]*target, len(list))
	order := make([]*target, 0, len(list))
	for _, wish := range list {
		wish.Rise, wish.Fall = max(wish.Rise, 1), max(wish.Fall, 1)
		wish.DownInterval = cmp.Or(wish.DownInterval, wish.Interval)
		t := targets[wish.Reporter]
		if t == nil {
			if t = c.targets[wish.Reporter]; t == nil {
				t = &target{state: wish.State}
			}
			targets[wish.Reporter] = t
			order = append(order, t)
		}
		t.Target = wish
	}
	c.targets = targets
	fresh := c.assign(order)
	c.dropUnused()
	c.hasten(now)
	c.scheduleFirst(fresh, now)
}

// assign gives each target its check, and returns the checks that have a target
// they did not have before.
func (c *Checker) assign(targets []*target) (fresh []*check) {
	for _, k := range c.checks {
		k.targets = nil
	}
	seen := make(map[*check]bool)
	for _, t := range targets {
		k := c.checks[t.Settings]
		if k == nil {
			k = &check{settings: t.Settings, index: -1}
			c.checks[t.Settings] = k
		}
		k.targets = append(k.targets, t)
		if t.check != k && !seen[k] {
			seen[k] = true
			fresh = append(fresh, k)
		}
		t.check = k
	}
	return fresh
}

// dropUnused gives up the checks without a target. A running probe is cut, and
// its check stays until it has ended, so that no other one of the same Settings
// begins before.
func (c *Checker) dropUnused() {
	for settings, k := range c.checks {
		switch {
		case len(k.targets) > 0:
		case k.running():
			k.cut = true
			k.cancel()
		default:
			heap.Remove(&c.queue, k.index)
			delete(c.checks, settings)
		}
	}
}

// hasten brings forward what was scheduled by an interval longer than those of
// now.
func (c *Checker) hasten(now time.Time) {
	for _, k := range c.queue {
		if interval := k.interval(); k.due.Sub(now) > interval*6/5 {
			k.due = later(k.soonest(now), now.Add(rand.N(max(interval, 1))))
		}
	}
	heap.Init(&c.queue)
}

// scheduleFirst spreads the first probes of the new targets. A running probe
// will do as one.
func (c *Checker) scheduleFirst(fresh []*check, now time.Time) {
	rand.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
	slot := max(spread, time.Duration(len(fresh))*time.Second/startRate) / time.Duration(max(len(fresh), 1))
	for i, k := range fresh {
		at := now.Add(time.Duration((float64(i) + rand.Float64()) * float64(slot)))
		switch {
		case k.running():
		case k.index < 0:
			c.schedule(k, at)
		default:
			c.reschedule(k, earlier(k.due, later(at, k.soonest(now))))
		}
	}
}
