package healthcheck

import (
	"crypto/tls"
	"io"
	"strconv"
	"time"

	"smtplb/internal/smtp"
)

const (
	// farewell is how long a server has to answer QUIT and to close the
	// connection. The verdict does not depend on it.
	farewell = 2 * time.Second
	// grace is the part of it that a server has to close after a 421.
	grace = time.Second
)

// dialogue asks the server whether it takes mail: one command at a time, none
// before the reply to the last has come to its end (RFC 5321, sections 4.3.1
// and 2.1: a client that speaks before the greeting is taken for a spammer's).
func (p *probe) dialogue() (why string, err error) {
	if p.TLS == ImplicitTLS {
		if err := p.handshake(); err != nil {
			return "", err
		}
	}
	if _, err := p.reply("greeting", "no greeting"); err != nil {
		return "", err
	}
	verb := p.Verb.String()
	hello, err := p.command(verb, " "+p.Helo)
	if refused, ok := err.(*stepError); ok && p.Verb == EHLO && refused.code/100 == 5 {
		verb = HELO.String()
		hello, err = p.command(verb, " "+p.Helo)
	}
	if err == nil && p.TLS == StartTLS {
		hello, err = p.startTLS(verb, hello)
	}
	if err == nil && p.RcptTo != "" {
		err = p.transaction()
	}
	if err != nil {
		return "", err
	}
	first := strconv.Itoa(hello.Code) + " " + hello.Lines[0]
	return smtp.Printable([]byte(first), smtp.LogLimit), nil
}

// startTLS turns to TLS and introduces itself again (RFC 3207, section 4.2).
func (p *probe) startTLS(verb string, hello smtp.Reply) (smtp.Reply, error) {
	if _, ok := hello.Keyword("STARTTLS"); !ok {
		return hello, &stepError{why: verb + ": the server does not offer STARTTLS", code: hello.Code}
	}
	if _, err := p.command("STARTTLS", ""); err != nil {
		return hello, err
	}
	if len(p.rest) > 0 {
		return hello, &stepError{why: "STARTTLS: more behind the reply: " + smtp.Printable(p.rest, smtp.LogLimit)}
	}
	if err := p.handshake(); err != nil {
		return hello, err
	}
	return p.command(verb, " "+p.Helo)
}

// transaction asks for a mailbox, and leaves no trace of a mail.
func (p *probe) transaction() error {
	if _, err := p.command("MAIL", " FROM:<"+p.MailFrom+">"); err != nil {
		return err
	}
	if _, err := p.command("RCPT", " TO:<"+p.RcptTo+">"); err != nil {
		return err
	}
	_, err := p.command("RSET", "")
	return err
}

// command sends a command and returns the reply to it.
func (p *probe) command(verb, arg string) (smtp.Reply, error) {
	// If the server has closed, the reason it gave is still to be read; if it
	// gave none, reading fails too.
	_, _ = p.conn.Write([]byte(verb + arg + "\r\n"))
	return p.reply(verb, "no answer to "+verb)
}

// reply returns the next reply of the server, if that is of class 2. A *stepError
// says what else happened; missing is what it says if nothing did.
func (p *probe) reply(step, missing string) (smtp.Reply, error) {
	began := time.Now()
	for {
		n, done, err := p.reader.Feed(p.rest)
		p.rest = p.rest[n:]
		if err != nil {
			return smtp.Reply{}, &stepError{why: step + ": " + err.Error()}
		}
		if done {
			break
		}
		n, err = p.conn.Read(p.buf[:])
		if n == 0 && err != nil {
			return smtp.Reply{}, p.lost(step, missing, began, err)
		}
		p.rest = p.buf[:n]
	}
	r := p.reader.Reply()
	if r.Code/100 != 2 {
		return r, &stepError{why: step + ": " + r.String(), code: r.Code}
	}
	return r, nil
}

// part takes leave of a server that keeps to the protocol, and lets it close
// first: servers log a connection that ends in any other way as lost. code is
// that of the refusal, 0 if there was none.
//
// After 421 most servers close by themselves. A QUIT would then lie unread in
// their socket and make the close a reset, which may cost us the reply and is
// an error in their log. Some go on (OpenSMTPD, after a 421 to a command), and
// log a client that leaves without QUIT; so these get it after a while.
//
// Whatever fails here ends the wait, so that errors need no answer.
func (p *probe) part(code int) {
	defer p.closeTLS()
	end := time.Now().Add(farewell)
	if code == 421 {
		_ = p.conn.SetReadDeadline(time.Now().Add(grace))
		if p.drain() == nil {
			return
		}
	}
	_ = p.conn.SetDeadline(end)
	switch half, ok := p.conn.(interface{ CloseWrite() error }); {
	case p.SMTP:
		_, _ = p.command("QUIT", "") // any answer will do, and so will none
	case ok:
		_ = half.CloseWrite()
	default:
		return
	}
	_ = p.drain()
}

// drain reads until the server closes; nil means that it did.
func (p *probe) drain() error {
	_, err := io.Copy(io.Discard, p.conn)
	return err
}

// closeTLS answers the server's close_notify (RFC 8446, section 6.1), which
// closes the connection too.
func (p *probe) closeTLS() {
	if conn, ok := p.conn.(*tls.Conn); ok {
		conn.Close()
	}
}
