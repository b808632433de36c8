package smtp

import (
	"fmt"
	"strconv"
)

// LogLimit is how much of a server's words goes into a line of the log, in
// bytes.
const LogLimit = 128

// Printable makes a text from the network fit for the log: printable ASCII in
// at most limit bytes. Any other byte becomes \xHH, a backslash \\, and what is
// cut off three dots. The limit is at least 3.
func Printable(text []byte, limit int) string {
	const hex, dots = "0123456789ABCDEF", "..."
	var out []byte
	cut := 0 // the longest part of out that leaves room for the dots
	for _, c := range text {
		switch {
		case c == '\\':
			out = append(out, `\\`...)
		case c < ' ' || c > '~':
			out = append(out, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			out = append(out, c)
		}
		if len(out) > limit {
			return string(out[:cut]) + dots
		}
		if len(out)+len(dots) <= limit {
			cut = len(out)
		}
	}
	return string(out)
}

// AppendReply appends a reply of one line to b, such as
//
//	421 4.3.2 mx.example.com Service not available, closing transmission channel
//
// The status, the host and the text are left out if they are zero. Whatever
// they contain, the line is printable ASCII, at most 512 bytes long with its
// CRLF, and nothing follows it. It panics if the code is not that of a refusal.
func AppendReply(b []byte, code int, status Status, host, text string) []byte {
	if code < 400 || code > 599 {
		panic(fmt.Sprintf("smtp: BUG: reply with code %d", code))
	}
	start := len(b)
	b = strconv.AppendInt(b, int64(code), 10)
	if status != (Status{}) {
		b = status.append(append(b, ' '))
	}
	b = appendText(b, host)
	b = appendText(b, text)
	b = b[:min(len(b), start+lineLimit-len("\r\n"))]
	return append(b, "\r\n"...)
}

// appendText appends a space and s, or as much of it as a line may have. A
// control character becomes a space, a byte that is not ASCII a question mark.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, ' ')
	for i := range min(len(s), lineLimit) {
		c := s[i]
		switch {
		case c < ' ' || c == 0x7f:
			c = ' '
		case c > '~':
			c = '?'
		}
		b = append(b, c)
	}
	return b
}
