package smtp

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readAll feeds b to a Reader in pieces of at most size bytes, 0 for any, and
// returns the replies, what is left of an incomplete one, and the error.
func readAll(t *testing.T, b []byte, size int) (replies []Reply, incomplete bool, failure string) {
	t.Helper()
	var r Reader
	rng := rand.New(rand.NewPCG(5, uint64(len(b))))
	for len(b) > 0 {
		k := size
		if k == 0 {
			k = 1 + rng.IntN(len(b))
		}
		piece := bytes.Clone(b[:min(k, len(b))])
		n, done, err := r.Feed(piece)
		clear(piece) // the Reader must not keep it
		if err != nil {
			require.False(t, done)
			_, _, again := r.Feed([]byte("250 ok\r\n"))
			require.Equal(t, err, again, "an error is final")
			return replies, false, err.Error()
		}
		incomplete = !done
		if done {
			replies = append(replies, r.Reply())
		} else {
			require.Equal(t, len(piece), n)
		}
		require.LessOrEqual(t, len(r.line), lineTolerance)
		require.LessOrEqual(t, len(r.reply.Lines), maxLines)
		b = b[n:]
	}
	return replies, incomplete, ""
}

var replies = []struct {
	text       string
	want       []Reply
	incomplete bool
	err        string
}{
	{text: "220 mx.example.com ESMTP\r\n", want: []Reply{{Code: 220, Lines: []string{"mx.example.com ESMTP"}}}},
	{text: "220-mx.example.com\r\n220-please wait\r\n220 ESMTP\r\n", want: []Reply{{Code: 220, Lines: []string{"mx.example.com", "please wait", "ESMTP"}}}},
	{text: "250\r\n", want: []Reply{{Code: 250, Lines: []string{""}}}},
	{text: "250 \r\n", want: []Reply{{Code: 250, Lines: []string{""}}}},
	{text: "250-\r\n250\r\n", want: []Reply{{Code: 250, Lines: []string{"", ""}}}},
	{text: "250 ok\n", want: []Reply{{Code: 250, Lines: []string{"ok"}}}},
	{text: "250 a\rb\r\r\n", want: []Reply{{Code: 250, Lines: []string{"a\rb\r"}}}},
	{text: "250 2.1.0 Ok\r\n", want: []Reply{{Code: 250, Status: Status{2, 1, 0}, Lines: []string{"2.1.0 Ok"}}}},
	{text: "421-mx\r\n421-4.3.2 busy\r\n421 4.7.0 no\r\n", want: []Reply{{Code: 421, Status: Status{4, 3, 2}, Lines: []string{"mx", "4.3.2 busy", "4.7.0 no"}}}},
	{text: "354 go on\r\n", want: []Reply{{Code: 354, Lines: []string{"go on"}}}},
	{text: "250 ok\r\n221 2.0.0 Bye\r\n", want: []Reply{
		{Code: 250, Lines: []string{"ok"}},
		{Code: 221, Status: Status{2, 0, 0}, Lines: []string{"2.0.0 Bye"}}}},
	{text: "250 " + strings.Repeat("x", 994) + "\r\n", want: []Reply{{Code: 250, Lines: []string{strings.Repeat("x", 994)}}}},
	{text: strings.Repeat("250-x\r\n", 99) + "250 x\r\n", want: []Reply{{Code: 250, Lines: strings.Fields(strings.Repeat("x ", 100))}}},

	{text: "", want: nil},
	{text: "25", incomplete: true},
	{text: "250 ok\r", incomplete: true},
	{text: "250-ok\r\n", incomplete: true},
	{text: "250 ok\r\n250-", want: []Reply{{Code: 250, Lines: []string{"ok"}}}, incomplete: true},

	{text: "250 " + strings.Repeat("x", 995) + "\r\n", err: "line 1 of a reply is longer than 1000 bytes"},
	{text: "250-a\r\n250 " + strings.Repeat("x", 5000), err: "line 2 of a reply is longer than 1000 bytes"},
	{text: strings.Repeat("250-x\r\n", 101), err: "a reply has more than 100 lines"},
	{text: "250-a\r\n550 b\r\n", err: "a reply begins with code 250 and goes on with 550"},
	{text: "250-a\r\nb\r\n", err: "not an SMTP reply: b"},
	{text: "SSH-2.0-\xffOpenSSH\x00\r\n", err: `not an SMTP reply: SSH-2.0-\xFFOpenSSH\x00`},
	{text: "\r\n", err: "not an SMTP reply: "},
	{text: "25 ok\r\n", err: "not an SMTP reply: 25 ok"},
	{text: "2500 ok\r\n", err: "not an SMTP reply: 2500 ok"},
	{text: "199 ok\r\n", err: "not an SMTP reply: 199 ok"},
	{text: "600 ok\r\n", err: "not an SMTP reply: 600 ok"},
	{text: "250 ok\r\nx\r\n", want: []Reply{{Code: 250, Lines: []string{"ok"}}}, err: "not an SMTP reply: x"},
}

// TestReader: replies at once, byte by byte and in pieces.
//
// Fails if a hyphen is taken for the end, if a bound is off by one, if the codes
// of a reply may differ, if Feed takes more than one reply, or keeps a piece.
func TestReader(t *testing.T) {
	t.Parallel()
	for _, c := range replies {
		t.Run(c.text[:min(len(c.text), 40)], func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1 << 20, 1, 0, 7} {
				got, incomplete, err := readAll(t, []byte(c.text), size)
				require.Equal(t, c.err, err)
				require.Equal(t, c.want, got)
				require.Equal(t, c.incomplete, incomplete)
			}
		})
	}
}

// TestReaderStopsBehindAReply: what a server has sent behind it, such as a
// reply in the clear behind the one to STARTTLS, is the caller's to find.
//
// Fails if Feed goes on behind a reply, or uses the memory of one again.
func TestReaderStopsBehindAReply(t *testing.T) {
	t.Parallel()
	var r Reader
	n, done, err := r.Feed([]byte("220 go ahead\r\n250 injected\r\n"))
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, len("220 go ahead\r\n"), n)
	kept := r.Reply()

	n, done, err = r.Feed(nil)
	require.NoError(t, err)
	require.False(t, done)
	require.Zero(t, n)
	_, done, _ = r.Feed([]byte("250-a\r\n250 b\r\n"))
	require.True(t, done)
	require.Equal(t, Reply{Code: 220, Lines: []string{"go ahead"}}, kept, "a reply is the caller's")
}

// TestKeyword fails if the server's name is taken for a keyword, or a keyword
// by its beginning, or if case matters. STARTTLS is the last line, which a
// search for "250-STARTTLS" does not find.
func TestKeyword(t *testing.T) {
	t.Parallel()
	got, _, err := readAll(t, []byte("250-PIPELINING greets you\r\n250-SIZE 10240000\r\n250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN\r\n250-8bitmime\r\n250 STARTTLS\r\n"), 1<<20)
	require.Empty(t, err)
	ehlo := got[0]
	for _, c := range []struct {
		name, params string
		ok           bool
	}{
		{"STARTTLS", "", true},
		{"starttls", "", true},
		{"SIZE", "10240000", true},
		{"AUTH", "PLAIN LOGIN", true},
		{"8BITMIME", "", true},
		{"PIPELINING", "", false},
		{"START", "", false},
		{"STARTTLSX", "", false},
		{"10240000", "", false},
		{"", "", false},
	} {
		params, ok := ehlo.Keyword(c.name)
		require.Equal(t, c.ok, ok, c.name)
		require.Equal(t, c.params, params, c.name)
	}
	_, ok := Reply{}.Keyword("STARTTLS")
	require.False(t, ok)
}

func TestReplyString(t *testing.T) {
	t.Parallel()
	require.Equal(t, "554 Your address is listed / See https://example.com/\\x1B[31m",
		Reply{Code: 554, Lines: []string{"Your address is listed", "See https://example.com/\x1b[31m"}}.String())
	require.Len(t, Reply{Code: 554, Lines: []string{strings.Repeat("x", 1000)}}.String(), LogLimit)
}

// FuzzReader holds that it does not matter in which pieces replies come, and
// that the standard library reads the first of them alike.
func FuzzReader(f *testing.F) {
	for _, c := range replies {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 4*lineTolerance)]
		want, incomplete, failure := readAll(t, b, 1<<20)
		for _, size := range []int{1, 0} {
			got, gotIncomplete, gotFailure := readAll(t, b, size)
			require.Equal(t, want, got)
			require.Equal(t, incomplete, gotIncomplete)
			require.Equal(t, failure, gotFailure)
		}
		if len(want) == 0 || bare(b) {
			return
		}
		oracle := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
		code, message, err := oracle.ReadResponse(0)
		require.NoError(t, err)
		require.Equal(t, want[0].Code, code)
		require.Equal(t, strings.Join(want[0].Lines, "\n"), message)
	})
}

// bare reports whether a line is a code alone, which the standard library does
// not take.
func bare(b []byte) bool {
	for line := range bytes.Lines(b) {
		if len(bytes.TrimRight(line, "\r\n")) == 3 {
			return true
		}
	}
	return false
}
