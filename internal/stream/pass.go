package stream

import (
	"path/filepath"

	"smtplb/internal/script"
	"smtplb/internal/smtp"
	"smtplb/listener"
)

// Pass is the port that a route hands its sessions to, in place of a server.
type Pass struct {
	Addr listener.Addr
	Text *script.Value // becomes an address, in place of Addr; nil: Addr is the one
	// Targets are the listening addresses of the same configuration. So a session
	// that began before a reload goes on as it would have then.
	Targets map[listener.Addr]Target
}

// Target is where clients of a listening address go.
type Target struct {
	Port   *Port // whose socket has them; perhaps closed meanwhile
	Routes *Routes
}

// find returns the target that has an address as its own, or takes connections to
// it as to any of its family (ngx_stream_pass_match).
func (p *Pass) find(to listener.Addr) (t Target, found bool) {
	if t, found = p.Targets[to]; !found {
		t, found = p.Targets[to.Wildcard()]
	}
	return t, found
}

// MaxPasses is how often one client may be handed on, as in nginx
// (NGX_STREAM_PASS_MAX_PASSES): ports may pass to each other.
const MaxPasses = 10

// pass hands an admitted session to the port that its route names, as if the
// client, as it is known by now, had connected there (ngx_stream_pass_handler).
func (w *worker) pass(s *session) {
	s.state = statePassing
	p := s.route.Pass
	to := p.Addr
	if p.Text != nil {
		w.text = p.Text.Append(w.text[:0], w.variables(s))
		var wrong string
		if to, wrong = parsePassed(string(w.text)); wrong != "" {
			w.complain(s, wrong+" in pass "+inQuotes(smtp.Printable(w.text, smtp.LogLimit)))
			w.dismiss(s, ReplyUnavailable, causeBadPass)
			return
		}
	}
	if s.passes++; s.passes > MaxPasses {
		w.complain(s, "stream pass cycle")
		w.dismiss(s, ReplyUnavailable, causeBadPass)
		return
	}
	target, found := p.find(to)
	if !found {
		w.complain(s, "port not found for "+inQuotes(smtp.Printable([]byte(to.String()), smtp.LogLimit)))
		w.dismiss(s, ReplyUnavailable, causeNoPort)
		return
	}
	w.move(s, target, to)
	w.welcome(s)
}

// move makes a session one of another port, which begins now. It keeps what it is
// counted by, until its end, as in nginx, and forgets the values of variables.
func (w *worker) move(s *session, t Target, to listener.Addr) {
	had := s.route.NoDelay
	s.port = t.Port
	w.choose(s, t.Routes, to.TCP.Addr())
	s.setNoDelay(had)
	s.started = w.loop.Now()
	if s.record == nil {
		w.borrowRecord(s)
	} else {
		w.forget(s)
	}
	if s.record != nil && to.Path == "" && !to.TCP.Addr().IsUnspecified() {
		s.record.passedTo = to.TCP
	}
	s.route.journal().began(w, s)
}

// parsePassed reads the address of a listening socket. What is wrong with it is
// said in nginx's words.
func parsePassed(text string) (to listener.Addr, wrong string) {
	a, wrong := parseAddress(text)
	switch {
	case wrong != "":
		return to, wrong
	case a.name != "":
		return to, "no addresses"
	case a.noPort:
		return to, "no port"
	case a.addr.Path != "":
		a.addr.Path = filepath.Clean(a.addr.Path)
	}
	return listener.Addr(a.addr), ""
}
