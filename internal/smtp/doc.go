// Package smtp is as much of SMTP as a balancer needs, and that is little: to
// tell by a server's first bytes whether it takes mail, to read the replies to
// a probe, and to refuse a client politely. Nothing of it touches the bytes
// that are relayed.
//
// # The greeting gate
//
// The data plane shows Classify what a server has sent so far, and does with
// the server as the verdict says:
//
//	g := smtp.Classify(peeked, ended)
//	switch g.Verdict {
//	case smtp.More: // wait
//	case smtp.Ready: // commit: relay from the first byte on
//	case smtp.Busy, smtp.Garbage: // the server has failed: the next one
//	case smtp.Policy: // about whoever connects: see there
//	}
//
// Four bytes commit a session to a server, so that a greeting of several lines
// goes through as it comes: some servers hold back its last line for seconds to
// see whether the client waits. A refusal is judged when a line of it has an
// enhanced status code, or at its end; it has nothing to hurry for.
//
// # Probes
//
// A Reader puts together a whole reply, of however many lines, from pieces as
// the network delivers them, and holds it to RFC 5321, section 4.2: what the
// gate may overlook for the sake of the mail, a probe shall find.
//
// # Our own replies
//
// AppendReply makes the only SMTP that smtplb ever speaks to a client, one line
// before the session ends. It panics on anything but a refusal: a client that
// is told 2yz deletes its mail.
//
// # Bounds and tolerance
//
// A peer can make nothing here grow: a greeting is judged by 4 KiB at most, a
// Reader takes 100 lines of 1,000 bytes, texts for the log are cut to what the
// caller says and have every byte escaped that is not printable ASCII. A line
// may end in LF alone, and its code may stand without a text. That is safe
// since nobody acts on more than the code and the keywords of what is read
// here, and none of it is passed on.
//
// The package does no input or output and keeps no time. Its functions may be
// called from any goroutine; a Reader belongs to one.
package smtp
