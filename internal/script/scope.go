package script

import (
	"errors"
	"fmt"
	"strings"
)

// Process is what variables say of the process.
type Process struct {
	Version  string // $nginx_version
	Hostname string
	PID      int
}

// A Scope is the variables of one configuration. They are defined in any order,
// then comes Build, and after it Compile, Format and Assign; a definition of a
// name that another has defined replaces it, as in nginx. Until it is built a
// Scope belongs to one goroutine.
type Scope struct {
	process map[string]string
	names   map[string]int // index of a user-defined variable, by its lower-case name
	vars    []variable

	extensions bool // see UsesExtensions
}

// A variable is one that the configuration defines.
type variable struct {
	name     string
	def      definition // nil if the value comes from outside: by set, or from a regular expression
	volatile bool
	captured bool // not set until a regular expression has matched
}

// A definition says how the value of a variable is found.
type definition interface {
	// compile resolves names. Build calls it once all are known.
	compile(s *Scope) error
	// uses returns the user-defined variables that evaluate may need.
	uses() []int
	// evaluate returns the value, in memory that stays as it is until s begins
	// anew.
	evaluate(s *Session) []byte
}

// NewScope returns a scope in which only the built-in variables are defined.
func NewScope(p Process) *Scope {
	return &Scope{process: processVariables(p), names: make(map[string]int)}
}

// Set declares the variable of a set directive, given with its dollar, so that
// Assign can be used on it. It is empty in sessions that do not assign it.
func (s *Scope) Set(name string) error {
	name, err := s.definable(name)
	if err == nil {
		s.index(name)
	}
	return err
}

// define makes def the definition of the variable with the name, which has its
// dollar.
func (s *Scope) define(name string, volatile bool, def definition) error {
	name, err := s.definable(name)
	if err != nil {
		return err
	}
	v := &s.vars[s.index(name)]
	v.def, v.volatile, v.captured = def, volatile, false
	return nil
}

// defineCapture makes the name that of a group of a regular expression, and
// returns its index.
func (s *Scope) defineCapture(name string) (int, error) {
	name, err := s.definable("$" + name)
	if err != nil {
		return 0, err
	}
	i := s.index(name)
	s.vars[i] = variable{name: name, captured: true}
	return i, nil
}

// definable returns the name as it is looked up, without its dollar.
func (s *Scope) definable(name string) (string, error) {
	bare, dollar := strings.CutPrefix(name, "$")
	if !dollar || bare == "" {
		return "", fmt.Errorf("invalid variable name %q", name)
	}
	key := lower(bare)
	_, fixed := s.process[key]
	b, known := builtins[key]
	changeable, ofTLS := tlsVariables[key]
	if fixed || known && !b.ours || ofTLS && !changeable {
		return "", fmt.Errorf("the duplicate %q variable", bare)
	}
	return key, nil
}

// index returns the index of a user-defined variable, which it creates if need
// be.
func (s *Scope) index(name string) int {
	i, ok := s.names[name]
	if !ok {
		i = len(s.vars)
		s.names[name] = i
		s.vars = append(s.vars, variable{name: name})
	}
	return i
}

// variable returns what the name stands for in a text.
func (s *Scope) variable(name string) (part, error) {
	name = lower(name)
	if i, ok := s.names[name]; ok {
		return part{slot: i + 1}, nil
	}
	if b, ok := builtins[name]; ok {
		return part{get: b.get, clean: b.clean}, nil
	}
	if text, ok := s.process[name]; ok {
		return part{text: []byte(text)}, nil
	}
	if _, ok := tlsVariables[name]; ok {
		return part{get: notSet, clean: true}, nil
	}
	if kind, ok := strings.CutPrefix(name, extensionPrefix); ok {
		b, err := extension(kind)
		s.extensions = true
		return part{get: b.get, clean: b.clean}, err
	}
	return part{}, fmt.Errorf("unknown %q variable", name)
}

// UsesExtensions reports whether anything that was compiled asks for extensions of
// the PROXY header.
func (s *Scope) UsesExtensions() bool { return s.extensions }

// An Error is what is wrong with the definition of a variable.
type Error struct {
	Variable string // without its dollar
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("variable $%s: %v", e.Variable, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Build resolves the names in all definitions. It returns all problems, joined,
// each an *Error; then the scope must not be used.
func (s *Scope) Build() error {
	var errs []error
	for i := range s.vars {
		if v := &s.vars[i]; v.def != nil {
			if err := v.def.compile(s); err != nil {
				errs = append(errs, &Error{v.name, err})
			}
		}
	}
	if errs == nil {
		errs = s.cycles()
	}
	return errors.Join(errs...)
}

// cycles finds variables that can evaluate themselves.
func (s *Scope) cycles() (errs []error) {
	const unseen, under, done = 0, 1, 2
	state := make([]int, len(s.vars))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		v := &s.vars[i]
		path = append(path, "$"+v.name)
		defer func() { path = path[:len(path)-1] }()
		switch {
		case state[i] == under:
			errs = append(errs, &Error{v.name, fmt.Errorf("cycle while evaluating variable: %s", strings.Join(path, ", "))})
		case state[i] == unseen && v.def != nil:
			state[i] = under
			for _, u := range v.def.uses() {
				visit(u)
			}
		}
		state[i] = done
	}
	for i := range s.vars {
		visit(i)
	}
	return errs
}

// lower is the lower case of ASCII, as ngx_tolower.
func lower(s string) string { return string(appendLower(nil, []byte(s))) }

func appendLower(b, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}
