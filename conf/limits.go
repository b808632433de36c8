package conf

import "fmt"

// Limits of sessions by key, in TOML: what their tables may say, what reads it;
// and, for both syntaxes, what holds for all of them together.

var limitZoneTable = directives[LimitZone]{"[[limit_conn_zone]]", []directive[LimitZone]{
	{"name", required, slot(str, func(z *LimitZone) *string { return &z.Name })},
	{"key", required, slot(anyText, func(z *LimitZone) *string { return &z.Key })},
	{"size", "1m", slot(size(minZone, maxZone), func(z *LimitZone) *int { return &z.Size })},
}}

var limitTable = directives[Limit]{"limit_conn", []directive[Limit]{
	{"zone", required, slot(str, func(l *Limit) *string { return &l.Zone })},
	{"connections", required, slot(number(1, maxLimit), func(l *Limit) *int { return &l.Connections })},
}}

var limitLevels = []string{"info", "notice", "warn", "error"}

const (
	minZone = 32 << 10 // eight pages, as nginx has it
	maxZone = 1 << 30

	maxLimit = 65535
	// maxLimits bounds the work that one session makes.
	maxLimits = 64
	maxZones  = 1000
)

func (r *reader) limitZones(c *Config, n *node) {
	for _, n := range n.elements() {
		z := LimitZone{Position: n.at}
		limitZoneTable.read(r, &z, n)
		if len(c.LimitZones) == maxZones {
			r.problem(n.at, "%v", errTooManyZones)
			return
		}
		c.LimitZones = append(c.LimitZones, z)
	}
}

func (r *reader) limits(s *Server, n *node) {
	for _, n := range n.elements() {
		l := Limit{Position: n.at}
		limitTable.read(r, &l, n.asTable("zone"))
		s.Limits = append(s.Limits, l)
	}
	if len(s.Limits) > maxLimits {
		r.problem(n.at, "%v", errTooManyLimits)
		s.Limits = nil
	}
}

var (
	errTooManyLimits = fmt.Errorf("limit_conn: too many limits; a server has at most %d", maxLimits)
	errTooManyZones  = fmt.Errorf("limit_conn_zone: too many; a configuration has at most %d", maxZones)
)

// limits checks the zones and the limits that use them.
func (v *validator) limits() {
	zones := make(map[string]Position)
	var names []string
	for _, z := range v.cfg.LimitZones {
		if at, again := zones[z.Name]; again && z.Name != "" {
			v.problem(z.Position, "limit_conn_zone %q is defined already at %s", z.Name, at)
			continue
		}
		zones[z.Name] = z.Position
		names = append(names, z.Name)
	}
	for _, s := range v.cfg.Servers {
		first := make(map[string]Position, len(s.Limits))
		for _, l := range s.Limits {
			if l.Zone == "" {
				continue
			}
			if at, again := first[l.Zone]; again {
				v.problem(l.Position, "limit_conn: zone %q has a limit here already, at %s", l.Zone, at)
			}
			first[l.Zone] = l.Position
			if _, ok := zones[l.Zone]; ok {
				continue
			}
			v.problem(l.Position, "limit_conn: no limit_conn_zone is named %q%s", l.Zone, v.hint(l.Zone, names))
		}
	}
}
