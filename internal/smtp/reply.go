package smtp

import (
	"fmt"
	"strconv"
	"strings"
)

// maxLines is how many lines of a reply are taken.
const maxLines = 100

// Reply is a whole reply of a server.
type Reply struct {
	Code   int
	Status Status   // of the first line that has one
	Lines  []string // the texts behind the codes, as they came; at least one
}

// Keyword looks for an extension in the reply to EHLO (RFC 5321, section
// 4.1.1.1), in any case, and returns its parameters. The first line is none: it
// is the server's name, and HELO has nothing but that.
func (r Reply) Keyword(name string) (params string, ok bool) {
	if len(r.Lines) == 0 {
		return "", false
	}
	for _, line := range r.Lines[1:] {
		keyword, params, _ := strings.Cut(line, " ")
		if strings.EqualFold(keyword, name) {
			return params, true
		}
	}
	return "", false
}

// String is the reply for the log: code and texts, printable, in at most
// LogLimit bytes.
func (r Reply) String() string {
	text := strconv.Itoa(r.Code) + " " + strings.Join(r.Lines, " / ")
	return Printable([]byte(text), LogLimit)
}

// Reader puts replies together from bytes as they come. The zero Reader waits
// for the first byte of a reply.
type Reader struct {
	line  []byte // the beginning of a line whose end has not come yet
	reply Reply
	done  bool
	err   error
}

// Feed takes bytes off the front of b up to the end of a reply. n is how many;
// if the reply is done, Reply returns it, and b[n:] was sent behind it without
// being asked for. The next Feed begins the next reply.
//
// An error means that the server does not keep to RFC 5321, section 4.2, or not
// within the bounds of the package, and says how. It is final.
func (r *Reader) Feed(b []byte) (n int, done bool, err error) {
	if r.done {
		r.reply, r.done = Reply{}, false
	}
	for r.err == nil && !r.done && len(b) > 0 {
		_, k := cutLine(b)
		whole := k > 0
		if !whole {
			k = len(b)
		}
		if len(r.line)+k > lineTolerance {
			r.err = fmt.Errorf("line %d of a reply is longer than %d bytes", len(r.reply.Lines)+1, lineTolerance)
			break
		}
		r.line = append(r.line, b[:k]...)
		n, b = n+k, b[k:]
		if whole {
			r.err = r.take()
		}
	}
	return n, r.done, r.err
}

// take adds the line that has come to its end to the reply.
func (r *Reader) take() error {
	line, _ := cutLine(r.line)
	r.line = r.line[:0]
	l, ok := parseLine(line)
	first := len(r.reply.Lines) == 0
	switch {
	case !ok:
		return fmt.Errorf("not an SMTP reply: %s", Printable(line, LogLimit))
	case first:
		r.reply.Code = l.code
	case l.code != r.reply.Code:
		return fmt.Errorf("a reply begins with code %d and goes on with %d", r.reply.Code, l.code)
	}
	if r.reply.Status == (Status{}) {
		r.reply.Status = l.status
	}
	r.reply.Lines = append(r.reply.Lines, string(l.text))
	if !l.last && len(r.reply.Lines) == maxLines {
		return fmt.Errorf("a reply has more than %d lines", maxLines)
	}
	r.done = l.last
	return nil
}

// Reply returns the reply that the last Feed has completed. It is the caller's.
func (r *Reader) Reply() Reply { return r.reply }
