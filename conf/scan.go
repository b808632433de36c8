package conf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Bounds of one configuration, all its files together. They hold before the
// TOML library sees a byte of a file, since it has none of its own.
const (
	maxNodes = 100_000    // 10,000 servers with all their parameters fit
	maxDepth = 8          // the language itself needs 5, as in server[0].listen[0].address
	maxToken = 6*4096 + 2 // a word of an nginx.conf (NGX_CONF_BUFFER), if each byte becomes an escape
	maxName  = 64         // the longest directive has 27 letters
)

// A scanner finds the place of every key and value of a TOML text, which the
// TOML library does not tell. It trusts the library to judge the text: it
// accepts all of TOML 1.1 and much else, and where it gets stuck the library
// is sure to find a mistake, there or before. It builds the tree of nodes, but
// leaves the values of scalars to node.fill.
type scanner struct {
	file   string
	text   string
	budget *int // nodes that may still be made

	pos  int // next byte
	line int // of pos, from 1
	bol  int // where that line begins

	root  *node
	table *node           // the one the last header opened
	known map[entry]*node // every table entry by name

	stuck   error // the first thing refused; nothing is read behind it
	stuckAt Position
}

// entry is the place of a node in a table.
type entry struct {
	table *node
	name  string
}

// errNotTOML marks text that the scanner does not understand.
var errNotTOML = errors.New("not TOML")

// scan returns the tree of text. After an error, which is errNotTOML or a
// bound, the position tells where.
func scan(file, text string, budget *int) (*node, Position, error) {
	s := &scanner{file: file, text: text, budget: budget, line: 1, known: make(map[entry]*node)}
	s.root = &node{kind: table, at: s.here()}
	s.table = s.root
	for s.blank(); s.stuck == nil && s.pos < len(s.text); s.blank() {
		if s.text[s.pos] == '[' {
			s.header()
		} else {
			s.pair(s.table)
		}
	}
	return s.root, s.stuckAt, s.stuck
}

// refuse records the first problem.
func (s *scanner) refuse(at Position, err error) {
	if s.stuck == nil {
		s.stuck, s.stuckAt = err, at
	}
}

func (s *scanner) here() Position {
	return Position{File: s.file, Line: s.line, Col: s.pos - s.bol + 1}
}

// peek returns the next byte, or 0 at the end and once something was refused,
// so that every loop which waits for some byte ends.
func (s *scanner) peek() byte {
	if s.stuck != nil || s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// accept steps over lit if it comes next.
func (s *scanner) accept(lit string) bool {
	if s.stuck != nil || !strings.HasPrefix(s.text[s.pos:], lit) {
		return false
	}
	s.pos += len(lit)
	return true
}

func (s *scanner) expect(lit string) {
	if !s.accept(lit) {
		s.refuse(s.here(), errNotTOML)
	}
}

// step goes over one byte, which may end a line.
func (s *scanner) step() {
	if s.text[s.pos] == '\n' {
		s.line, s.bol = s.line+1, s.pos+1
	}
	s.pos++
}

func (s *scanner) spaces() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.pos++
	}
}

// blank steps over spaces, newlines and comments.
func (s *scanner) blank() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.step()
		case '#':
			for s.peek() != 0 && s.peek() != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

// newNode makes a table that begins here, for the caller to put into parent.
func (s *scanner) newNode(parent *node, name string) *node {
	n := &node{name: name, nameAt: s.here(), at: s.here(), kind: table, depth: parent.depth + 1}
	if *s.budget--; *s.budget < 0 {
		s.refuse(n.at, fmt.Errorf("too much for one configuration: more than %d keys and values", maxNodes))
	}
	if n.depth > maxDepth {
		s.refuse(n.at, fmt.Errorf("nested too deep: more than %d levels", maxDepth))
	}
	return n
}

// header reads "[a.b]" or "[[a.b]]" and makes the table it opens the current
// one. Names on the way there that are new become tables; one that is an array
// of tables stands for its last.
func (s *scanner) header() {
	at, end, k := s.here(), "]", table
	s.expect("[")
	if s.accept("[") {
		end, k = "]]", array
	}
	into, last := s.path(s.root)
	s.expect(end)
	if s.stuck != nil {
		return
	}
	n, ok := s.known[entry{into, last.name}]
	if !ok {
		last.kind = k
		n = s.enter(into, last)
	}
	if k == array {
		n = s.element(n)
	}
	n.nameAt, n.at = last.nameAt, at
	s.table = n
}

// pair reads "a.b = value" into t.
func (s *scanner) pair(t *node) {
	into, n := s.path(t)
	s.expect("=")
	s.spaces()
	// The library sees most keys given twice, but not "a.b = 1" before "a = 2".
	if other, again := s.known[entry{into, n.name}]; again {
		s.refuse(n.nameAt, fmt.Errorf("%q is defined already at %s", n.name, other.nameAt))
	}
	s.enter(into, n)
	s.read(n)
}

// path reads a dotted key that begins in t. It returns the table which holds
// its last part, and a node for that part that is not in the table yet.
func (s *scanner) path(t *node) (into, last *node) {
	for {
		s.spaces()
		n := s.newNode(t, "")
		n.name = s.key()
		s.spaces()
		if s.stuck != nil || !s.accept(".") {
			return t, n
		}
		down, ok := s.known[entry{t, n.name}]
		if !ok {
			down = s.enter(t, n)
		}
		if down.kind == array && len(down.kids) > 0 {
			down = down.kids[len(down.kids)-1]
		}
		t = down
	}
}

func (s *scanner) enter(t, n *node) *node {
	t.kids = append(t.kids, n)
	s.known[entry{t, n.name}] = n
	return n
}

// element adds an element, which begins here, to an array.
func (s *scanner) element(arr *node) *node {
	n := s.newNode(arr, arr.name)
	arr.kids = append(arr.kids, n)
	return n
}

// key reads one part of a key.
func (s *scanner) key() string {
	from, at := s.pos, s.here()
	var name string
	switch c := s.peek(); c {
	case '"', '\'':
		s.quoted(c)
		if s.stuck != nil {
			return ""
		}
		raw := s.text[from:s.pos]
		name = raw[1 : len(raw)-1]
		if c == '"' && strings.Contains(name, `\`) {
			name = unquote(raw)
		}
	default:
		name, _ = leading(s.text[from:], isBareKey)
		s.pos += len(name)
		if name == "" {
			s.refuse(s.here(), errNotTOML)
		}
	}
	if len(name) > maxName {
		s.refuse(at, fmt.Errorf("key is longer than %d bytes", maxName))
	}
	return name
}

// unquote lets the library decode a key's escapes, so that one reader of
// strings is enough. A bad key stays as it is: the library will refuse it.
func unquote(raw string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+raw, &v); err != nil {
		return raw
	}
	return v.K
}

// read reads the value that comes next into n.
func (s *scanner) read(n *node) {
	n.at, n.kind = s.here(), scalar
	from := s.pos
	switch c := s.peek(); c {
	case '[':
		n.kind = array
		s.list("[", "]", func() { s.read(s.element(n)) })
	case '{':
		n.kind = table
		s.list("{", "}", func() { s.pair(n) })
	case '"', '\'':
		if triple := strings.Repeat(string(c), 3); s.accept(triple) {
			s.multiline(c, triple)
		} else {
			s.quoted(c)
		}
	default:
		bare, _ := leading(s.text[s.pos:], isBareValue)
		s.pos += len(bare)
		if bare == "" {
			s.refuse(n.at, errNotTOML)
		}
	}
	if n.kind == scalar && s.pos-from > maxToken {
		s.refuse(n.at, fmt.Errorf("too long: a value has at most %d bytes", maxToken))
	}
}

// list reads what stands between brackets, parted by commas.
func (s *scanner) list(open, end string, item func()) {
	s.expect(open)
	for s.blank(); s.stuck == nil && !s.accept(end); s.blank() {
		item()
		if s.blank(); !s.accept(",") && s.peek() != end[0] {
			s.refuse(s.here(), errNotTOML)
		}
	}
}

// quoted steps over a string that stays on its line.
func (s *scanner) quoted(quote byte) {
	for s.pos++; s.peek() != quote; s.pos++ {
		switch s.peek() {
		case 0, '\n':
			s.refuse(s.here(), errNotTOML)
			return
		case '\\':
			if quote == '"' && s.pos+1 < len(s.text) && s.text[s.pos+1] != '\n' {
				s.pos++
			}
		}
	}
	s.pos++
}

// multiline steps over a string that began with triple. It ends with the next
// three quotes, but up to two more before them belong to it.
func (s *scanner) multiline(quote byte, triple string) {
	for !s.accept(triple) {
		if s.peek() == 0 {
			s.refuse(s.here(), errNotTOML)
			return
		}
		if quote == '"' && s.peek() == '\\' && s.pos+1 < len(s.text) {
			s.step()
		}
		s.step()
	}
	for s.peek() == quote {
		s.pos++
	}
}

func isBareKey(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '_' }

// isBareValue tells what numbers, booleans and dates ("1979-05-27 07:32:00")
// are made of, and anything else that does not end a value.
func isBareValue(c byte) bool { return strings.IndexByte(",]}#\r\n", c) < 0 }
