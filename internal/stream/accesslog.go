package stream

import (
	"smtplb/internal/accesslog"
	"smtplb/internal/script"
)

// AccessLog is an access_log of a route: one line for each session, when it
// ends.
type AccessLog struct {
	// Log stays open for as long as a session has the route.
	Log    *accesslog.Log
	Format *script.Format
	If     *script.Value // nil: always; otherwise not if it is empty or 0
	Path   *script.Value // nil: what Log has
}

// logAccess writes the lines of a session that has just ended.
func (w *worker) logAccess(s *session) {
	if len(s.route.AccessLogs) == 0 {
		return
	}
	v := w.variables(s)
	for i := range s.route.AccessLogs {
		a := &s.route.AccessLogs[i]
		if a.If != nil {
			w.text = a.If.Append(w.text[:0], v)
			if len(w.text) == 0 || string(w.text) == "0" {
				continue
			}
		}
		w.line = a.Format.Append(w.line[:0], v)
		if a.Path == nil {
			a.Log.Write(w.line)
			continue
		}
		w.text = a.Path.Append(w.text[:0], v)
		a.Log.WriteTo(w.text, w.line)
	}
}
