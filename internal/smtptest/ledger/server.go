package ledger

import (
	"encoding/hex"
	"net"
	"testing"

	"smtplb/internal/smtptest"
)

// Store tells what some server stored.
type Store interface {
	Stored() []Entry
}

// Entry is one stored copy of a message.
type Entry struct {
	ID      string
	Server  string // the name of the server that stored it
	Corrupt bool   // its body is not the one that was sent
}

// Server is a scripted SMTP server that keeps a ledger. It stores a message in
// one step with writing its 250 to the socket: of a message whose 250 somebody
// has seen, Stored tells.
type Server struct {
	*smtptest.Server
	name string
}

// NewServer starts a server on a port of 127.0.0.1; the script's name is its
// name in a Report.
func NewServer(t testing.TB, script smtptest.Script) *Server {
	t.Helper()
	return &Server{smtptest.NewServer(t, script), script.Name}
}

// Serve starts a server on a listener of any kind; see smtptest.ServeSMTP.
func Serve(t testing.TB, ln net.Listener, script smtptest.Script) *Server {
	t.Helper()
	return &Server{smtptest.ServeSMTP(t, ln, script), script.Name}
}

// Stored tells what the server has stored so far.
func (s *Server) Stored() []Entry {
	messages := s.Messages()
	entries := make([]Entry, len(messages))
	for i, m := range messages {
		entries[i] = Entry{
			ID:      headerValue(m.Header, headerID),
			Server:  s.name,
			Corrupt: headerValue(m.Header, headerSum) != hex.EncodeToString(m.Sum[:]),
		}
	}
	return entries
}

// List is a Store of ids that a foreign server stored, such as those found in
// the X-Ledger-Id headers of a Postfix's mailbox. Its bodies are not checked.
func List(server string, ids []string) Store { return list{server, ids} }

type list struct {
	server string
	ids    []string
}

func (l list) Stored() []Entry {
	entries := make([]Entry, len(l.ids))
	for i, id := range l.ids {
		entries[i] = Entry{ID: id, Server: l.server}
	}
	return entries
}
