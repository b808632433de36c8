package smtptest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Session is what a Server saw of one connection.
type Session struct {
	Client   string   // the address it came from
	Received int64    // bytes read from it, whatever they meant
	Commands []string // in order, without line ends; message text is not among them
	Stored   int      // messages answered with 250
	Ended    bool     // the server is through with the connection
	Err      error    // how it ended: nil for QUIT, a fate or end of file, else the error
}

// Message is a stored message.
type Message struct {
	From   string // as given in MAIL, without brackets
	To     []string
	Header string // with line ends, without the blank line after it; at most 16 KiB
	Size   int64  // of the body in bytes, dots unstuffed
	Sum    [sha256.Size]byte
}

const (
	maxHeader  = 16 << 10
	bufferSize = 4 << 10 // of a session, so also the longest command
)

// errOver ends a session that has come to its end as the script says.
var errOver = errors.New("session over")

// session is one connection of a Server. Its fields below the blank line
// belong to the session's goroutine; snapshots are taken under srv.mu.
type session struct {
	srv      *Server
	client   string
	received atomic.Int64
	commands []string // guarded by srv.mu, as are the next three
	stored   int
	ended    bool
	err      error

	script    *Script
	conn      net.Conn
	in        *bufio.Reader
	rejecting bool // the greeting refused: only QUIT is obeyed
	from      string
	mail      bool
	to        []string
}

func (c *session) snapshotLocked() Session {
	return Session{
		Client:   c.client,
		Received: c.received.Load(),
		Commands: slices.Clip(c.commands),
		Stored:   c.stored,
		Ended:    c.ended,
		Err:      c.err,
	}
}

// Read counts what the client sent.
func (c *session) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// run plays the script from the greeting to the end of the connection.
func (c *session) run() error {
	c.in = bufio.NewReaderSize(c, bufferSize)
	code, err := c.play(&c.script.Connect, "220 "+c.script.Name+" ESMTP smtptest\r\n", Usual)
	c.rejecting = code == '5'
	for err == nil {
		var line []byte
		if line, err = c.in.ReadSlice('\n'); err == nil {
			err = c.command(strings.TrimRight(string(line), "\r\n"))
		}
	}
	if err == errOver || err == io.EOF {
		return nil
	}
	return err
}

func (c *session) command(line string) error {
	c.srv.mu.Lock()
	c.commands = append(c.commands, line)
	c.srv.mu.Unlock()

	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if c.rejecting && verb != "QUIT" {
		return c.reply("503 5.5.1 no service here\r\n")
	}
	var err error
	switch verb {
	case "HELO":
		_, err = c.play(&c.script.Ehlo, "250 "+c.script.Name+"\r\n", Usual)
	case "EHLO":
		_, err = c.play(&c.script.Ehlo, "250-"+c.script.Name+"\r\n250-PIPELINING\r\n250 8BITMIME\r\n", Usual)
	case "MAIL":
		c.forget()
		var code byte
		if code, err = c.play(&c.script.Mail, "250 2.1.0 sender ok\r\n", Usual); code == '2' {
			c.mail, c.from = true, mailbox(arg)
		}
	case "RCPT":
		if !c.mail {
			return c.reply("503 5.5.1 MAIL first\r\n")
		}
		var code byte
		if code, err = c.play(&c.script.Rcpt, "250 2.1.5 recipient ok\r\n", Usual); code == '2' {
			c.to = append(c.to, mailbox(arg))
		}
	case "DATA":
		if len(c.to) == 0 {
			return c.reply("503 5.5.1 RCPT first\r\n")
		}
		var code byte
		if code, err = c.play(&c.script.Data, "354 end with a dot\r\n", Usual); code == '3' && err == nil {
			err = c.data()
		}
	case "RSET":
		c.forget()
		_, err = c.play(&c.script.Rset, "250 2.0.0 ok\r\n", Usual)
	case "NOOP":
		_, err = c.play(&c.script.Noop, "250 2.0.0 ok\r\n", Usual)
	case "QUIT":
		_, err = c.play(&c.script.Quit, "221 2.0.0 bye\r\n", Close)
	default:
		err = c.reply("500 5.5.2 unknown command\r\n")
	}
	return err
}

// forget ends the mail transaction.
func (c *session) forget() { c.mail, c.from, c.to = false, "", nil }

// data reads a message and stores it if the reply to its final dot says so and
// could be written.
func (c *session) data() error {
	m := Message{From: c.from, To: c.to}
	if err := c.readMessage(&m); err != nil {
		return err
	}
	c.forget()
	step := &c.script.Dot
	if err := c.pause(step); err != nil {
		return err
	}
	c.srv.commit.RLock()
	code, err := c.answer(step, "250 2.0.0 stored\r\n")
	if code == '2' && err == nil {
		c.srv.mu.Lock()
		c.srv.messages = append(c.srv.messages, m)
		c.stored++
		c.srv.mu.Unlock()
	}
	c.srv.commit.RUnlock()
	if err != nil {
		return err
	}
	return c.suffer(step.Then, fateAfter(step, Usual))
}

// readMessage reads up to CR LF dot CR LF, and to nothing else that some
// server might take for the end (RFC 5321 section 4.1.1.4).
func (c *session) readMessage(m *Message) error {
	sum := sha256.New()
	header, atStart := true, true
	var last byte // of the chunk before
	var head []byte
	for {
		chunk, err := c.in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		text := chunk
		if atStart && text[0] == '.' {
			if string(text) == ".\r\n" {
				break
			}
			text = text[1:]
		}
		switch {
		case header && atStart && string(chunk) == "\r\n":
			header = false
		case header && len(head) < maxHeader:
			head = append(head, text...)
		case !header:
			sum.Write(text)
			m.Size += int64(len(text))
		}
		atStart = bytes.HasSuffix(chunk, []byte("\r\n")) || last == '\r' && string(chunk) == "\n"
		last = chunk[len(chunk)-1]
	}
	m.Header = string(head)
	sum.Sum(m.Sum[:0])
	return nil
}

// play carries out a step: wait, reply, fate. It returns the first byte of the
// reply, 0 if there was none.
func (c *session) play(step *Step, usual string, fate Fate) (byte, error) {
	if err := c.pause(step); err != nil {
		return 0, err
	}
	code, err := c.answer(step, usual)
	if err != nil {
		return code, err
	}
	return code, c.suffer(step.Then, fateAfter(step, fate))
}

// pause waits as the step says, or until the server is stopped.
func (c *session) pause(step *Step) error {
	wait := step.Wait
	if step.Jitter > 0 {
		wait += rand.N(step.Jitter)
	}
	if err := c.sleep(wait); err != nil {
		return err
	}
	if step.Until == nil {
		return nil
	}
	select {
	case <-step.Until:
		return nil
	case <-c.srv.service.Done():
		return net.ErrClosed
	}
}

func (c *session) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.srv.service.Done():
		return net.ErrClosed
	}
}

// answer writes the step's reply, or the usual one.
func (c *session) answer(step *Step, usual string) (byte, error) {
	if step.Mute {
		return 0, nil
	}
	text := usual
	if step.Reply != "" {
		text = step.Reply
	}
	if step.LineGap == 0 && step.ByteGap == 0 {
		return text[0], c.reply(text)
	}
	for line := range strings.Lines(text) {
		if err := c.dribble(line, step.ByteGap); err != nil {
			return text[0], err
		}
		if err := c.sleep(step.LineGap); err != nil {
			return text[0], err
		}
	}
	return text[0], nil
}

func (c *session) dribble(line string, gap time.Duration) error {
	if gap == 0 {
		return c.reply(line)
	}
	for i := range len(line) {
		if err := c.reply(line[i : i+1]); err != nil {
			return err
		}
		if err := c.sleep(gap); err != nil {
			return err
		}
	}
	return nil
}

func (c *session) reply(text string) error {
	_, err := io.WriteString(c.conn, text)
	return err
}

// fateAfter is what Usual means after a step whose own end would be fate.
func fateAfter(step *Step, fate Fate) Fate {
	if strings.HasPrefix(step.Reply, "421") {
		return Close
	}
	return fate
}

// suffer lets the fate come true; it returns nil if the session goes on.
func (c *session) suffer(fate, usual Fate) error {
	if fate == Usual {
		fate = usual
	}
	switch fate {
	case Close:
		return errOver
	case Reset:
		if err := Abort(c.conn); err != nil {
			return err
		}
		return errOver
	case HalfClose:
		if err := CloseWrite(c.conn); err != nil {
			return err
		}
		return c.drain()
	case Linger:
		return c.drain()
	case Stall:
		<-c.srv.service.Done()
		return net.ErrClosed
	default:
		return nil
	}
}

// drain reads until the client closes.
func (c *session) drain() error {
	_, err := io.Copy(io.Discard, c.in)
	if err == nil {
		err = errOver
	}
	return err
}

// mailbox takes the address out of "FROM:<a@b> SIZE=1".
func mailbox(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	box, _, _ := strings.Cut(rest, ">")
	return box
}
