package ledger

import "fmt"

// Phase is how far a session or a message has come: the answer it waited for.
type Phase int

// The phases, in their order.
const (
	Connect Phase = iota // the connection
	Banner               // the greeting
	Ehlo
	Mail
	Rcpt
	Data // the 354, and until all of the message is sent
	Dot  // the reply to the final dot: broken here, the message's fate is unknown
	Quit // 221, and the server's end of file
	Done // nothing: all went well
)

var phaseNames = [...]string{"connect", "banner", "ehlo", "mail", "rcpt", "data", "dot", "quit", "done"}

func (p Phase) String() string { return phaseNames[p] }

// Session is what a client saw of one session.
type Session struct {
	Local    string // the client's address, "" if it did not connect
	Greeting string // the first reply's first line, without code; "" if none came

	// Phase is where the session ended; Done means that nothing was refused
	// that ends a session, nothing broke, and 221 came.
	Phase Phase
	Code  int   // of the reply that ended it: a greeting, EHLO or 421; else 0
	Err   error // what broke, nil if nothing did; there may be a Code as well

	Messages []Message
}

// OK tells whether the session went through and all its messages were accepted.
func (s *Session) OK() bool {
	for i := range s.Messages {
		if !s.Messages[i].Accepted() {
			return false
		}
	}
	return s.Phase == Done
}

// Message is what a client saw of one message. A session that ends before its
// first message counts as one that did not get through: its Phase is the
// session's.
type Message struct {
	ID    string
	Phase Phase // where it ended; Done: accepted
	Code  int   // the last reply; 0 if the connection broke first
	Err   error // why the connection broke
}

// Accepted tells whether the client read 250 after the final dot.
func (m *Message) Accepted() bool { return m.Phase == Done }

// Refused tells whether a reply refused the message.
func (m *Message) Refused() bool { return m.Phase != Done && m.Code != 0 }

func (m Message) String() string {
	switch {
	case m.Accepted():
		return m.ID + " accepted"
	case m.Refused():
		return fmt.Sprintf("%s refused with %d at %v", m.ID, m.Code, m.Phase)
	default:
		return fmt.Sprintf("%s lost its connection at %v: %v", m.ID, m.Phase, m.Err)
	}
}
