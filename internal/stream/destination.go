package stream

import (
	"errors"
	"time"

	"smtplb/internal/script"
	"smtplb/internal/smtp"
	"smtplb/upstream"
)

// Destination is a group of servers and what sessions that go there owe to it. It is
// immutable once a port has it.
type Destination struct {
	Group *upstream.Group

	Key      Key           // what the group hashes a session by
	KeyText  string        // that of FixedKey
	KeyValue *script.Value // in place of Key; nil: none

	// QueueTimeout is how long a session may wait in the queue of a group that has
	// one.
	QueueTimeout time.Duration

	// Header is the PROXY protocol header that each server gets before anything
	// else, anew with every attempt.
	Header HeaderVersion
}

// Key says what a session is hashed by.
type Key uint8

// The keys.
const (
	NoKey         Key = iota
	ClientAddress     // nginx's $remote_addr
	FixedKey          // Route.KeyText
)

// HeaderVersion is a version of the PROXY protocol.
type HeaderVersion uint8

// The values of proxy_protocol.
const (
	NoHeader HeaderVersion = iota
	HeaderV1
	HeaderV2
)

// chooseGroup takes the session to where Route.ProxyPass says: to the group of that
// name, or to the address, which is then a group that only this session has. It reports whether there is either; other names are for a resolver. See
// ngx_stream_proxy_eval and ngx_stream_proxy_handler.
func (w *worker) chooseGroup(s *session) bool {
	r := s.route
	w.text = r.ProxyPass.Append(w.text[:0], w.variables(s))
	w.line = appendLower(w.line[:0], w.text)
	if to := r.Groups[string(w.line)]; to != nil {
		s.to = to
		return true
	}
	addr, err := parseTarget(string(w.text))
	if err != nil {
		w.complain(s, err.Error())
		return false
	}
	s.to = &Destination{Group: upstream.Lone(addr), Header: r.Header}
	return true
}

// parseTarget reads the address of a server. The errors are nginx's, fit for the
// log, but that of a relative path, which would depend on where the process is.
func parseTarget(text string) (addr upstream.Addr, err error) {
	a, wrong := parseAddress(text)
	switch {
	case wrong == "" && a.noPort:
		wrong = "no port"
	case wrong == "" && a.name != "":
		return addr, errors.New("no resolver defined to resolve " + smtp.Printable([]byte(a.name), smtp.LogLimit))
	}
	if wrong != "" {
		return addr, errors.New(wrong + " in upstream " + inQuotes(smtp.Printable([]byte(text), smtp.LogLimit)))
	}
	return a.addr, nil
}

// GroupKey is what a group's name is in Route.Groups. Its case does not matter, that
// of letters beyond ASCII excepted.
func GroupKey(name string) string { return string(appendLower(nil, []byte(name))) }

// appendLower appends text in lower case, as ngx_strncasecmp sees it.
func appendLower(b, text []byte) []byte {
	for _, c := range text {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}
