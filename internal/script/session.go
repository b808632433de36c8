package script

// A Session is the facts of a session and what has been evaluated of them. The
// zero value is ready for Begin. It belongs to one goroutine.
type Session struct {
	Facts

	scope *Scope
	slots []slot // by the index of a user-defined variable

	// held has the bytes of values and keys. It only grows until the next Begin,
	// and what has moved stays where slots point to: values never change.
	held  []byte
	lower []byte // scratch for one look-up

	// The groups of the last regular expression that matched, as pairs of offsets
	// in subject.
	groups  []int
	subject []byte

	escaping []byte // scratch for one variable in a log line
}

type slot struct {
	value []byte
	state state
}

type state uint8

const (
	unknown state = iota // not evaluated yet
	valid
	assigned // by set or a regular expression; stays even if the variable is volatile
	unset
)

// Begin makes s that of a new session of the scope's configuration. It forgets
// the facts and all values, and keeps the memory.
func (s *Session) Begin(scope *Scope) {
	s.End()
	s.scope = scope
	if n := len(scope.vars); n <= cap(s.slots) {
		s.slots = s.slots[:n]
	} else {
		s.slots = make([]slot, n)
	}
}

// End forgets the facts, all values and the scope, and keeps the memory: an s that
// nobody uses for a while holds nothing of a configuration.
func (s *Session) End() {
	s.reset()
	s.scope = nil
	clear(s.slots[:cap(s.slots)])
	s.held = s.held[:0]
	s.groups, s.subject = nil, nil
}

// evaluate sees to it that the slots are up to date: those of volatile variables
// are evaluated anew, others only once.
func (s *Session) evaluate(slots []int) {
	for _, i := range slots {
		slot, v := &s.slots[i], &s.scope.vars[i]
		if slot.state == assigned || slot.state != unknown && !v.volatile {
			continue
		}
		switch {
		case v.def != nil:
			slot.value, slot.state = v.def.evaluate(s), valid
		case v.captured:
			slot.state = unset
		default:
			slot.state = valid // set is for another server: empty
		}
	}
}

// hold evaluates v into memory that stays as it is until the next Begin.
func (s *Session) hold(v *Value) []byte {
	if len(v.parts) == 0 {
		return v.text
	}
	s.evaluate(v.slots) // before held is appended to, since it does that too
	start := len(s.held)
	s.held = v.appendEvaluated(s.held, s)
	return s.held[start:len(s.held):len(s.held)]
}

// captured returns the nth group of the last regular expression that matched.
func (s *Session) captured(n int) []byte {
	if 2*n+1 >= len(s.groups) || s.groups[2*n] < 0 {
		return nil
	}
	return s.subject[s.groups[2*n]:s.groups[2*n+1]]
}

// An Assignment is a set directive.
type Assignment struct {
	slot  int
	value *Value
}

// Assign compiles a set directive after Build; the name has its dollar and was
// given to Set.
func (s *Scope) Assign(name, text string) (*Assignment, error) {
	bare, err := s.definable(name)
	if err != nil {
		return nil, err
	}
	i, ok := s.names[bare]
	if !ok {
		panic("script: BUG: Assign without Set: " + name)
	}
	v, err := s.Compile(text)
	if err != nil {
		return nil, err
	}
	return &Assignment{slot: i, value: v}, nil
}

// Run gives the variable its value for the rest of the session.
func (a *Assignment) Run(s *Session) {
	s.slots[a.slot] = slot{value: s.hold(a.value), state: assigned}
}
