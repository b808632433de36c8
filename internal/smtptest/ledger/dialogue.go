package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dialogue is one session of a Client, as it runs: one goroutine's. Its methods
// return whether it goes on; what ended it is in its Session.
type dialogue struct {
	Session
	c    *Client
	conn net.Conn
	in   *bufio.Reader

	banner   time.Duration
	commands []time.Duration
}

// reply is a server's reply, its text that of the first line.
type reply struct {
	code int
	text string
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 1024) }}

func (c *Client) newDialogue() *dialogue {
	return &dialogue{c: c, Session: Session{Phase: Connect}}
}

// finish closes the connection and enters the session into the ledger.
func (d *dialogue) finish() {
	if d.conn != nil {
		d.conn.Close()
		d.in.Reset(nil)
		readers.Put(d.in)
	}
	if len(d.Messages) == 0 && d.Phase != Done {
		d.Messages = []Message{{ID: d.c.newID(), Phase: d.Phase, Code: d.Code, Err: d.Err}}
	}
	d.c.record(d)
}

// open connects, reads the greeting and says EHLO.
func (d *dialogue) open(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, d.c.Timeout)
	defer cancel()
	network, address := "tcp", d.c.Addr
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	begun := time.Now()
	conn, err := d.c.Dial(ctx, network, address)
	if err != nil {
		d.Err = err
		return false
	}
	d.conn, d.Local = conn, conn.LocalAddr().String()
	d.in = readers.Get().(*bufio.Reader)
	d.in.Reset(conn)

	d.Phase = Banner
	d.deadline()
	r, err := d.read()
	if err != nil {
		d.Err = err
		return false
	}
	d.banner = time.Since(begun)
	d.Greeting = r.text
	if r.code/100 != 2 {
		d.refused(r)
		return false
	}
	r, ok := d.ask(Ehlo, "EHLO client.example.com\r\n")
	if ok && r.code/100 != 2 {
		d.refused(r)
		return false
	}
	return ok
}

// mail sends a message. A refused one leaves the session open unless the reply
// was 421.
func (d *dialogue) mail() bool {
	d.Messages = append(d.Messages, Message{ID: d.c.newID()})
	m := &d.Messages[len(d.Messages)-1]
	text := d.c.compose(m.ID)
	steps := [...]struct {
		phase Phase
		text  string
		want  int // first digit of the reply
	}{
		{Mail, "MAIL FROM:<" + d.c.From + ">\r\n", 2},
		{Rcpt, "RCPT TO:<" + d.c.To + ">\r\n", 2},
		{Data, "DATA\r\n", 3},
		{Dot, text, 2},
	}
	for _, step := range steps {
		r, ok := d.ask(step.phase, step.text)
		m.Phase, m.Code, m.Err = d.Phase, r.code, d.Err
		if !ok {
			return false
		}
		if r.code/100 == step.want {
			continue
		}
		if r.code == 421 {
			d.refused(r)
			return false
		}
		if step.phase == Dot {
			return true
		}
		_, ok = d.ask(Mail, "RSET\r\n")
		return ok
	}
	m.Phase = Done
	return true
}

// quit ends the session as RFC 5321 section 4.1.1.10 has it: the client waits
// for 221, and the server closes first.
func (d *dialogue) quit() bool {
	r, ok := d.ask(Quit, "QUIT\r\n")
	if !ok {
		return false
	}
	if r.code != 221 {
		d.refused(r)
		return false
	}
	if !d.c.CloseFirst {
		if d.Err = d.readEnd(); d.Err != nil {
			return false
		}
	}
	d.Phase = Done
	return true
}

// refused notes a reply that ends the session. After 421 the server closes, and
// has to do so by end of file: a reset could have cost the client the reply.
// Any other refusal waits for QUIT.
func (d *dialogue) refused(r reply) {
	d.Code = r.code
	if r.code == 421 {
		d.Err = d.readEnd()
		return
	}
	d.deadline()
	if _, err := io.WriteString(d.conn, "QUIT\r\n"); err != nil {
		d.Err = err
		return
	}
	if _, err := d.read(); err != nil {
		d.Err = err
	}
}

// ask sends a command, or a message with its final dot, and reads the reply.
// With Dot, the phase is Data until all is sent.
func (d *dialogue) ask(phase Phase, text string) (reply, bool) {
	d.Phase = phase
	begun := time.Now()
	d.deadline()
	if phase == Dot {
		d.Phase = Data
	}
	if _, err := io.WriteString(d.conn, text); err != nil {
		d.Err = err
		// A server that refuses and closes may have said why.
		if r, rerr := d.read(); rerr == nil {
			d.Code = r.code
			return r, false
		}
		return reply{}, false
	}
	d.Phase = phase
	r, err := d.read()
	if err != nil {
		d.Err = err
		return reply{}, false
	}
	d.commands = append(d.commands, time.Since(begun))
	return r, true
}

// deadline begins the time-out of the next reply. Only a closed connection
// refuses it, and reading that fails as well.
func (d *dialogue) deadline() { _ = d.conn.SetDeadline(time.Now().Add(d.c.Timeout)) }

// read reads one reply of one or more lines (RFC 5321 section 4.2).
func (d *dialogue) read() (r reply, err error) {
	for n := 0; ; n++ {
		line, err := d.in.ReadSlice('\n')
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return reply{}, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if len(text) < 3 || len(text) > 3 && text[3] != ' ' && text[3] != '-' {
			return reply{}, fmt.Errorf("read reply: %q is none", text)
		}
		code, err := strconv.Atoi(text[:3])
		if err != nil || code < 200 || code > 599 || n > 0 && code != r.code {
			return reply{}, fmt.Errorf("read reply: %q does not belong there", text)
		}
		if n == 0 {
			r = reply{code, strings.TrimPrefix(text[3:], " ")}
		}
		if len(text) == 3 || text[3] == ' ' {
			return r, nil
		}
	}
}

// readEnd waits for end of file; anything else is an error.
func (d *dialogue) readEnd() error {
	d.deadline()
	switch b, err := d.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("wait for end of file: got %q", b)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("wait for end of file: %w", err)
	}
}
