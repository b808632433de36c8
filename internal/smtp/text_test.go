package smtp

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAppendReply: our own replies, as they go to the wire.
//
// Fails if a control character passes, or if the line may be longer than 512
// bytes.
func TestAppendReply(t *testing.T) {
	t.Parallel()
	const unavailable = "Service not available, closing transmission channel"
	for _, c := range []struct {
		code       int
		status     Status
		host, text string
		want       string
	}{
		{421, Status{4, 3, 2}, "mx.example.com", unavailable, "421 4.3.2 mx.example.com " + unavailable + "\r\n"},
		{421, Status{4, 7, 0}, "mx.example.com", "Too many connections", "421 4.7.0 mx.example.com Too many connections\r\n"},
		{554, Status{5, 7, 1}, "mx.example.com", "Access denied", "554 5.7.1 mx.example.com Access denied\r\n"},
		{554, Status{5, 5, 0}, "", "Error: SMTP protocol synchronization", "554 5.5.0 Error: SMTP protocol synchronization\r\n"},
		{421, Status{}, "mx", "", "421 mx\r\n"},
		{421, Status{4, 3, 2}, "", "", "421 4.3.2\r\n"},
		{421, Status{}, "m\r\nx", "a\r\n250 ok\r\n\x00\x7f\tz", "421 m  x a  250 ok     z\r\n"},
		{421, Status{}, "mx", "gr\u00fc\u00dfe \xff", "421 mx gr????e ?\r\n"},
		{421, Status{4, 3, 2}, "mx", strings.Repeat("x", 600), "421 4.3.2 mx " + strings.Repeat("x", 512-15) + "\r\n"},
		{421, Status{4, 3, 2}, strings.Repeat("m", 600), "lost", "421 4.3.2 " + strings.Repeat("m", 512-12) + "\r\n"},
	} {
		require.Equal(t, c.want, string(AppendReply(nil, c.code, c.status, c.host, c.text)))
		require.Equal(t, "before"+c.want, string(AppendReply([]byte("before"), c.code, c.status, c.host, c.text)))
	}
}

// TestAppendReplyRefuses: never a reply by which a client could take its mail
// for delivered. It fails if the check of the code is left out.
func TestAppendReplyRefuses(t *testing.T) {
	t.Parallel()
	for _, code := range []int{-421, 0, 99, 220, 250, 354, 399, 600, 4210} {
		require.Panics(t, func() { AppendReply(nil, code, Status{}, "mx", "ok") }, code)
	}
}

func requirePrintable(t *testing.T, s string) {
	t.Helper()
	for i := range len(s) {
		require.True(t, ' ' <= s[i] && s[i] <= '~', "%q", s)
	}
}

// FuzzAppendReply holds that whatever the configuration says, one line comes
// out, and that it is a refusal to everybody who reads it.
func FuzzAppendReply(f *testing.F) {
	f.Add(uint16(421), uint16(3), uint16(2), "mx.example.com", "Service not available")
	f.Add(uint16(554), uint16(7), uint16(1), "mx\r\n250", "\x00\xff 250 ok\r\n250 ok")
	f.Add(uint16(421), uint16(7), uint16(0), strings.Repeat("m", 509), strings.Repeat("\n", 600))
	f.Fuzz(func(t *testing.T, code, subject, detail uint16, host, text string) {
		code = 400 + code%200
		status := Status{code / 100, subject % 1000, detail % 1000}
		b := AppendReply(nil, int(code), status, host, text)
		require.LessOrEqual(t, len(b), lineLimit)
		line, found := strings.CutSuffix(string(b), "\r\n")
		require.True(t, found)
		requirePrintable(t, line)

		got, incomplete, failure := readAll(t, b, 0)
		require.Empty(t, failure)
		require.False(t, incomplete)
		require.Len(t, got, 1)
		require.Equal(t, int(code), got[0].Code)
		require.Equal(t, status, got[0].Status)
		require.Equal(t, line, asSent(got[0]))

		want := Busy
		if code >= 500 || subject%1000 == 7 {
			want = Policy
		}
		require.Equal(t, Greeting{want, int(code), status, []byte(line)}, Classify(b, false))
	})
}

// asSent is a reply of one line as it was sent.
func asSent(r Reply) string { return strconv.Itoa(r.Code) + " " + r.Lines[0] }

func TestStatusString(t *testing.T) {
	t.Parallel()
	require.Equal(t, "4.7.1", Status{4, 7, 1}.String())
	require.Equal(t, "", Status{}.String())
}

// TestPrintable fails if a byte passes as it is that a terminal acts on or that
// looks like the end of a line, or if an escape is cut in two.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"421 busy", 8, "421 busy"},
		{"421 busy", 7, "421 ..."},
		{"a\r\nb", 128, `a\x0D\x0Ab`},
		{"\x1b[31m\x00\x7f\xff", 128, `\x1B[31m\x00\x7F\xFF`},
		{`say "\x00"`, 128, `say "\\x00"`},
		{"\u00fc\u2028", 128, `\xC3\xBC\xE2\x80\xA8`},
		{"ab\x00", 6, `ab\x00`},
		{"ab\x00", 5, "ab..."},
		{"ab\x00c", 6, "ab..."},
		{"ab\x00c", 5, "ab..."},
		{"a\x00bc", 7, `a\x00bc`},
		{"a\x00bcd", 7, "a..."},
		{"a\x00bcde", 8, `a\x00...`},
		{"abcd", 3, "..."},
		{"abc", 3, "abc"},
	} {
		require.Equal(t, c.want, Printable([]byte(c.text), c.limit), "%q, %d", c.text, c.limit)
	}
}

// FuzzPrintable holds that the result is printable, within its limit, and,
// unless something was cut off, tells what the text was.
func FuzzPrintable(f *testing.F) {
	f.Add([]byte("220 x\r\n2026/11/22 00:05:24 [emerg] forged"), uint8(128))
	f.Add([]byte("\\\xff\"\x00"), uint8(5))
	f.Fuzz(func(t *testing.T, text []byte, limit uint8) {
		limit = max(limit, 3)
		got := Printable(text, int(limit))
		require.LessOrEqual(t, len(got), int(limit))
		requirePrintable(t, got)
		if escaped := Printable(text, 4*len(text)+3); len(escaped) <= int(limit) {
			require.Equal(t, escaped, got)
			original, err := strconv.Unquote(`"` + strings.ReplaceAll(got, `"`, `\"`) + `"`)
			require.NoError(t, err)
			require.Equal(t, string(text), original)
		} else {
			begin, found := strings.CutSuffix(got, "...")
			require.True(t, found)
			require.True(t, strings.HasPrefix(escaped, begin))
		}
	})
}
