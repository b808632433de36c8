package peers

import (
	"bufio"
	"errors"
	"io/fs"
	"net/mail"
	"os"
	"path/filepath"
)

// maildir is the one mailbox, under virtual_mailbox_base. virtual(8) takes the
// slash to mean a maildir: a file per message, which is in new/ only when whole
// and on the disk.
const maildir = "inbox/"

// Message is a message as Postfix has stored it.
type Message struct {
	LedgerID  string // its X-Ledger-Id header; empty if it has none
	Subject   string
	Recipient string      // the one this copy is for
	Header    mail.Header // with what Postfix has put before
	Path      string      // of the stored file, gone when the test ends
}

// Messages returns what is stored so far, in no particular order: a message
// once for each of its recipients, and once more for each delivery that Postfix
// repeated because it was killed during the first. Mail that was accepted a
// moment ago may not be there before Settle. It may also be asked of a stopped
// server.
func (s *PostfixServer) Messages() []Message {
	s.t.Helper()
	dir := filepath.Join(s.dir, "mail", maildir, "new")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Postfix makes the maildir for the first message
	}
	if err != nil {
		s.t.Fatal(err)
	}
	messages := make([]Message, 0, len(files))
	for _, file := range files {
		m, err := readMessage(filepath.Join(dir, file.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

func readMessage(path string) (Message, error) {
	file, err := os.Open(path)
	if err != nil {
		return Message{}, err
	}
	defer file.Close()
	parsed, err := mail.ReadMessage(bufio.NewReader(file))
	if err != nil {
		return Message{}, &fs.PathError{Op: "parse", Path: path, Err: err}
	}
	return Message{
		LedgerID:  parsed.Header.Get("X-Ledger-Id"),
		Subject:   parsed.Header.Get("Subject"),
		Recipient: parsed.Header.Get("Delivered-To"),
		Header:    parsed.Header,
		Path:      path,
	}, nil
}
