// Package balancer holds the methods by which a group of servers chooses among
// those that may be had: each is an upstream.Method in a file of its own,
// listed in Lookup's table.
//
//	method, ok := balancer.Lookup("round_robin")
//	group := upstream.NewGroup(upstream.Config{Method: method, …})
//
// A method sees weights, connections and eligibility, and nothing else: no
// locks, no clock, no addresses, no failures. Who is eligible is for package
// upstream to say, which also holds the lock around each Pick.
package balancer

import "smtplb/upstream"

var methods = map[string]func() upstream.Method{
	"round_robin": func() upstream.Method { return RoundRobin{} },
}

// Lookup returns the constructor of the method that the configuration calls
// name, and whether there is one. A method serves one list of servers, the
// primaries or the backups of one group, and is made anew when that changes.
func Lookup(name string) (func() upstream.Method, bool) {
	method, ok := methods[name]
	return method, ok
}
