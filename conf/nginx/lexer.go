package nginx

import (
	"fmt"
	"strings"
)

// maxWord is the size of nginx's buffer (NGX_CONF_BUFFER): a word, or a comment,
// that fills it without an end in sight is refused.
const maxWord = 4096

// A lexer cuts the text of one file into statements: words up to ";" or "{", or
// a "}" alone.
type lexer struct {
	file  string
	text  string
	pos   int
	line  int  // of pos, from 1; 0 on the command line
	words *int // how many more there may be
}

// ending is what a statement ends with.
type ending byte

const (
	endOfFile  ending = 0
	terminator ending = ';'
	blockStart ending = '{'
	blockEnd   ending = '}'
)

func (l *lexer) fail(format string, args ...any) *Error {
	return &Error{File: l.file, Line: l.line, Message: fmt.Sprintf(format, args...)}
}

// next reads a statement as ngx_conf_read_token does, byte by byte and state by
// state, since its corners are those of its states: a quote must be followed by
// a space or an end, "${" opens no block, and a comment begins where a word
// could. Afterwards l.line is the line nginx would report.
func (l *lexer) next() (words []string, end ending, err *Error) {
	var (
		start     = l.pos // of the word, of the last space or of the comment
		startLine = l.line
		between   = true  // no word has begun
		comment   = false // up to the end of the line
		escaped   = false // the byte behind a backslash
		variable  = false // the byte behind a dollar
		closed    = false // the byte behind a closing quote
		quote     byte    // the quote the word began with
	)
	for {
		if l.pos == len(l.text) {
			if l.line == 0 && (len(words) > 0 || !between) {
				return nil, 0, l.fail(`unexpected end of parameter, expecting ";"`)
			}
			if len(words) > 0 || !between {
				return nil, 0, l.fail(`unexpected end of file, expecting ";" or "}"`)
			}
			return nil, endOfFile, nil
		}
		if l.pos-start == maxWord {
			l.line = startLine
			if quote != 0 {
				return nil, 0, l.fail(`too long parameter, probably missing terminating "%c" character`, quote)
			}
			return nil, 0, l.fail(`too long parameter "%s..." started`, printable(l.text[start:start+10]))
		}
		c := l.text[l.pos]
		l.pos++
		if c == '\n' {
			comment = false
			if l.line > 0 {
				l.line++
			}
		}
		switch {
		case comment:
			continue
		case escaped:
			escaped = false
			continue
		}
		if closed {
			switch c {
			case ' ', '\t', '\r', '\n':
				between, closed = true, false
				continue
			case ';', '{':
				return words, ending(c), nil
			case ')':
				between, closed = true, false
			default:
				return nil, 0, l.fail(`unexpected "%s"`, printable(string(c)))
			}
		}
		if between {
			start, startLine = l.pos-1, l.line
			switch c {
			case ' ', '\t', '\r', '\n':
				continue
			case ';', '{':
				if len(words) == 0 {
					return nil, 0, l.fail(`unexpected "%c"`, c)
				}
				return words, ending(c), nil
			case '}':
				if len(words) > 0 {
					return nil, 0, l.fail(`unexpected "}"`)
				}
				return nil, blockEnd, nil
			case '#':
				comment = true
				continue
			case '\\':
				escaped = true
			case '"', '\'':
				start++
				quote = c
			case '$':
				variable = true
			}
			between = false
			continue
		}
		if c == '{' && variable {
			continue
		}
		variable = false
		switch c {
		case '\\':
			escaped = true
			continue
		case '$':
			variable = true
			continue
		}
		switch {
		case quote != 0 && c == quote:
			quote, closed = 0, true
		case quote == 0 && strings.IndexByte(" \t\r\n;{", c) >= 0:
			between = true
		default:
			continue
		}
		if *l.words--; *l.words < 0 {
			return nil, 0, l.fail("too much for one configuration: more than %d words", maxWords)
		}
		words = append(words, unescape(l.text[start:l.pos-1]))
		if !closed && (c == ';' || c == '{') {
			return words, ending(c), nil
		}
	}
}

// unescape replaces the escapes that nginx knows; of all others the backslash
// stays.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			switch next := s[i+1]; next {
			case '"', '\'', '\\':
				i, c = i+1, next
			case 't':
				i, c = i+1, '\t'
			case 'r':
				i, c = i+1, '\r'
			case 'n':
				i, c = i+1, '\n'
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// printable replaces what must not reach a terminal or a log line.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			b := []byte(s)
			for i, c := range b {
				if c < ' ' || c > '~' {
					b[i] = '?'
				}
			}
			return string(b)
		}
	}
	return s
}
