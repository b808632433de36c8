package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

// The headers of a message: its id, and the SHA-256 of its body in hexadecimal.
const (
	headerID  = "X-Ledger-Id"
	headerSum = "X-Ledger-Sum"
)

const (
	lineLength = 72 // of a body line, without CR LF
	// period is after how many lines a filler repeats itself: a prime, so that
	// no buffer of a power of two holds the same text twice.
	period = 1009
)

// makeFiller makes n bytes or more of random text in whole lines. No line
// begins with a dot, so a body looks the same on the wire.
func makeFiller(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
	var b strings.Builder
	for range period {
		for range lineLength {
			b.WriteByte(alphabet[rand.IntN(len(alphabet))])
		}
		b.WriteString("\r\n")
	}
	return strings.Repeat(b.String(), n/b.Len()+1)
}

// compose makes a message with this id, final dot included. Its body is a part
// of the filler that begins at a random line, so bodies differ.
func (c *Client) compose(id string) string {
	const line = lineLength + 2
	lines := (c.Size + line - 1) / line
	first := rand.IntN(period)
	body := c.filler[first*line : (first+lines)*line]
	sum := sha256.Sum256([]byte(body))

	var b strings.Builder
	b.Grow(len(body) + 512)
	b.WriteString("From: <" + c.From + ">\r\nTo: <" + c.To + ">\r\nSubject: ledger " + id + "\r\n")
	b.WriteString(headerID + ": " + id + "\r\n")
	b.WriteString(headerSum + ": " + hex.EncodeToString(sum[:]) + "\r\n\r\n")
	b.WriteString(body)
	b.WriteString(".\r\n")
	return b.String()
}

// headerValue finds a field in a message's header.
func headerValue(header, name string) string {
	for line := range strings.Lines(header) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
