package healthcheck

import "time"

// Settings say what a probe does on the wire. Targets with equal Settings share
// one probe.
//
// Helo, MailFrom and RcptTo go to the server as they are: whoever reads them
// from a configuration sees to it that they have no line ends.
type Settings struct {
	Network string // "tcp" or "unix"
	Address string // as for net.Dial: "10.0.0.1:25", or a path

	// SMTP is to hold a dialogue. Without it a connection made is all that is
	// asked for, and what the fields below, but for Timeout and Header, say of
	// the dialogue has no meaning.
	SMTP bool

	// Agent is to ask an agent for its word, see AgentReport, after sending Send, a
	// line without its end, or nothing if that is "". Of the fields below only
	// Timeout is for it.
	Agent bool
	Send  string

	Timeout time.Duration // of the whole probe, from connect to the end of the goodbye; required
	Header  HeaderVersion // sent before anything else

	TLS TLS

	Verb Verb
	Helo string // the name behind the verb

	// RcptTo is a mailbox to ask for, by MAIL, RCPT and RSET; "" is none.
	RcptTo   string
	MailFrom string // "" is the null reverse-path
}

// TLS is when a probe begins to speak TLS.
type TLS uint8

const (
	// NoTLS is never.
	NoTLS TLS = iota
	// ImplicitTLS is at once, before the greeting (RFC 8314, section 3.3).
	ImplicitTLS
	// StartTLS is after STARTTLS; a server that does not offer it has failed.
	StartTLS
)

// Verb is how a probe introduces itself.
type Verb uint8

const (
	// EHLO becomes HELO if the server refuses it with 5yz.
	EHLO Verb = iota
	// HELO is for servers that take or log EHLO amiss.
	HELO
	// LHLO is that of LMTP (RFC 2033).
	LHLO
)

func (v Verb) String() string { return [...]string{"EHLO", "HELO", "LHLO"}[v] }

// HeaderVersion is which header of the PROXY protocol a probe begins with.
type HeaderVersion uint8

const (
	// NoHeader is none.
	NoHeader HeaderVersion = iota
	// V1 names the two ends of the probe's own connection, since Postfix takes
	// no UNKNOWN. That is left for unix sockets, which have no such names.
	V1
	// V2 says LOCAL: the sender speaks for itself.
	V2
)
