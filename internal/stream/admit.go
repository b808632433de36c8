package stream

import (
	"bytes"

	"github.com/valyala/bytebufferpool"

	"smtplb/internal/smtp"
)

// start admits a client that is known by now, in the order of nginx's phases,
// and asks for a server for it, or hands it to another port.
func (w *worker) start(s *session) {
	s.state = stateAdmission
	r := s.route
	switch {
	case s.record != nil && !w.preaccess(s):
		w.dismiss(s, ReplyTooMany, causeTooMany)
		return
	case r.denies(s.from.Addr()):
		w.dismiss(s, ReplyDenied, causeDenied)
		return
	case r.Return != nil:
		w.answer(s)
		return
	case r.Pass != nil:
		w.pass(s)
		return
	}
	s.group = r.Group
	if r.ProxyPass != nil && !w.chooseGroup(s) {
		w.dismiss(s, ReplyUnavailable, causeNoGroup)
		return
	}
	r = s.route
	s.up.pace.begin(r.UploadRate, w.loop.Now())
	s.down.pace.begin(r.DownloadRate, w.loop.Now())
	s.group.Begin(&s.turn)
	s.turn.Limit(r.Tries)
	if r.clientVisible() {
		s.turn.Client = s.from.Addr()
	}
	w.connect(s)
}

// preaccess runs the route's assignments and limits. It reports whether the
// session is within the limits.
func (w *worker) preaccess(s *session) bool {
	r := s.route
	if r.kept {
		w.keep(s)
	}
	if len(r.Sets) == 0 && len(r.Limits) == 0 {
		return true
	}
	v := w.variables(s)
	for _, a := range r.Sets {
		a.Run(v)
	}
	return w.withinLimits(s, v)
}

// keeps reports whether what is evaluated at a session's start may leave values
// that hold until its end.
func (r *Route) keeps() bool {
	if len(r.Sets) > 0 || r.KeyValue.Remembers() || r.ProxyPass.Remembers() || r.Return.Remembers() {
		return true
	}
	if r.Pass != nil && r.Pass.Text.Remembers() {
		return true
	}
	for i := range r.Limits {
		if r.Limits[i].Key.Remembers() {
			return true
		}
	}
	for _, to := range r.Groups {
		if to.KeyValue.Remembers() {
			return true
		}
	}
	return false
}

// answer sends the text of return, without a server: as if one had said it and
// closed.
func (w *worker) answer(s *session) {
	text := bytebufferpool.Get()
	text.B = s.route.Return.Append(text.B, w.variables(s))
	s.cause = causeReturned
	s.up.eof, s.up.done = true, true
	s.down.eof = true
	if s.down.held = text; text.Len() == 0 {
		s.down.release()
	}
	w.enter(s, stateRelaying)
	w.relay(s)
}

// chooseGroup takes the session to the route of the group that ProxyPass names.
// It reports whether there is one; names and addresses that are no group's are
// for a resolver.
func (w *worker) chooseGroup(s *session) bool {
	r := s.route
	w.text = r.ProxyPass.Append(w.text[:0], w.variables(s))
	w.line = appendLower(w.line[:0], w.text)
	if to := r.Groups[string(w.line)]; to != nil {
		s.route, s.group = to, to.Group
		return true
	}
	s.group = nil
	host, _, port := bytes.Cut(w.text, []byte{':'})
	if name := smtp.Printable(host, smtp.LogLimit); port {
		w.complain(s, "no resolver defined to resolve "+name)
	} else {
		w.complain(s, `no port in upstream "`+name+`"`)
	}
	return false
}

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

// dismiss ends the session of a client that gets no server. Where there is no
// reply for it, it is closed at once: a reset destroys nothing of ours.
func (w *worker) dismiss(s *session, r Reply, c cause) {
	if s.route.Gate == nil {
		s.cause = c
		w.account(s)
		w.hangUp(&s.client)
	}
	w.turnAway(s, r, c)
}
