package smtp

// MaxGreeting is how much of a greeting Classify looks at, in bytes: there is
// no need to peek at more.
const MaxGreeting = 4 << 10

// Verdict is what a greeting says of its server.
type Verdict uint8

const (
	// More means that it cannot be told yet.
	More Verdict = iota
	// Ready (2yz): the server takes mail.
	Ready
	// Busy (4yz): the server takes none for the moment, from anybody.
	Busy
	// Policy (5yz, or 4yz with an enhanced status 4.7.x): the server refuses
	// whoever has connected. If it was told who the client is, that is about
	// the client; if not, it is about us.
	Policy
	// Garbage means that it is not the greeting of an SMTP server.
	Garbage
)

// Greeting is a verdict and what it is founded on.
type Greeting struct {
	Verdict Verdict
	Code    int    // 0 if Garbage or More
	Status  Status // of Busy or Policy, if the server gave one
	// Line is the line that decided, as far as it has come and without its end:
	// a part of the bytes given to Classify, to be logged by Printable.
	Line []byte
}

// Classify judges the first bytes of a server, all that have come so far. It
// looks at no more than MaxGreeting of them, and says More as long as further
// bytes could change the verdict; it never changes one. If end, no more will
// come, since the server has closed or its time is up, and the verdict is by
// what there is.
//
// Ready is known by the fourth byte, and so is Garbage but for odd cases; the
// other verdicts at the end of the first line with an enhanced status code, or
// else of the reply.
func Classify(b []byte, end bool) Greeting {
	b = b[:min(len(b), MaxGreeting)]
	end = end || len(b) == MaxGreeting
	line, _ := cutLine(b[:min(len(b), lineLimit)])
	switch {
	case !plausible(b):
		return Greeting{Verdict: Garbage, Line: line}
	case len(b) >= 4 && b[0] == '2':
		l, _ := parseLine(b[:3])
		return Greeting{Verdict: Ready, Code: l.code, Line: line}
	case len(b) >= 4:
		return classifyRefusal(b, end)
	case end:
		return Greeting{Verdict: Garbage, Line: line}
	}
	return Greeting{}
}

// Ended reports whether the last line of the reply that b begins with has come,
// or nothing more of it would be looked at.
func Ended(b []byte) bool {
	if len(b) >= MaxGreeting {
		return true
	}
	for {
		line, n := cutLine(b)
		if n == 0 {
			return false
		}
		if l, ok := parseLine(line); !ok || l.last {
			return true
		}
		b = b[n:]
	}
}

// plausible reports whether b begins like a greeting as far as it goes: three
// digits of which the first is 2, 4 or 5, then a space, a hyphen or, as a text
// is not required of a reply, the end of the line.
func plausible(b []byte) bool {
	for i, c := range b[:min(len(b), 4)] {
		var ok bool
		switch i {
		case 0:
			ok = c == '2' || c == '4' || c == '5'
		case 1, 2:
			ok = isDigit(c)
		case 3:
			ok = c == ' ' || c == '-' || c == '\r' || c == '\n'
		}
		if !ok {
			return false
		}
	}
	return true
}

// classifyRefusal judges what begins with the code of a refusal. A line that
// is too long is taken as if it were the last, and a line that does not belong
// to the reply ends it: what was there before has said enough.
func classifyRefusal(b []byte, end bool) Greeting {
	var g Greeting
	for {
		line, n := cutLine(b[:min(len(b), lineLimit)])
		if n == 0 && len(b) < lineLimit && !end {
			return Greeting{}
		}
		l, ok := parseLine(line)
		if g.Line == nil && !ok { // a code, CR, and something else than LF
			return Greeting{Verdict: Garbage, Line: line}
		}
		if g.Line != nil && (!ok || l.code != g.Code) {
			break
		}
		known := l.status != Status{}
		if g.Line == nil || known {
			g = Greeting{Code: l.code, Status: l.status, Line: line}
		}
		if known || l.last || n == 0 {
			break
		}
		b = b[n:]
	}
	g.Verdict = Busy
	if g.Code >= 500 || g.Status.Policy() {
		g.Verdict = Policy
	}
	return g
}
