package reactor

import "math/bits"

const (
	// Tick is the wheel's resolution in milliseconds: a timer fires up to one
	// tick late.
	Tick = 100

	buckets = 1024 // about 100 s; what lies further is filed at the rim and refiled
	none    = -1
)

// Wheel is a coarse timer wheel with one timer for each slot index. Arming is
// lazy: a timer that is already filed early enough stays where it is, fires,
// and its owner arms it again for what is left; so a session that is always
// busy costs the wheel nothing. The zero Wheel is ready at time 0. One
// goroutine owns it. Times are milliseconds of one monotonic clock.
type Wheel struct {
	nodes  []timer
	heads  [buckets]int32 // index+1 of the first node; 0: empty
	filled [buckets / 64]uint64
	tick   int64 // every bucket up to and including this tick has been fired
	armed  int
}

type timer struct {
	next, prev int32 // index of neighbours in the bucket, or none
	bucket     int32 // none: not filed
	at         int64 // tick it is filed for
}

// Arm makes the timer of a slot fire at the given time; before it, if the slot
// has an earlier one already or the time lies beyond the rim: the owner of a
// timer that fires early arms it again.
func (w *Wheel) Arm(index uint32, at int64) {
	for int(index) >= len(w.nodes) {
		w.nodes = append(w.nodes, timer{bucket: none})
	}
	t := (at + Tick - 1) / Tick
	t = min(max(t, w.tick+1), w.tick+buckets-1)
	n := &w.nodes[index]
	if n.bucket != none {
		if n.at <= t {
			return
		}
		w.unlink(index)
	}
	w.link(index, t)
}

// Disarm removes the timer of a slot, if it has one.
func (w *Wheel) Disarm(index uint32) {
	if int(index) < len(w.nodes) && w.nodes[index].bucket != none {
		w.unlink(index)
	}
}

func (w *Wheel) link(index uint32, t int64) {
	b := int32(t % buckets)
	n := &w.nodes[index]
	n.bucket, n.at = b, t
	n.prev, n.next = none, w.heads[b]-1
	if n.next != none {
		w.nodes[n.next].prev = int32(index)
	}
	w.heads[b] = int32(index) + 1
	w.filled[b/64] |= 1 << (b % 64)
	w.armed++
}

func (w *Wheel) unlink(index uint32) {
	n := &w.nodes[index]
	b := n.bucket
	if n.prev != none {
		w.nodes[n.prev].next = n.next
	} else {
		w.heads[b] = n.next + 1
	}
	if n.next != none {
		w.nodes[n.next].prev = n.prev
	}
	if w.heads[b] == 0 {
		w.filled[b/64] &^= 1 << (b % 64)
	}
	n.bucket = none
	w.armed--
}

// Advance fires every timer due at now. A fired timer is disarmed before fire
// is called, and fire may arm and disarm any timer.
func (w *Wheel) Advance(now int64, fire func(index uint32)) {
	to := now / Tick
	if w.armed == 0 {
		w.tick = max(w.tick, to)
		return
	}
	// A clock that jumped past the rim (a stopped process) still visits each
	// bucket once only: no timer is filed further than that.
	if to-w.tick > buckets {
		w.tick = to - buckets
	}
	for w.tick < to {
		w.tick++
		b := w.tick % buckets
		for w.heads[b] != 0 {
			index := uint32(w.heads[b] - 1)
			w.unlink(index)
			fire(index)
		}
	}
}

// Due reports whether Advance would fire a timer.
func (w *Wheel) Due(now int64) bool {
	return w.armed > 0 && now/Tick > w.tick && w.Next() <= now
}

// Next returns the time of the earliest filed timer, or -1 if there is none.
func (w *Wheel) Next() int64 {
	if w.armed == 0 {
		return -1
	}
	start := (w.tick + 1) % buckets
	for i := range int64(buckets/64 + 1) {
		word := (start/64 + i) % (buckets / 64)
		m := w.filled[word]
		switch i {
		case 0:
			m &= ^uint64(0) << (start % 64)
		case buckets / 64: // the first word again, for what lies before start
			m &= 1<<(start%64) - 1
		}
		if m != 0 {
			b := word*64 + int64(bits.TrailingZeros64(m))
			ahead := (b - start + buckets) % buckets
			return (w.tick + 1 + ahead) * Tick
		}
	}
	panic("reactor: BUG: timers armed but no bucket filled")
}
