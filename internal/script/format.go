package script

import "fmt"

// Escape says how a log format writes the values of variables.
type Escape uint8

// The ways to escape.
const (
	EscapeDefault Escape = iota // \xHH for " \ and what is not printable ASCII
	EscapeJSON                  // for a place within a JSON string
	EscapeNone                  // as they are: what outsiders send can end the line
)

// ParseEscape reads the value of escape=.
func ParseEscape(text string) (Escape, error) {
	switch text {
	case "default":
		return EscapeDefault, nil
	case "json":
		return EscapeJSON, nil
	case "none":
		return EscapeNone, nil
	}
	return 0, fmt.Errorf("unknown log format escaping %q", text)
}

// A Format is a log_format. It is never changed, so that any goroutine may
// evaluate it.
type Format struct {
	value  Value
	escape Escape
}

// Format compiles the texts of a log_format after Build; they follow each other
// with nothing between. A format has no captures, as in nginx.
func (s *Scope) Format(escape Escape, texts ...string) (*Format, error) {
	f := &Format{escape: escape}
	for _, text := range texts {
		v, err := s.parse(text, false)
		if err != nil {
			return nil, err
		}
		if len(v.parts) == 0 {
			v.parts = []part{{text: v.text, clean: true}}
		}
		f.value.parts = append(f.value.parts, v.parts...)
		f.value.slots = append(f.value.slots, v.slots...)
	}
	return f, nil
}

// Append appends the line for the session, without a newline, to b, which must
// not be memory of s. A variable that is not set is a dash in the default
// escaping, and nothing in the others.
func (f *Format) Append(b []byte, s *Session) []byte {
	s.evaluate(f.value.slots)
	for i := range f.value.parts {
		p := &f.value.parts[i]
		start := len(b)
		var set bool
		b, set = p.append(b, s)
		switch {
		case !set && f.escape == EscapeDefault:
			b = append(b, '-')
		case p.clean || f.escape == EscapeNone:
		default:
			b = s.escape(b, start, f.escape)
		}
	}
	return b
}

// escape escapes what b has from start on, which seldom needs it.
func (s *Session) escape(b []byte, start int, how Escape) []byte {
	for i := start; i < len(b); i++ {
		if !special(b[i], how) {
			continue
		}
		s.escaping = append(s.escaping[:0], b[i:]...)
		b = b[:i]
		for _, c := range s.escaping {
			switch {
			case !special(c, how):
				b = append(b, c)
			case how == EscapeJSON:
				b = appendJSON(b, c)
			default:
				b = append(b, '\\', 'x', hex[c>>4], hex[c&0xf])
			}
		}
		break
	}
	return b
}

const hex = "0123456789ABCDEF"

func special(c byte, how Escape) bool {
	return c < ' ' || c == '"' || c == '\\' || how == EscapeDefault && c > '~'
}

// appendJSON is ngx_escape_json for a special byte.
func appendJSON(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	}
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}
