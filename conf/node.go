package conf

import (
	"fmt"
	"strconv"
	"time"
)

// A node is one value of a TOML file: what the file says and where it says it.
// Places come from our scanner, values from the TOML library.
type node struct {
	name   string   // its key; an element of an array has its array's
	nameAt Position // of the key's last part; of an element: where it begins
	at     Position // of the value's first byte, or of the header's "["
	kind   kind
	depth  uint8   // 0 is the file's root table
	kids   []*node // a table's entries, or an array's elements, as in the file
	value  any     // a scalar: string, int64, float64, bool or time.Time
}

type kind uint8

const (
	scalar kind = iota
	array
	table
)

// kid returns the entry of the table n that has this name, or nil.
func (n *node) kid(name string) *node {
	for _, kid := range n.kids {
		if kid.name == name {
			return kid
		}
	}
	return nil
}

// elements returns an array's elements, or n itself: where a list is wanted,
// a single value may stand for a list of one.
func (n *node) elements() []*node {
	if n.kind == array {
		return n.kids
	}
	return []*node{n}
}

// asTable returns n, or if it is no table one that holds n under the key name:
// where a table is wanted, its main value may stand for it.
func (n *node) asTable(name string) *node {
	if n.kind == table {
		return n
	}
	main := *n
	main.name = name
	return &node{name: n.name, nameAt: n.nameAt, at: n.at, kind: table, kids: []*node{&main}}
}

// literal is the node of a value that stands in no file.
func literal(name string, value any) *node {
	if i, ok := value.(int); ok {
		value = int64(i)
	}
	return &node{name: name, value: value}
}

// digits returns the text of a string or an integer, for values that may be
// written as either.
func (n *node) digits() (string, bool) {
	switch v := n.value.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

// describe says what n is, for "want …, got …".
func (n *node) describe() string {
	switch n.kind {
	case array:
		return "an array"
	case table:
		return "a table"
	}
	switch v := n.value.(type) {
	case string:
		return fmt.Sprintf("%.40q", v)
	case float64:
		return fmt.Sprint("the float ", v)
	case time.Time:
		return "a date"
	default:
		return fmt.Sprint(v)
	}
}

// fill puts the values that the TOML library read into the tree that the
// scanner built from the same text. It reports whether both saw the same
// structure.
func (n *node) fill(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		if n.kind != table || len(n.kids) != len(v) {
			return false
		}
		for _, kid := range n.kids {
			if sub, ok := v[kid.name]; !ok || !kid.fill(sub) {
				return false
			}
		}
		return true
	case []any:
		return fillArray(n, v)
	case []map[string]any:
		return fillArray(n, v)
	default:
		n.value = v
		return n.kind == scalar
	}
}

func fillArray[T any](n *node, v []T) bool {
	if n.kind != array || len(n.kids) != len(v) {
		return false
	}
	for i, kid := range n.kids {
		if !kid.fill(v[i]) {
			return false
		}
	}
	return true
}
