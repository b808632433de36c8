package healthcheck

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"smtplb/internal/smtp"
)

// AgentReport is what an agent says of its server: the agent-check of HAProxy
// (its configuration manual, section 5.2). What the agent leaves out is as it was.
type AgentReport struct {
	Admin    AgentAdmin
	Health   AgentHealth
	Percent  int // of the configured weight; Unsaid if left out
	MaxConns int // 0 is no limit of the agent's; Unsaid if left out

	Unknown string // the first word that means nothing, printable; "" if there is none
	Words   string // the whole line, printable
}

// Unsaid is a number that an agent has left out.
const Unsaid = -1

// AgentAdmin is whether the operator of a server wants it to have sessions.
type AgentAdmin uint8

// The words of the operator.
const (
	AdminUnsaid AgentAdmin = iota
	AdminReady
	AdminDrain
	AdminMaint
)

// AgentHealth is whether a server can take sessions.
type AgentHealth uint8

// The words on health. "fail" and "stopped" are "down", too.
const (
	HealthUnsaid AgentHealth = iota
	HealthUp
	HealthDown
)

// maxAgentNumber bounds the numbers of an agent; what is above is no number.
const maxAgentNumber = 1 << 30

// ParseAgent reads an agent's line, without its end: words, in any case and order,
// with spaces, tabs and commas between them, and behind a # a description.
//
//	75%                 of the configured weight
//	maxconn:30
//	ready drain maint   the operator's
//	up down             and fail, stopped, which are down
//
// The last of contradictory words counts, and unknown ones do not, as in HAProxy;
// but a line of nothing else is an error.
//
// See tcpcheck_agent_expect_reply in HAProxy's tcpcheck.c.
func ParseAgent(line []byte) (AgentReport, error) {
	r := AgentReport{Percent: Unsaid, MaxConns: Unsaid, Words: smtp.Printable(line, smtp.LogLimit)}
	line, _, _ = bytes.Cut(line, []byte{'#'})
	known := 0
	for _, word := range bytes.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' }) {
		if r.word(strings.ToLower(string(word))) {
			known++
		} else if r.Unknown == "" {
			r.Unknown = smtp.Printable(word, smtp.LogLimit)
		}
	}
	if known == 0 {
		return r, fmt.Errorf("no word of an agent in %q", r.Words)
	}
	return r, nil
}

// word takes in one word, if it is known.
func (r *AgentReport) word(word string) bool {
	switch word {
	case "ready":
		r.Admin = AdminReady
	case "drain":
		r.Admin = AdminDrain
	case "maint":
		r.Admin = AdminMaint
	case "up":
		r.Health = HealthUp
	case "down", "fail", "stopped":
		r.Health = HealthDown
	default:
		if digits, ok := strings.CutSuffix(word, "%"); ok {
			return agentNumber(digits, &r.Percent)
		}
		if digits, ok := strings.CutPrefix(word, "maxconn:"); ok {
			return agentNumber(digits, &r.MaxConns)
		}
		return false
	}
	return true
}

// agentNumber reads digits, and nothing but digits.
func agentNumber(digits string, to *int) bool {
	n := 0
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
		if n = n*10 + int(c-'0'); n > maxAgentNumber {
			return false
		}
	}
	if digits == "" {
		return false
	}
	*to = n
	return true
}

// askAgent reads the agent's line: up to CR or LF, or to the end of the stream.
// Whatever the agent writes behind it is not waited for. A line that has not come
// to its end in time, or is longer than the probe's buffer, is none: half of
// "maxconn:30" is another word.
func (p *probe) askAgent() (why string, err error) {
	if p.Send != "" {
		// If the agent has closed, what it said is still to be read.
		_, _ = p.conn.Write([]byte(p.Send + "\n"))
	}
	began := time.Now()
	for n := 0; ; {
		if n == len(p.buf) {
			return "", &stepError{why: fmt.Sprintf("agent: no end of the line in %d bytes", n)}
		}
		more, err := p.conn.Read(p.buf[n:])
		n += more
		line := p.buf[:n]
		end := bytes.IndexAny(line, "\r\n")
		switch {
		case end >= 0:
			return p.heed(line[:end])
		case n > 0 && errors.Is(err, io.EOF) && p.ctx.Err() == nil:
			return p.heed(line)
		case err != nil:
			return "", p.lost("agent", "no line from the agent", began, err)
		}
	}
}

// heed takes the agent's line for the outcome of the probe.
func (p *probe) heed(line []byte) (why string, err error) {
	if p.agent, err = ParseAgent(line); err != nil {
		return "", &stepError{why: "agent: " + err.Error()}
	}
	return p.agent.Words, nil
}
