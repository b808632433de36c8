package smtp

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// greetings are what servers say first, and how many bytes of it decide. The
// rows of T7 that are greetings are among them.
var greetings = []struct {
	text    string
	at      int // 0: at the end
	verdict Verdict
	code    int
	status  Status
	line    string // "": all of it, without its end
}{
	{text: "220 mx.example.com ESMTP Postfix\r\n", at: 4, verdict: Ready, code: 220, line: "220 "},
	{text: "220-mx.example.com please wait\r\n220 mx.example.com ESMTP\r\n", at: 4, verdict: Ready, code: 220, line: "220-"},
	{text: "220\r\n", at: 4, verdict: Ready, code: 220},
	{text: "220\n", at: 4, verdict: Ready, code: 220},
	{text: "250 mx.example.com\r\n", at: 4, verdict: Ready, code: 250, line: "250 "},

	{text: "421 4.3.2 mx.example.com Service not available, closing transmission channel\r\n", verdict: Busy, code: 421, status: Status{4, 3, 2}},
	{text: "421 mx.example.com Service not available\r\n", verdict: Busy, code: 421},
	{text: "421 mx.example.com Service not available\n", verdict: Busy, code: 421},
	{text: "421\r\n", verdict: Busy, code: 421},
	{text: "421 \r\n", verdict: Busy, code: 421},
	{text: "421 4.3.2\r\n", verdict: Busy, code: 421, status: Status{4, 3, 2}},
	{text: "421 4.4.2 mx.example.com Error: timeout exceeded\r\n", verdict: Busy, code: 421, status: Status{4, 4, 2}},
	{text: "450 4.3.2 Service currently unavailable\r\n", verdict: Busy, code: 450, status: Status{4, 3, 2}},
	{text: "451 Temporary local problem\r\n", verdict: Busy, code: 451},
	{text: "421-4.3.2 busy\r\n421 4.3.2 very\r\n", at: 16, verdict: Busy, code: 421, status: Status{4, 3, 2}, line: "421-4.3.2 busy"},
	{text: "421-busy\r\n421-very\r\n421 indeed\r\n", verdict: Busy, code: 421, line: "421-busy"},
	{text: "421-busy\r\n554 5.7.1 no\r\n", verdict: Busy, code: 421, line: "421-busy"},
	{text: "421-busy\r\nwhat?\r\n", verdict: Busy, code: 421, line: "421-busy"},
	// What looks like a status and is none, or not one of this reply.
	{text: "421 5.7.1 no\r\n", verdict: Busy, code: 421},
	{text: "421 4.7 no\r\n", verdict: Busy, code: 421},
	{text: "421 4.7.1.2 no\r\n", verdict: Busy, code: 421},
	{text: "421 4.7.1234 no\r\n", verdict: Busy, code: 421},
	{text: "421 4.07.1 no\r\n", verdict: Busy, code: 421},
	{text: "421 4.7.1, no\r\n", verdict: Busy, code: 421},
	{text: "421  4.7.1 no\r\n", verdict: Busy, code: 421},
	{text: "421 mx 4.7.1 no\r\n", verdict: Busy, code: 421},

	{text: "421 4.7.0 mx.example.com Error: too many connections from 192.0.2.1\r\n", verdict: Policy, code: 421, status: Status{4, 7, 0}},
	{text: "421 4.7.0\r\n", verdict: Policy, code: 421, status: Status{4, 7, 0}},
	{text: "421-4.7.0 no\r\n421 4.7.0 really\r\n", at: 14, verdict: Policy, code: 421, status: Status{4, 7, 0}, line: "421-4.7.0 no"},
	{text: "421-mx.example.com\r\n421 4.7.1 no\r\n", verdict: Policy, code: 421, status: Status{4, 7, 1}, line: "421 4.7.1 no"},
	{text: "421 4.7.999 no\r\n", verdict: Policy, code: 421, status: Status{4, 7, 999}},
	{text: "450 4.7.1 Client host rejected: cannot find your hostname\r\n", verdict: Policy, code: 450, status: Status{4, 7, 1}},
	{text: "554 mx.example.com No SMTP service here\r\n", verdict: Policy, code: 554},
	{text: "554 5.7.1 blocked\r\n", verdict: Policy, code: 554, status: Status{5, 7, 1}},
	{text: "554 5.3.2 not now\r\n", verdict: Policy, code: 554, status: Status{5, 3, 2}},
	{text: "554-Your address is listed\r\n554 See https://example.com\r\n", verdict: Policy, code: 554, line: "554-Your address is listed"},
	{text: "521 mx.example.com does not accept mail\r\n", verdict: Policy, code: 521},
	{text: "500\n", verdict: Policy, code: 500},

	{text: "HTTP/1.1 400 Bad Request\r\n", at: 1, verdict: Garbage, line: "H"},
	{text: "SSH-2.0-OpenSSH_9.2p1\r\n", at: 1, verdict: Garbage, line: "S"},
	{text: "* OK IMAP4rev1\r\n", at: 1, verdict: Garbage, line: "*"},
	{text: "\x15\x03\x03\x00\x02\x02\x28", at: 1, verdict: Garbage, line: "\x15"},
	{text: " 220 mx.example.com\r\n", at: 1, verdict: Garbage, line: " "},
	{text: "\r\n220 mx.example.com\r\n", at: 1, verdict: Garbage, line: ""},
	{text: "150 wait\r\n", at: 1, verdict: Garbage, line: "1"},
	{text: "354 go on\r\n", at: 1, verdict: Garbage, line: "3"},
	{text: "620 what\r\n", at: 1, verdict: Garbage, line: "6"},
	{text: "2x0 mx\r\n", at: 2, verdict: Garbage, line: "2x"},
	{text: "2\r\n", at: 2, verdict: Garbage, line: "2"},
	{text: "42 \r\n", at: 3, verdict: Garbage, line: "42 "},
	{text: "2200 mx.example.com\r\n", at: 4, verdict: Garbage, line: "2200"},
	{text: "220\tmx.example.com\r\n", at: 4, verdict: Garbage, line: "220\t"},
	{text: "421_busy\r\n", at: 4, verdict: Garbage, line: "421_"},
	{text: "421\rbusy\r\n", verdict: Garbage, line: "421\rbusy"},

	// Longer than allowed: judged by what is allowed.
	{text: "421 4.7.0 " + strings.Repeat("x", 600) + "\r\n", at: 512, verdict: Policy, code: 421, status: Status{4, 7, 0}, line: "421 4.7.0 " + strings.Repeat("x", 502)},
	{text: "421-" + strings.Repeat("x", 507) + "\n421 4.7.0 no\r\n", verdict: Policy, code: 421, status: Status{4, 7, 0}, line: "421 4.7.0 no"},
	{text: "421-" + strings.Repeat("x", 508) + "\n421 4.7.0 no\r\n", at: 512, verdict: Busy, code: 421, line: "421-" + strings.Repeat("x", 508)},
	{text: strings.Repeat("421-wait\r\n", 1000), at: MaxGreeting, verdict: Busy, code: 421, line: "421-wait"},
	{text: strings.Repeat("554-wait\r\n", 1000), at: MaxGreeting, verdict: Policy, code: 554, line: "554-wait"},
}

// TestGreetings shows Classify every greeting byte by byte: it decides at the
// byte at which it can, neither earlier nor later, and for good.
//
// Fails if Ready waits for the end of its line, if a status is taken before
// what follows it has come, of another class, or only from the first line, if
// lineLimit or MaxGreeting is not kept, or if 4yz does not become Policy by 4.7.
func TestGreetings(t *testing.T) {
	t.Parallel()
	for _, c := range greetings {
		t.Run(c.text[:min(len(c.text), 40)], func(t *testing.T) {
			t.Parallel()
			at, line := c.at, c.line
			if at == 0 {
				at = len(c.text)
			}
			if line == "" {
				line = strings.TrimRight(c.text[:at], "\r\n")
			}
			for i := range at {
				require.Equal(t, Greeting{}, Classify([]byte(c.text[:i]), false), "after %d bytes", i)
			}
			require.Equal(t, Greeting{c.verdict, c.code, c.status, []byte(line)}, Classify([]byte(c.text[:at]), false))
			requireSteady(t, []byte(c.text))
			requireModel(t, []byte(c.text))
		})
	}
}

// TestGreetingEnds: the server has closed, or its time is up, and it is judged
// by what there is.
//
// Fails if the end of the bytes does not end a line.
func TestGreetingEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want Verdict
	}{
		{"", Garbage},
		{"2", Garbage},
		{"220", Garbage},
		{"421", Garbage},
		{"220 ", Ready},
		{"220-", Ready},
		{"421 ", Busy},
		{"421-", Busy},
		{"421\r", Busy},
		{"421\rx", Garbage},
		{"421 4.7", Busy},
		{"421 4.7.", Busy},
		{"421 4.7.0", Policy},
		{"421 4.7.0\r", Policy},
		{"421-4.7.0", Policy},
		{"421-wait\r\n", Busy},
		{"421-wait\r\n42", Busy},
		{"421-wait\r\n421", Busy},
		{"421-wait\r\n421 4.7.0", Policy},
		{"554", Garbage},
		{"554 ", Policy},
		{"554-wait\r\n", Policy},
	} {
		require.Equal(t, c.want, Classify([]byte(c.text), true).Verdict, "%q", c.text)
	}
}

// TestFirstByte: of all 256 first bytes only three can begin a greeting. It
// fails if plausible lets a 3 pass, or waits for more than one byte.
func TestFirstByte(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		want := Garbage
		if strings.IndexByte("245", byte(b)) >= 0 {
			want = More
		}
		require.Equal(t, want, Classify([]byte{byte(b)}, false).Verdict, "%q", b)
	}
}

// requireSteady holds of any bytes that it does not matter in which pieces they
// come: More until one is decided, and then the same for good; that the
// decision is made within MaxGreeting, and at the end of the bytes at the latest.
func requireSteady(t *testing.T, b []byte) {
	t.Helper()
	original := bytes.Clone(b)
	all, ended := Classify(b, false), Classify(b, true)
	require.NotEqual(t, More, ended.Verdict, "%q", b)
	if all.Verdict != More {
		require.Equal(t, ended, all, "%q", b)
	}
	for i := range b {
		g := Classify(b[:i:i], false)
		line := all.Line
		if g.Verdict == Ready || g.Verdict == Garbage {
			line = line[:min(len(line), len(g.Line))] // as far as it has come
		}
		undecided := g.Verdict == More && g.Code == 0 && g.Line == nil && i < MaxGreeting
		decided := g.Verdict == all.Verdict && g.Code == all.Code && g.Status == all.Status && bytes.Equal(g.Line, line)
		if g.Verdict == More && !undecided || g.Verdict != More && !decided {
			t.Fatalf("%d bytes of %.80q: %d, %d, %s, %.80q; of all: %d, %d, %s, %.80q", i, b,
				g.Verdict, g.Code, g.Status, g.Line, all.Verdict, all.Code, all.Status, all.Line)
		}
	}
	require.Equal(t, original, b, "Classify wrote")
}

var (
	modelBegin  = regexp.MustCompile(`^(?s:[245][0-9][0-9](?:[ \-\n]|\r(?:\n|$)))`)
	modelLine   = regexp.MustCompile(`^([0-9]{3})(?s:$|([ -])(.*)$)`)
	modelPolicy = regexp.MustCompile(`^4\.([0-9]|[1-9][0-9]{1,2})\.([0-9]|[1-9][0-9]{1,2})( |$)`)
)

// requireModel compares Classify with the rules as one would write them down
// without regard to speed, where no bound is met and nothing is missing.
func requireModel(t *testing.T, b []byte) {
	t.Helper()
	lines := strings.Split(string(b), "\n")
	for _, line := range lines {
		if len(line) >= lineLimit || len(b) >= MaxGreeting {
			return
		}
	}
	want := func() Verdict {
		switch {
		case len(b) >= 4 && b[0] == '2' && b[3] == '\r' && modelBegin.Match([]byte{b[0], b[1], b[2], '\n'}):
			return Ready // by four bytes, whatever the fifth
		case !modelBegin.Match(b):
			return Garbage
		case b[0] == '2':
			return Ready
		case b[0] == '5':
			return Policy
		}
		for _, line := range lines {
			m := modelLine.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
			if m == nil || m[1] != string(b[:3]) {
				break
			}
			if s := modelPolicy.FindStringSubmatch(m[3]); s != nil {
				if s[1] == "7" {
					return Policy
				}
				break
			}
			if m[2] != "-" {
				break
			}
		}
		return Busy
	}
	require.Equal(t, want(), Classify(b, true).Verdict, "%q", b)
}

// FuzzClassify holds that any bytes are judged by the rules, in whatever pieces
// they come, and always in the end.
func FuzzClassify(f *testing.F) {
	for _, c := range greetings {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), MaxGreeting+1)]
		requireSteady(t, b)
		requireModel(t, b)
	})
}

// TestNoAllocation holds of what the data plane calls. It fails if the lines of
// a greeting are copied.
func TestNoAllocation(t *testing.T) {
	for _, c := range greetings {
		b := []byte(c.text)
		require.Zero(t, testing.AllocsPerRun(10, func() { Classify(b, false) }), "%q", b)
	}
	buf := make([]byte, 0, lineLimit)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		AppendReply(buf, 421, Status{4, 3, 2}, "mx.example.com", "Service not available")
	}))
}

func BenchmarkClassify(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"ready", "220 mx.example.com ESMTP Postfix\r\n"},
		{"policy", "421 4.7.0 mx.example.com Error: too many connections from 192.0.2.1\r\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			text := []byte(c.text)
			b.ReportAllocs()
			for b.Loop() {
				Classify(text, false)
			}
		})
	}
}

// A reply has ended when its last line has come, whatever follows it; one that
// is broken or too long holds nobody up.
//
// Fails if a line in the middle, or the beginning of the last, ends it.
func TestEnded(t *testing.T) {
	t.Parallel()
	for text, at := range map[string]int{
		"220 a\r\n":                           7,
		"220 a\n220 b\r\n":                    6,
		"220-a\r\n220-b\r\n220 c\r\n":         21,
		"220\r\n":                             5,
		"220-a\r\nnonsense\r\n220 c\r\n":      17,
		strings.Repeat("220-a\r\n", 10_000/7): MaxGreeting,
	} {
		for i := range len(text) + 1 {
			require.Equal(t, i >= at, Ended([]byte(text[:i])), "%.20q: %d bytes", text, i)
		}
	}
}
