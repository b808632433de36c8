package conf

import "strings"

// Variables of one's own, in TOML: what their tables may say, and what reads it.

var mapTable = directives[Map]{"[[map]]", []directive[Map]{
	{"source", required, slot(anyText, func(m *Map) *string { return &m.Source })},
	{"variable", required, slot(variable, func(m *Map) *string { return &m.Variable })},
	{"hostnames", false, slot(flag, func(m *Map) *bool { return &m.Hostnames })},
	{"volatile", false, slot(flag, func(m *Map) *bool { return &m.Volatile })},
	{"default", none, fallback(func(m *Map) *[]Entry { return &m.Entries })},
	{"entries", none, entries(func(m *Map) *[]Entry { return &m.Entries })},
}}

var geoTable = directives[Geo]{"[[geo]]", []directive[Geo]{
	{"source", none, slot(variableUse, func(g *Geo) *string { return &g.Source })},
	{"variable", required, slot(variable, func(g *Geo) *string { return &g.Variable })},
	{"ranges", false, slot(flag, func(g *Geo) *bool { return &g.Ranges })},
	{"volatile", false, slot(flag, func(g *Geo) *bool { return &g.Volatile })},
	{"default", none, fallback(func(g *Geo) *[]Entry { return &g.Entries })},
	{"entries", none, entries(func(g *Geo) *[]Entry { return &g.Entries })},
}}

var splitTable = directives[Split]{"[[split_clients]]", []directive[Split]{
	{"source", required, slot(anyText, func(s *Split) *string { return &s.Source })},
	{"variable", required, slot(variable, func(s *Split) *string { return &s.Variable })},
	{"parts", required, entries(func(s *Split) *[]Entry { return &s.Parts })},
}}

func (r *reader) maps(c *Config, n *node) {
	for _, n := range n.elements() {
		m := Map{Position: n.at}
		mapTable.read(r, &m, n)
		c.Maps = append(c.Maps, m)
	}
}

func (r *reader) geos(c *Config, n *node) {
	for _, n := range n.elements() {
		g := Geo{Position: n.at}
		geoTable.read(r, &g, n)
		c.Geos = append(c.Geos, g)
	}
}

func (r *reader) splits(c *Config, n *node) {
	for _, n := range n.elements() {
		s := Split{Position: n.at}
		splitTable.read(r, &s, n)
		c.Splits = append(c.Splits, s)
	}
}

func (r *reader) sets(s *Server, n *node) {
	for _, e := range r.pairs(n) {
		name, err := variable(literal(n.name, e.Key))
		if err != nil {
			r.problem(e.Position, "set: %v", err)
			continue
		}
		s.Sets = append(s.Sets, Set{e.Position, name, e.Value})
	}
}

// entries makes the setter of a list of pairs, fallback that of the value where
// no other entry fits.
func entries[T any](field func(*T) *[]Entry) setter[T] {
	return func(r *reader, to *T, n *node) {
		list := field(to)
		*list = append(*list, r.pairs(n)...)
	}
}

func fallback[T any](field func(*T) *[]Entry) setter[T] {
	return func(r *reader, to *T, n *node) {
		value, err := anyText(n)
		if err != nil {
			r.problem(n.at, "%s: %v", n.name, err)
		}
		list := field(to)
		*list = append(*list, Entry{n.at, "default", value})
	}
}

// pairs reads a list of pairs, or a table for one whose keys are short and stand
// there once. Both count in the order of the file.
func (r *reader) pairs(n *node) (list []Entry) {
	add := func(at Position, key string, n *node) {
		value, err := anyText(n)
		if err != nil {
			r.problem(n.at, "%.40q: %v", key, err)
			return
		}
		list = append(list, Entry{at, key, value})
	}
	if n.kind == table {
		for _, kid := range n.kids {
			add(kid.nameAt, kid.name, kid)
		}
		return list
	}
	for _, pair := range n.elements() {
		if pair.kind != array || len(pair.kids) != 2 {
			r.problem(pair.at, "%s: %v", n.name, want(`a table, or a list of pairs such as ["key", "value"]`, pair))
			continue
		}
		key, err := anyText(pair.kids[0])
		if err != nil {
			r.problem(pair.kids[0].at, "%s: %v", n.name, err)
			continue
		}
		add(pair.at, key, pair.kids[1])
	}
	return list
}

// variables checks that no variable is defined by blocks of two kinds: a Config
// does not say which of them is the last, which is the one that holds.
func (v *validator) variables() {
	type definition struct {
		kind string
		at   Position
	}
	first := make(map[string]definition)
	define := func(kind, name string, at Position) {
		key := strings.ToLower(name)
		other, again := first[key]
		switch {
		case !again:
			first[key] = definition{kind, at}
		case other.kind != kind && name != "":
			v.problem(at, "%s: the variable %s is defined by %s already, at %s", kind, name, other.kind, other.at)
		}
	}
	for _, m := range v.cfg.Maps {
		define("map", m.Variable, m.Position)
	}
	for _, g := range v.cfg.Geos {
		define("geo", g.Variable, g.Position)
	}
	for _, s := range v.cfg.Splits {
		define("split_clients", s.Variable, s.Position)
	}
}
