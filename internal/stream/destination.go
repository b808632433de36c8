package stream

import (
	"errors"

	"smtplb/internal/smtp"
	"smtplb/upstream"
)

// chooseGroup takes the session to where Route.ProxyPass says: to the route of the
// group of that name, or to the address, which is then a group that only this session
// has. It reports whether there is either; other names are for a resolver. See
// ngx_stream_proxy_eval and ngx_stream_proxy_handler.
func (w *worker) chooseGroup(s *session) bool {
	r := s.route
	s.group = nil
	w.text = r.ProxyPass.Append(w.text[:0], w.variables(s))
	w.line = appendLower(w.line[:0], w.text)
	if to := r.Groups[string(w.line)]; to != nil {
		s.route, s.group = to, to.Group
		return true
	}
	addr, err := parseTarget(string(w.text))
	if err != nil {
		w.complain(s, err.Error())
		return false
	}
	s.group = upstream.Lone(addr)
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
