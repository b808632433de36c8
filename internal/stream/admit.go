package stream

import (
	"github.com/valyala/bytebufferpool"

	"smtplb/internal/script"
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
	s.state = stateRouting
	if r.Bind.Value != nil {
		w.chooseSource(s)
	}
	if r.ProxyPass == nil {
		s.to = &r.Destination
	} else if !w.chooseGroup(s) {
		w.dismiss(s, ReplyUnavailable, causeNoGroup)
		return
	}
	s.up.pace.begin(r.UploadRate.Bytes, w.loop.Now())
	s.down.pace.begin(r.DownloadRate.Bytes, w.loop.Now())
	s.to.Group.Begin(&s.turn)
	s.turn.Limit(r.Tries)
	if s.clientVisible() {
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
	if len(r.Sets) > 0 || r.Pass != nil && r.Pass.Text.Remembers() {
		return true
	}
	for _, v := range [...]*script.Value{r.KeyValue, r.ProxyPass, r.Return, r.Bind.Value, r.UploadRate.Value, r.DownloadRate.Value} {
		if v.Remembers() {
			return true
		}
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
