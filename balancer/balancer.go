// Package balancer holds the methods by which a group of servers chooses among
// those that may be had: each is an upstream.Method in a file of its own, and
// has a case in New.
//
//	method, err := balancer.New(balancer.Options{Name: "least_conn"})
//	group := upstream.NewGroup(upstream.Config{Method: method, …})
//
// A method sees weights, connections, expected latencies and eligibility, and
// nothing else: no locks, no clock, no addresses, no failures. Who is eligible
// is for package upstream to say, which also holds the lock around each Pick.
//
// The arithmetic is nginx's, to the last quirk: the same sessions get the same
// servers. Where nginx leaves a method for round robin, so do these.
package balancer

import (
	"fmt"
	"math/rand/v2"

	"smtplb/upstream"
)

// Options name a method and say how it is to choose.
type Options struct {
	Name       string           // round_robin, least_conn, least_load, hash, random or least_time
	Consistent bool             // hash
	Two        bool             // random: the better of two
	Measure    upstream.Measure // least_time
}

// New returns the maker of a method. What it makes serves one list of servers,
// the primaries or the backups of a group.
func New(o Options) (func([]upstream.Server) upstream.Method, error) {
	switch o.Name {
	case "round_robin":
		return always(RoundRobin{}), nil
	case "least_conn", "least_load": // differ in who makes the weights
		return always(LeastConn{}), nil
	case "least_time":
		if o.Measure.Of == upstream.Never {
			return nil, fmt.Errorf("method %q needs to know which time it goes by", o.Name)
		}
		return always(LeastTime{o.Measure}), nil
	case "hash":
		if o.Consistent {
			return forPrimaries(func(s []upstream.Server) upstream.Method { return NewConsistent(s) }), nil
		}
		return forPrimaries(func(s []upstream.Server) upstream.Method { return NewHash(s) }), nil
	case "random":
		return forPrimaries(func(s []upstream.Server) upstream.Method { return NewRandom(s, o.Two, rand.IntN) }), nil
	}
	return nil, fmt.Errorf("unknown balancing method %q", o.Name)
}

// always makes a method that is the same for every list of servers.
func always(m upstream.Method) func([]upstream.Server) upstream.Method {
	return func([]upstream.Server) upstream.Method { return m }
}

// forPrimaries makes a method that knows no backups. nginx refuses those beside
// hash and random, but overlooks them where the method stands below the servers;
// it then comes to the backups by way of round robin, and stays with that.
func forPrimaries(method func([]upstream.Server) upstream.Method) func([]upstream.Server) upstream.Method {
	return func(servers []upstream.Server) upstream.Method {
		if len(servers) < 2 || servers[0].Backup {
			return RoundRobin{}
		}
		return method(servers)
	}
}

// maxMisses is how many unusable servers hash and random may hit upon in a
// session before round robin takes over, for good.
const maxMisses = 20

// anyEligible reports whether a pick can succeed.
func anyEligible(slots []upstream.Slot) bool {
	for i := range slots {
		if slots[i].Eligible {
			return true
		}
	}
	return false
}
