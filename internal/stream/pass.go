package stream

import (
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/script"
	"smtplb/internal/smtp"
	"smtplb/listener"
)

// Pass is the port that a route hands its sessions to, in place of a server.
type Pass struct {
	Addr listener.Addr
	Text *script.Value // becomes an address, in place of Addr; nil: Addr is the one
	// Ports are those of the same configuration, by their addresses. A session that
	// began before a reload finds them as they were; see Port.
	Ports map[listener.Addr]*Port
}

// find returns the port that has an address as its own, or takes connections to
// it as to any of its family; nil: none (ngx_stream_pass_match).
func (p *Pass) find(to listener.Addr) *Port {
	if port := p.Ports[to]; port != nil {
		return port
	}
	return p.Ports[to.Wildcard()]
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
			w.complain(s, wrong+` in pass "`+smtp.Printable(w.text, smtp.LogLimit)+`"`)
			w.dismiss(s, ReplyUnavailable, causeBadPass)
			return
		}
	}
	if s.passes++; s.passes > MaxPasses {
		w.complain(s, "stream pass cycle")
		w.dismiss(s, ReplyUnavailable, causeBadPass)
		return
	}
	port := p.find(to)
	if port == nil {
		w.complain(s, `port not found for "`+to.String()+`"`)
		w.dismiss(s, ReplyUnavailable, causeNoPort)
		return
	}
	w.move(s, port, to)
	w.welcome(s)
}

// move makes a session one of another port, which begins now. It keeps what it is
// counted by, until its end, as in nginx, and forgets the values of variables.
func (w *worker) move(s *session, p *Port, to listener.Addr) {
	before := s.route
	s.port, s.route = p, p.route.Load()
	s.started = w.loop.Now()
	if s.route.NoDelay && !before.NoDelay && s.from.IsValid() {
		_ = reactor.SetInt(int(s.client.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // of a client that is gone: it shows soon
	}
	if s.record != nil {
		w.forget(s)
		if s.route.Scope == nil { // the port's route is of a later configuration
			s.record.unclaim()
			w.returnRecord(s)
		}
	} else {
		w.borrowRecord(s)
	}
	if s.record != nil && to.Path == "" && !to.TCP.Addr().IsUnspecified() {
		s.record.passedTo = to.TCP
	}
	s.route.journal().began(w, s)
}

// parsePassed reads an address as ngx_parse_url does where no name may be looked
// up. What is wrong with it is said in nginx's words.
func parsePassed(text string) (to listener.Addr, wrong string) {
	const scheme = "unix:"
	if len(text) >= len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) {
		if text = text[len(scheme):]; text == "" {
			return to, "no path in the unix domain socket"
		}
		return listener.Addr{Path: filepath.Clean(text)}, ""
	}
	if a, err := netip.ParseAddrPort(text); err == nil && a.Port() > 0 {
		return listener.Addr{TCP: a}, ""
	}
	isAddr := func(text string) bool {
		_, err := netip.ParseAddr(strings.Trim(text, "[]"))
		return err == nil
	}
	switch {
	case text == "":
		return to, "no host"
	case isAddr(text):
		return to, "no port"
	case isAddr(text[:max(strings.LastIndexByte(text, ':'), 0)]):
		return to, "invalid port"
	}
	return to, "no addresses"
}
