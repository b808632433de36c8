package conf

import (
	"fmt"
	"slices"
)

// A directive is one key that may stand in a table whose values go into a T.
type directive[T any] struct {
	name  string
	value any // the default: a string, int or bool as in a file; or required, or none
	set   setter[T]
}

// A setter stores the value of n in to, or notes what is wrong with it.
type setter[T any] func(r *reader, to *T, n *node)

// absence is what a directive has in place of a default.
type absence string

const (
	required absence = "required"
	none     absence = "none" // the field keeps its zero value
)

// slot makes the setter of a directive whose value is all there is to it: kind
// judges the value, field finds where in a T it goes.
func slot[T, V any](kind func(*node) (V, error), field func(*T) *V) setter[T] {
	return func(r *reader, to *T, n *node) {
		if v, err := kind(n); err != nil {
			r.problem(n.at, "%s: %v", n.name, err)
		} else {
			*field(to) = v
		}
	}
}

// directives are the keys of one kind of table.
type directives[T any] struct {
	place string // as messages call it
	rows  []directive[T]
}

// read stores the entries of the table n in to. Defaults come first, so that
// to is complete even if n has mistakes.
func (t directives[T]) read(r *reader, to *T, n *node) {
	if n.kind != table {
		r.problem(n.at, "%s: want a table, got %s", n.name, n.describe())
		return
	}
	for _, d := range t.rows {
		switch d.value {
		case none:
		case required:
			if n.kid(d.name) == nil {
				r.problem(n.at, "%s needs %q", t.place, d.name)
			}
		default:
			d.set(r, to, literal(d.name, d.value))
		}
	}
	for _, kid := range n.kids {
		i := slices.IndexFunc(t.rows, func(d directive[T]) bool { return d.name == kid.name })
		if i >= 0 {
			t.rows[i].set(r, to, kid)
		} else if !r.full() {
			r.problem(kid.nameAt, "%s", t.misplaced(kid.name, r.homes[kid.name]))
		}
	}
}

// misplaced says why key may not stand in t, if it may stand in home or, if
// that is empty, nowhere.
func (t directives[T]) misplaced(key, home string) string {
	switch home {
	case "":
	case mainFile: // the usual slip: in TOML a key belongs to the last header above it
		return fmt.Sprintf("%q belongs to %s, above the first [[upstream]] or [[server]], not to %s", key, home, t.place)
	default:
		return fmt.Sprintf("%q belongs to %s, not to %s", key, home, t.place)
	}
	if isNotYet(key) {
		message := fmt.Sprintf("%q is not supported by this version", key)
		if hint := instead[key]; hint != "" {
			message += "; " + hint
		}
		return message
	}
	if near := closest(key, t.names()); near != "" {
		return fmt.Sprintf("unknown key %q (did you mean %q?)", key, near)
	}
	return fmt.Sprintf("unknown key %q in %s", key, t.place)
}

func (t directives[T]) names() []string {
	names := make([]string, len(t.rows))
	for i, d := range t.rows {
		names[i] = d.name
	}
	return names
}
