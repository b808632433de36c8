package conf

import "strings"

// maxConsistentWeight bounds the points of a consistent hash, 160 for each
// weight: these take seconds and some 130 MB.
const maxConsistentWeight = 100_000

// methods checks that each group's method is complete, and bounded.
func (v *validator) methods() {
	for i := range v.cfg.Upstreams {
		u := &v.cfg.Upstreams[i]
		m := &u.Method
		if m.Position == (Position{}) {
			m.Position = u.Position
		}
		v.methodKeys(m)
		switch {
		case m.Type == "hash" && m.Key == "":
			v.problem(m.Position, `method: type "hash" needs key; "client_address" sends each client to the same server again`)
		case m.Type == "least_time" && m.Of == "":
			v.problem(m.Position, `method: type "least_time" needs of: "connect", "first_byte" (with SMTP, the greeting) or "last_byte"`)
		case m.Type == "least_load" && !u.Agent.On:
			v.problem(m.Position, `method: type "least_load" goes by what agents say; add agent to upstream %q, or use "least_conn"`, u.Name)
		}
		if m.Type == "hash" && m.Key != "" && !strings.Contains(m.Key, "$") {
			v.warn(m.Position, "method: key %q has no variables: all sessions of upstream %q go to one server, and to another only while that is out", m.Key, u.Name)
		}
		v.methodWeights(u)
	}
}

// methodKeys refuses what belongs to another type.
func (v *validator) methodKeys(m *Method) {
	for _, k := range []struct {
		name, of string
		set      bool
	}{
		{"key", "hash", m.Key != ""},
		{"consistent", "hash", m.Consistent},
		{"two", "random", m.Two},
		{"of", "least_time", m.Of != ""},
		{"inflight", "least_time", m.Inflight},
	} {
		if k.set && m.Type != "" && m.Type != k.of {
			v.problem(m.Position, "method: %s is for type %q, not for %q", k.name, k.of, m.Type)
		}
	}
}

// methodWeights bounds what a method cannot have without end.
func (v *validator) methodWeights(u *Upstream) {
	if !u.Method.Consistent {
		return
	}
	weight := 0
	for _, s := range u.Servers {
		weight += s.Weight
	}
	if weight > maxConsistentWeight {
		v.problem(u.Method.Position, "method: the weights of upstream %q add up to %d; a consistent hash has at most %d, and 5 and 3 do what 500 and 300 do",
			u.Name, weight, maxConsistentWeight)
	}
}
