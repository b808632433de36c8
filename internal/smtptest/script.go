package smtptest

import "time"

// Script says how a Server treats a session: one Step for each thing it would
// answer. The zero Script is a well-behaved server that takes all mail.
type Script struct {
	// Name is how the server calls itself; "" means "smtptest".
	Name string

	Connect Step // the greeting
	Ehlo    Step // EHLO and HELO
	Mail    Step
	Rcpt    Step
	Data    Step // the 354 after DATA
	Dot     Step // the reply after the final dot
	Rset    Step
	Noop    Step
	Quit    Step
}

// Step is one answer of a scripted server. In the order of the fields: it
// waits, it replies, and then something becomes of the connection. The zero
// Step is the usual answer without delay.
type Step struct {
	Wait   time.Duration   // before the reply
	Jitter time.Duration   // and as long again, at random, up to this
	Until  <-chan struct{} // and until this is closed, if not nil

	// Reply is what to send, as it stands: CRLF included, several lines,
	// garbage. "" means the usual reply. A reply that does not begin with 2 or
	// 3 refuses; see Then.
	Reply string
	Mute  bool // send nothing at all

	LineGap time.Duration // pause between the lines of the reply
	ByteGap time.Duration // pause between its bytes

	Then Fate
}

// Fate is what becomes of the connection after a reply.
type Fate int

const (
	// Usual closes after QUIT and after a 421, and goes on otherwise. After a
	// greeting that refuses (RFC 5321 section 3.1) it answers 503 to all but QUIT.
	Usual Fate = iota
	// Close closes it as it is: with unread input the kernel sends RST, else FIN.
	Close
	// Reset closes it with RST, and drops what was not sent yet. One right
	// after accept may already meet the client in its connect(2); use Until.
	Reset
	// HalfClose sends FIN, then reads what comes until the client closes.
	HalfClose
	// Linger says nothing more, and reads what comes until the client closes.
	Linger
	// Stall neither reads nor writes until the server is stopped.
	Stall
)
