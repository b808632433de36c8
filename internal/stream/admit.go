package stream

import (
	"bytes"

	"github.com/valyala/bytebufferpool"

	"smtplb/internal/smtp"
)

// start admits a client that is known by now, in the order of nginx's phases,
// and asks for a server for it.
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
	}
	s.group = r.Group
	if r.Pass != nil && !w.pass(s) {
		w.dismiss(s, ReplyUnavailable, causeNoGroup)
		return
	}
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
	if r.keeps() {
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
	if len(r.Sets) > 0 || r.KeyValue.Remembers() || r.Pass.Remembers() || r.Return.Remembers() {
		return true
	}
	for i := range r.Limits {
		if r.Limits[i].Key.Remembers() {
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

// pass finds the session's group by name, as nginx looks for one before it
// resolves the name. It reports whether there is one.
func (w *worker) pass(s *session) bool {
	v := w.variables(s)
	w.text = s.route.Pass.Append(w.text[:0], v)
	for i, c := range w.text {
		if 'A' <= c && c <= 'Z' {
			w.text[i] = c | 0x20
		}
	}
	if s.group = s.route.Groups[string(w.text)]; s.group != nil {
		return true
	}
	if host, _, ok := bytes.Cut(w.text, []byte{':'}); ok {
		w.complain(s, "no resolver defined to resolve "+smtp.Printable(host, smtp.LogLimit))
	} else {
		w.complain(s, `no port in upstream "`+smtp.Printable(host, smtp.LogLimit)+`"`)
	}
	return false
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
