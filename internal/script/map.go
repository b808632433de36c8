package script

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Map is a map block: a variable whose value is chosen by the value of a text.
type Map struct {
	Variable  string // with its dollar
	Source    string // any text
	Hostnames bool   // *.example.org, .example.org and mail.* are wildcards
	Volatile  bool   // evaluated anew at each use, not once a session
	Entries   []Entry
}

// An Entry is a line of a block. In a map the key is "default", a regular
// expression after ~ or, without regard to case, ~*, or a text to compare with
// regardless of case, in which one leading backslash is left out; the value is
// any text. In a geo block the key is "default", "delete" or a network.
type Entry struct {
	Key, Value string
}

// An EntryError is what is wrong with, or odd about, an entry of a block.
type EntryError struct {
	Entry int // which one, from 0
	Err   error
}

func (e *EntryError) Error() string { return e.Err.Error() }
func (e *EntryError) Unwrap() error { return e.Err }

// Map defines a variable by a map block. Names in its texts are looked up by
// Build.
func (s *Scope) Map(m Map) error {
	d := &mapping{
		hostnames: m.Hostnames,
		source:    lazy{text: m.Source},
		exact:     make(map[string]int),
		suffixes:  make(map[string]suffix),
		prefixes:  make(map[string]int),
	}
	if err := s.define(m.Variable, m.Volatile, d); err != nil {
		return err
	}
	texts := make(map[string]int)
	for n, e := range m.Entries {
		i, ok := texts[e.Value]
		if !ok {
			i = len(d.values)
			texts[e.Value] = i
			d.values = append(d.values, lazy{text: e.Value})
		}
		if err := d.add(s, e.Key, i); err != nil {
			return &EntryError{n, err}
		}
	}
	return nil
}

// lazy is a text that Build compiles.
type lazy struct {
	text  string
	value *Value
}

func (l *lazy) compile(s *Scope) (err error) {
	l.value, err = s.Compile(l.text)
	return err
}

// A mapping is what a map block defines. Tables lead to indexes of values.
type mapping struct {
	hostnames  bool
	source     lazy
	values     []lazy
	fallback   int // 1 + the index of the default's value
	exact      map[string]int
	suffixes   map[string]suffix // by what follows the dot
	prefixes   map[string]int    // by what precedes the dot
	expression []expression
}

// A suffix is a wildcard .example.org, which is for example.org itself too, or
// *.example.org.
type suffix struct {
	value  int
	itself bool
}

type expression struct {
	re    *regexp.Regexp
	value int
	named []namedGroup
}

type namedGroup struct{ group, slot int }

func (m *mapping) add(s *Scope, key string, value int) error {
	if key == "default" {
		if m.fallback > 0 {
			return errors.New("duplicate default map parameter")
		}
		m.fallback = value + 1
		return nil
	}
	if pattern, ok := strings.CutPrefix(key, "~"); ok {
		return m.addExpression(s, pattern, value)
	}
	key = lower(strings.TrimPrefix(key, `\`))
	if !m.hostnames {
		return m.addExact(key, value)
	}
	return m.addHost(key, value)
}

func (m *mapping) addExpression(s *Scope, pattern string, value int) error {
	flags := ""
	if p, ok := strings.CutPrefix(pattern, "*"); ok {
		pattern, flags = p, "(?i)"
	}
	re, err := regexp.Compile(flags + pattern)
	if err != nil {
		return fmt.Errorf("regular expression %q does not compile: %w", pattern, err)
	}
	e := expression{re: re, value: value}
	for group, name := range re.SubexpNames() {
		if name == "" {
			continue
		}
		slot, err := s.defineCapture(name)
		if err != nil {
			return err
		}
		e.named = append(e.named, namedGroup{group, slot})
	}
	m.expression = append(m.expression, e)
	return nil
}

func (m *mapping) addExact(key string, value int) error {
	if _, ok := m.exact[key]; ok {
		return conflict(key)
	}
	m.exact[key] = value
	return nil
}

// addHost adds a key that may be a wildcard, with the rules and conflicts of
// ngx_hash_add_key.
func (m *mapping) addHost(key string, value int) error {
	if strings.Count(key, "*") > 1 || strings.Contains(key, "..") || strings.Contains(key, "\x00") {
		return fmt.Errorf("invalid hostname or wildcard %q", key)
	}
	switch {
	case len(key) > 1 && key[0] == '.':
		name := key[1:]
		if _, ok := m.exact[name]; ok {
			return conflict(key)
		}
		return m.addSuffix(key, name, suffix{value: value, itself: true})
	case len(key) > 2 && strings.HasPrefix(key, "*."):
		return m.addSuffix(key, key[2:], suffix{value: value})
	case len(key) > 2 && strings.HasSuffix(key, ".*"):
		name := strings.TrimSuffix(key, ".*")
		if _, ok := m.prefixes[name]; ok {
			return conflict(key)
		}
		m.prefixes[name] = value
		return nil
	case strings.Contains(key, "*"):
		return fmt.Errorf("invalid hostname or wildcard %q", key)
	}
	if m.suffixes[key].itself {
		return conflict(key)
	}
	return m.addExact(key, value)
}

func (m *mapping) addSuffix(key, name string, to suffix) error {
	if _, ok := m.suffixes[name]; ok {
		return conflict(key)
	}
	m.suffixes[name] = to
	return nil
}

func conflict(key string) error { return fmt.Errorf("conflicting parameter %q", key) }

func (m *mapping) compile(s *Scope) error {
	if err := m.source.compile(s); err != nil {
		return err
	}
	for i := range m.values {
		if err := m.values[i].compile(s); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapping) uses() []int {
	slots := m.source.value.slots
	for i := range m.values {
		slots = append(slices.Clip(slots), m.values[i].value.slots...)
	}
	return slots
}

// evaluate is ngx_stream_map_variable.
func (m *mapping) evaluate(s *Session) []byte {
	key := s.hold(m.source.value)
	if m.hostnames {
		key = bytes.TrimSuffix(key, []byte("."))
	}
	i, ok := m.find(s, key)
	if !ok {
		i = m.fallback - 1
	}
	if i < 0 {
		return nil
	}
	return s.hold(m.values[i].value)
}

// find is ngx_stream_map_find: first the key itself, then the longest suffix,
// then the longest prefix, then the first expression that matches. Neither a
// wildcard nor an expression matches nothing.
func (m *mapping) find(s *Session, key []byte) (value int, ok bool) {
	s.lower = appendLower(s.lower[:0], key)
	if value, ok = m.exact[string(s.lower)]; ok || len(key) == 0 {
		return value, ok
	}
	if len(m.suffixes) > 0 {
		if value, ok = m.findSuffix(s.lower); ok {
			return value, ok
		}
	}
	if len(m.prefixes) > 0 {
		if value, ok = m.findPrefix(s.lower); ok {
			return value, ok
		}
	}
	for i := range m.expression {
		if e := &m.expression[i]; e.match(s, key) {
			return e.value, true
		}
	}
	return 0, false
}

func (m *mapping) findSuffix(name []byte) (int, bool) {
	if to, ok := m.suffixes[string(name)]; ok && to.itself {
		return to.value, true
	}
	for {
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			return 0, false
		}
		name = name[dot+1:]
		if to, ok := m.suffixes[string(name)]; ok {
			return to.value, true
		}
	}
}

func (m *mapping) findPrefix(name []byte) (int, bool) {
	for {
		dot := bytes.LastIndexByte(name, '.')
		if dot < 0 {
			return 0, false
		}
		name = name[:dot]
		if value, ok := m.prefixes[string(name)]; ok {
			return value, true
		}
	}
}

// match keeps the groups of a match, of which the key must be held. Only an
// expression with groups allocates, and only if it matches.
func (e *expression) match(s *Session, key []byte) bool {
	if !e.re.Match(key) {
		return false
	}
	if e.re.NumSubexp() == 0 {
		s.groups, s.subject = nil, nil
		return true
	}
	s.groups, s.subject = e.re.FindSubmatchIndex(key), key
	for _, n := range e.named {
		s.slots[n.slot] = slot{value: s.captured(n.group), state: assigned}
	}
	return true
}
