package script

import (
	"fmt"
	"unicode/utf8"
)

// Escape says how a log format writes the values of variables.
type Escape uint8

// The ways to escape.
const (
	EscapeDefault Escape = iota // \xHH for " \ and what is not printable ASCII
	EscapeJSON                  // for a place within a JSON string, whatever the bytes
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
		if !special(b[i]) {
			continue
		}
		s.escaping = append(s.escaping[:0], b[i:]...)
		if how == EscapeJSON {
			return appendJSON(b[:i], s.escaping)
		}
		return appendDefault(b[:i], s.escaping)
	}
	return b
}

const hex = "0123456789ABCDEF"

func special(c byte) bool { return c < ' ' || c == '"' || c == '\\' || c > '~' }

// appendDefault is ngx_stream_log_escape.
func appendDefault(b, text []byte) []byte {
	for _, c := range text {
		if special(c) {
			b = append(b, '\\', 'x', hex[c>>4], hex[c&0xf])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// appendJSON is ngx_escape_json, and beyond it makes JSON of any bytes and leaves
// no control character to a terminal: nginx does not touch DEL, the C1 controls
// and what is not UTF-8.
func appendJSON(b, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\f':
			b = append(b, '\\', 'f')
		case r < ' ' || r >= 0x7f && r < 0xa0:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		default:
			b = append(b, text[:size]...)
		}
		text = text[size:]
	}
	return b
}
