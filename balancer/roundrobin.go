package balancer

import "smtplb/upstream"

// RoundRobin is nginx's smooth weighted round robin: over a period of the sum
// of the weights each server comes as often as its weight says, and as evenly
// spread as that allows. Its state is in the slots.
//
// A server that failures have made lighter (Effective below Weight) gains one
// in every choice in which it takes part, after its credit has been added: so
// it is still chosen by the old value this time. The first of equals wins.
//
// See ngx_stream_upstream_get_peer.
type RoundRobin struct{}

// Pick implements upstream.Method.
func (RoundRobin) Pick(slots []upstream.Slot, _ *upstream.Session) int {
	best, total := -1, 0
	for i := range slots {
		s := &slots[i]
		if !s.Eligible {
			continue
		}
		s.Current += s.Effective
		total += s.Effective
		if s.Effective < s.Weight {
			s.Effective++
		}
		if best < 0 || s.Current > slots[best].Current {
			best = i
		}
	}
	if best >= 0 {
		slots[best].Current -= total
	}
	return best
}
