package balancer

import "smtplb/upstream"

// LeastConn is nginx's least_conn: the server with the fewest sessions for its
// weight, and round robin among those that are equal in that. A server that is
// better than all others is chosen without any effect on the rotation, and a
// weight that failures have lowered does not count and recovers in rotations
// only.
//
// See ngx_stream_upstream_get_least_conn_peer.
type LeastConn struct{}

// Pick implements upstream.Method.
func (LeastConn) Pick(slots []upstream.Slot, s *upstream.Session) int {
	return least(slots, s, func(s *upstream.Slot) int { return s.Conns })
}

// LeastTime is nginx's least_time: the server that is expected to be done first
// with the sessions that it has and one more, for its weight, and round robin
// among those that are equal in that.
//
// See ngx_stream_upstream_get_least_time_peer. In its round robin the eta of one
// server meets the weight of another once a later one has become the best, and
// then equals are passed over; here they are not.
type LeastTime struct{ measure upstream.Measure }

// Measure implements upstream.TimedMethod.
func (m LeastTime) Measure() upstream.Measure { return m.measure }

// Pick implements upstream.Method.
func (LeastTime) Pick(slots []upstream.Slot, s *upstream.Session) int {
	return least(slots, s, eta)
}

// Latencies, in ms.
const (
	latencyStep = 20   // those within a step are equal
	latencyMax  = 5000 // those above are equally bad
)

// eta is when a server is expected to be done, in ms from now.
func eta(s *upstream.Slot) int {
	latency := int(s.Latency)
	if latency > latencyMax {
		latency = latencyMax
	} else {
		latency += latencyStep - latency%latencyStep
	}
	return latency * (1 + s.Conns)
}

// least picks the server with the least load for its weight, and if there are
// several, one of them by round robin.
func least(slots []upstream.Slot, s *upstream.Session, load func(*upstream.Slot) int) int {
	best, many := -1, false
	bestLoad, bestWeight := 0, 0
	for i := range slots {
		s := &slots[i]
		if !s.Eligible {
			continue
		}
		l := load(s)
		mine, its := l*bestWeight, bestLoad*s.Weight
		if best < 0 || mine < its {
			best, many = i, false
			bestLoad, bestWeight = l, s.Weight
		} else if mine == its {
			many = true
		}
	}
	if !many {
		return best
	}
	for i := range slots {
		if s := &slots[i]; s.Eligible && load(s)*bestWeight != bestLoad*s.Weight {
			s.Eligible = false
		}
	}
	return RoundRobin{}.Pick(slots, s)
}
