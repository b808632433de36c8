package script

import (
	"errors"
	"fmt"
)

// A Value is a text with variables in it: nginx's complex value. It is never
// changed, so that any goroutine may evaluate it.
type Value struct {
	parts []part // none if the value is constant
	slots []int  // the user-defined variables among them
	text  []byte // the value if it is constant
}

// A part of a value is a text, a built-in variable, a user-defined one, or a
// capture, whichever is there.
type part struct {
	text    []byte
	get     getter
	clean   bool // get's value and text need no escaping
	slot    int  // 1 + the index of a user-defined variable
	capture int  // 1 to 9
}

// Compile compiles a text after Build. Its errors are in nginx's words.
func (s *Scope) Compile(text string) (*Value, error) {
	return s.parse(text, true)
}

// Constant returns the value if it is the same for every session.
func (v *Value) Constant() (string, bool) { return string(v.text), len(v.parts) == 0 }

// Remembers reports whether to evaluate the value may leave values in the session
// that a later evaluation uses: it has user-defined variables or captures. A nil
// value does not.
func (v *Value) Remembers() bool {
	if v == nil {
		return false
	}
	for i := range v.parts {
		if v.parts[i].slot > 0 || v.parts[i].capture > 0 {
			return true
		}
	}
	return false
}

// Append appends the value for the session to b, which must not be memory of s.
// A variable that is not set appends nothing.
func (v *Value) Append(b []byte, s *Session) []byte {
	if len(v.parts) == 0 {
		return append(b, v.text...)
	}
	s.evaluate(v.slots)
	return v.appendEvaluated(b, s)
}

func (v *Value) appendEvaluated(b []byte, s *Session) []byte {
	for i := range v.parts {
		b, _ = v.parts[i].append(b, s)
	}
	return b
}

// append appends the part, whose variable has been evaluated if it is a
// user-defined one. It returns false if it is a variable that is not set.
func (p *part) append(b []byte, s *Session) ([]byte, bool) {
	switch {
	case p.get != nil:
		return p.get(b, &s.Facts)
	case p.slot > 0:
		slot := &s.slots[p.slot-1]
		return append(b, slot.value...), slot.state != unset
	case p.capture > 0:
		return append(b, s.captured(p.capture)...), true
	}
	return append(b, p.text...), true
}

// parse follows ngx_stream_script_compile and, without captures,
// ngx_stream_log_compile_format.
func (s *Scope) parse(text string, captures bool) (*Value, error) {
	v := &Value{}
	literal := func(t string) {
		if n := len(v.parts); n > 0 && v.parts[n-1].constant() {
			v.parts[n-1].text = append(v.parts[n-1].text, t...)
			return
		}
		v.parts = append(v.parts, part{text: []byte(t), clean: true})
	}
	for i := 0; i < len(text); {
		if text[i] != '$' {
			start := i
			for i < len(text) && text[i] != '$' {
				i++
			}
			literal(text[start:i])
			continue
		}
		dollar := i
		i++
		if captures && i < len(text) && text[i] >= '1' && text[i] <= '9' {
			v.parts = append(v.parts, part{capture: int(text[i] - '0')})
			i++
			continue
		}
		name, rest, err := variableName(text[i:])
		if errors.Is(err, errVariableName) && !captures {
			return nil, fmt.Errorf("invalid parameter %q", text[dollar:])
		}
		if err != nil {
			return nil, err
		}
		i = len(text) - len(rest)
		p, err := s.variable(name)
		if err != nil {
			return nil, err
		}
		if p.constant() {
			literal(string(p.text))
			continue
		}
		if p.slot > 0 {
			v.slots = append(v.slots, p.slot-1)
		}
		v.parts = append(v.parts, p)
	}
	switch {
	case len(v.parts) == 0:
		v.text = []byte{}
	case len(v.parts) == 1 && v.parts[0].constant():
		v.text, v.parts = v.parts[0].text, nil
	}
	return v, nil
}

func (p *part) constant() bool { return p.get == nil && p.slot == 0 && p.capture == 0 }

var errVariableName = errors.New("invalid variable name")

// variableName reads the name after a dollar, in braces or not.
func variableName(text string) (name, rest string, err error) {
	braces := text != "" && text[0] == '{'
	if braces {
		text = text[1:]
	}
	if text == "" {
		return "", "", errVariableName
	}
	n := 0
	for n < len(text) && nameByte(text[n]) {
		n++
	}
	name, rest = text[:n], text[n:]
	if braces {
		if rest == "" || rest[0] != '}' {
			return "", "", fmt.Errorf("the closing bracket in %q variable is missing", name)
		}
		rest = rest[1:]
	}
	if name == "" {
		return "", "", errVariableName
	}
	return name, rest, nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
