package smtp

import (
	"bytes"
	"strconv"
)

const (
	// lineLimit is the length that no line of a reply may exceed, CRLF included
	// (RFC 5321, section 4.5.3.1.5).
	lineLimit = 512
	// lineTolerance is the length up to which one is read all the same.
	lineTolerance = 1000
)

// Status is an enhanced status code, class, subject and detail, as in 4.7.1
// (RFC 3463). The zero Status is none.
type Status [3]uint16

// Policy reports whether the status is about security or policy, hence about
// whoever has connected rather than about the server (section 3.8).
func (s Status) Policy() bool { return s[1] == 7 }

// String is the code as it is written in a reply, "" if it is none.
func (s Status) String() string { return string(s.append(nil)) }

func (s Status) append(b []byte) []byte {
	if s == (Status{}) {
		return b
	}
	b = append(strconv.AppendUint(b, uint64(s[0]), 10), '.')
	b = append(strconv.AppendUint(b, uint64(s[1]), 10), '.')
	return strconv.AppendUint(b, uint64(s[2]), 10)
}

// replyLine is one line of a reply.
type replyLine struct {
	code   int
	last   bool // of its reply
	status Status
	text   []byte // all behind the code, the status too
}

// parseLine parses a line without its end: three digits, the first of them 2
// to 5, and a hyphen or a space and a text, or nothing, which is like a space
// and no text.
func parseLine(line []byte) (l replyLine, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return l, false
	}
	l.code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	l.last = true
	if len(line) > 3 {
		if line[3] != ' ' && line[3] != '-' {
			return l, false
		}
		l.last = line[3] == ' '
		l.text = line[4:]
		l.status = parseStatus(l.text, l.code/100)
	}
	return l, true
}

// parseStatus parses the enhanced status code that a text begins with, if it
// does and the class is that of the reply (RFC 2034, section 4).
func parseStatus(text []byte, class int) (s Status) {
	for i := range s {
		n, k := 0, 0
		for k < len(text) && k < 3 && isDigit(text[k]) {
			n = 10*n + int(text[k]-'0')
			k++
		}
		if k == 0 || k > 1 && text[0] == '0' {
			return Status{}
		}
		s[i], text = uint16(n), text[k:]
		if i < 2 {
			if len(text) == 0 || text[0] != '.' {
				return Status{}
			}
			text = text[1:]
		}
	}
	if int(s[0]) != class || len(text) > 0 && text[0] != ' ' {
		return Status{}
	}
	return s
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// cutLine cuts the first line off b. n is its length with its end, CRLF or LF
// alone; it is 0 if the end has not come, and then the line is what is there.
func cutLine(b []byte) (line []byte, n int) {
	line = b
	if n = bytes.IndexByte(b, '\n') + 1; n > 0 {
		line = b[:n-1]
	}
	return bytes.TrimSuffix(line, []byte{'\r'}), n
}
