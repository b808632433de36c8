package balancer

import "smtplb/upstream"

// Random is nginx's random: servers are drawn by their weights, and drawn again
// if they cannot be had. With two, it is the one with fewer sessions for its
// weight of two that are drawn, the second if they are equal in that.
//
// See ngx_stream_upstream_get_random_peer and its random2.
type Random struct {
	shares shares
	two    bool
	draw   func(n int) int
}

// NewRandom makes a Random for servers, of which there are at least two. draw
// returns a number from 0 to n-1, each with the same probability.
func NewRandom(servers []upstream.Server, two bool, draw func(n int) int) *Random {
	return &Random{newShares(servers), two, draw}
}

// Reweigh implements upstream.WeightedMethod.
func (r *Random) Reweigh(slots []upstream.Slot) {
	total := 0
	for i := range slots {
		total += slots[i].Weight
		r.shares[i] = total
	}
}

// Pick implements upstream.Method. The first draw of two is one of those that
// are counted as misses.
func (r *Random) Pick(slots []upstream.Slot, s *upstream.Session) int {
	if s.Misses > maxMisses {
		return RoundRobin{}.Pick(slots, s)
	}
	if !anyEligible(slots) {
		return -1
	}
	first := -1
	for {
		i := r.shares.at(r.draw(r.shares.total()))
		if slots[i].Eligible && i != first {
			switch {
			case !r.two:
				return i
			case first >= 0:
				a, b := &slots[first], &slots[i]
				if b.Conns*a.Weight > a.Conns*b.Weight {
					return first
				}
				return i
			}
			first = i
		}
		if s.Misses++; s.Misses > maxMisses {
			return RoundRobin{}.Pick(slots, s)
		}
	}
}
