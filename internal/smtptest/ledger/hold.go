package ledger

import (
	"context"
	"errors"
	"fmt"
)

// Held is a session that stays open after its EHLO until the test is done with
// it. Its methods are for one goroutine at a time.
type Held struct {
	d        *dialogue
	finished bool
}

// Hold opens a session and leaves it open. Whatever becomes of it enters the
// client's ledger when it is finished or abandoned, or if it cannot be opened.
func (c *Client) Hold(ctx context.Context) (*Held, error) {
	c.prepare()
	d := c.newDialogue()
	if !d.open(ctx) {
		d.finish()
		return nil, fmt.Errorf("hold a session: %w", d.failure())
	}
	return &Held{d: d}, nil
}

// Greeting is the text of the greeting, which may name the server.
func (h *Held) Greeting() string { return h.d.Greeting }

// Local is the client's address.
func (h *Held) Local() string { return h.d.Local }

// Noop proves that the session is alive, and changes nothing.
func (h *Held) Noop() error {
	r, ok := h.d.ask(h.d.Phase, "NOOP\r\n")
	if ok && r.code/100 != 2 {
		return fmt.Errorf("NOOP: got %d", r.code)
	}
	if !ok {
		return fmt.Errorf("NOOP: %w", h.d.failure())
	}
	return nil
}

// Finish sends a message and ends the session. It returns an error unless the
// message was accepted and the session went through.
func (h *Held) Finish() error {
	if h.finished {
		return errors.New("finish a held session: it has ended")
	}
	h.finished = true
	defer h.d.finish()
	if !h.d.mail() || !h.d.quit() {
		return fmt.Errorf("finish a held session: %w", h.d.failure())
	}
	if m := h.d.Messages[0]; !m.Accepted() {
		return fmt.Errorf("finish a held session: %v", m)
	}
	return nil
}

// Abandon closes the connection without QUIT. The session counts as broken
// where it was, and does no harm after Finish.
func (h *Held) Abandon() {
	if h.finished {
		return
	}
	h.finished = true
	h.d.Err = errAbandoned
	h.d.finish()
}

var errAbandoned = errors.New("abandoned by the test")

// failure says what ended the session.
func (d *dialogue) failure() error {
	if d.Err != nil {
		return fmt.Errorf("broken at %v: %w", d.Phase, d.Err)
	}
	return fmt.Errorf("refused at %v with %d", d.Phase, d.Code)
}
