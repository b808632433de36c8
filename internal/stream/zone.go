package stream

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync"
)

// Zone counts sessions by a key, for limit_conn. Its owner makes one for each
// limit_conn_zone and keeps it over reloads; all workers count in it.
type Zone struct {
	name string
	size int64

	mu   sync.Mutex // protects below
	used int64      // of size
	seed maphash.Seed
	// Counters by the hash of their key; those that share one are linked.
	counters map[uint64]*counter
	free     *counter // linked
}

// counter counts the sessions of one key, and is in the zone while there are
// any. A session holds one as its claim to be counted.
type counter struct {
	zone *Zone
	hash uint64
	key  []byte
	n    int
	next *counter
}

// NewZone returns an empty zone. Its size, in bytes, bounds how many keys it
// counts at once: a key takes as much as in nginx, 64 for an address.
func NewZone(name string, size int64) *Zone {
	return &Zone{name: name, size: size, seed: maphash.MakeSeed(), counters: make(map[uint64]*counter)}
}

// claim counts one more session with the key, unless that would be more than
// limit, or the zone is full.
func (z *Zone) claim(key []byte, limit int) (c *counter, full bool) {
	hash := maphash.Bytes(z.seed, key)
	z.mu.Lock()
	defer z.mu.Unlock()
	for c = z.counters[hash]; c != nil; c = c.next {
		if bytes.Equal(c.key, key) {
			if c.n >= limit {
				return nil, false
			}
			c.n++
			return c, false
		}
	}
	if z.used+cost(key) > z.size {
		return nil, true
	}
	if c = z.free; c != nil {
		z.free = c.next
	} else {
		c = &counter{zone: z}
	}
	z.used += cost(key)
	c.hash, c.n = hash, 1 // the first is counted whatever the limit is: nginx has none below one
	c.key = append(c.key[:0], key...)
	c.next = z.counters[hash]
	z.counters[hash] = c
	return c, false
}

// release ends a session's claim.
func (c *counter) release() {
	z := c.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if c.n--; c.n > 0 {
		return
	}
	z.used -= cost(c.key)
	if first := z.counters[c.hash]; first != c {
		for first.next != c {
			first = first.next
		}
		first.next = c.next
	} else if c.next != nil {
		z.counters[c.hash] = c.next
	} else {
		delete(z.counters, c.hash)
	}
	c.next, z.free = z.free, c
}

// cost is what a key takes in nginx on a 64-bit machine: the node and the key in
// a slot of its slab, whose sizes are powers of two.
func cost(key []byte) int64 {
	const node = 36
	return 1 << bits.Len(uint(node+len(key)-1))
}
