package stream

import (
	"go.uber.org/zap/zapcore"

	"smtplb/internal/script"
)

// Limit bounds how many sessions with the same key there are at once.
type Limit struct {
	Zone *Zone
	Key  *script.Value
	N    int // at least 1
}

// longestKey is nginx's, in bytes.
const longestKey = 255

// withinLimits counts the session in the zones of its route's limits, and
// reports whether it may go on: ngx_stream_limit_conn_handler. The first limit
// that is reached decides, and a session that is turned away, or would be, is
// counted by none of them; a port that has passed it on goes on counting it.
func (w *worker) withinLimits(s *session, v *script.Session) bool {
	r := s.record
	before := len(r.claims)
	for i := range s.route.Limits {
		l := &s.route.Limits[i]
		w.text = l.Key.Append(w.text[:0], v)
		switch {
		case len(w.text) == 0:
			continue
		case len(w.text) > longestKey:
			w.complain(s, `the key for zone "`+l.Zone.name+`" is more than 255 bytes, session not counted`)
			continue
		}
		c, full := l.Zone.claim(w.text, l.N)
		if c != nil {
			r.claims = append(r.claims, c)
			r.limited = script.LimitPassed
			continue
		}
		r.unclaim(before)
		w.limitReached(s, l.Zone, full)
		if s.route.LimitDryRun {
			r.limited = script.LimitRejectedDryRun
			return true
		}
		r.limited = script.LimitRejected
		return false
	}
	return true
}

func (w *worker) limitReached(s *session, z *Zone, full bool) {
	level, what := s.route.LimitLogLevel, "limiting connections"
	if s.route.LimitDryRun {
		what += ", dry run,"
	}
	what += " by zone "
	if full {
		level, what = zapcore.ErrorLevel, "no memory in limit_conn_zone "
	}
	s.route.journal().complain(w, s, level, what+`"`+z.name+`"`)
}

// unclaim ends the claims of a session, but for the first few.
func (r *record) unclaim(keep int) {
	for i, c := range r.claims[keep:] {
		r.claims[keep+i] = nil
		c.release()
	}
	r.claims = r.claims[:keep]
}
