package server

import (
	"os"
	"time"

	"go.uber.org/zap"
)

const (
	// logWait is how long the access logs may take to be written to the end.
	logWait = 2 * time.Second
	// halfCloseWait is how long, after worker_shutdown_timeout, servers have to
	// answer what they were sent before.
	halfCloseWait = 30 * time.Second
	// lingerWait is longer than the data plane lingers on any session.
	lingerWait = 6 * time.Second
	// closeWait is longer than listeners need to close when there is room for
	// the sessions that wait on them.
	closeWait = 2 * time.Second
)

// Quit stops gracefully: nothing new is accepted, and sessions end by
// themselves within limit (0: whenever that is). Those that have not are then
// cut where nothing is under way, and half-closed where an answer may be.
// A receive from hurry turns Quit into a Stop with the given limit.
func (s *Server) Quit(limit, stopLimit time.Duration, hurry <-chan os.Signal) {
	s.closePorts()
	s.log.Info("graceful stop, waiting for sessions", zap.Int("sessions", s.engine.Sessions()), within(limit))
	done, hurried := s.wait(limit, hurry)
	if hurried {
		s.Stop(stopLimit, hurry)
		return
	}
	if !done {
		cut := s.engine.CutIdle()
		s.log.Warn("worker_shutdown_timeout has passed, sessions cut",
			zap.Int("ended", cut.Idle), zap.Int("half_closed", cut.InGap), zap.Duration("last_answers_within", halfCloseWait))
		s.wait(halfCloseWait, hurry)
	}
	s.end()
}

// within is the limit of a stop, for the log.
func within(limit time.Duration) zap.Field {
	if limit == 0 {
		return zap.String("limit", "none")
	}
	return zap.Duration("limit", limit)
}

// Stop stops fast: nothing new is accepted, clients are not read any more,
// servers are told so and have limit to answer what they were sent. A receive
// from hurry skips the wait.
func (s *Server) Stop(limit time.Duration, hurry <-chan os.Signal) {
	s.closePorts()
	cut := s.engine.HalfClose()
	s.log.Info("fast stop", zap.Int("ended", cut.Idle), zap.Int("half_closed", cut.InGap), within(limit))
	s.wait(limit, hurry)
	s.end()
}

// end ends what is left, lets it linger, and stops the loops.
func (s *Server) end() {
	if n := s.engine.End(); n > 0 {
		s.log.Warn("sessions ended by the stop", zap.Int("sessions", n))
	}
	s.wait(lingerWait, nil)
	st := s.engine.Stats()
	close(s.stopped)
	s.retiring.Wait()
	s.engine.Stop()
	if err := s.logs.Close(logWait); err != nil {
		s.log.Warn("access logs not written to the end", zap.Error(err))
	}
	s.log.Info("stopped",
		zap.Uint64("sessions_served", st.Ended), zap.Uint64("connects", st.Attempts),
		zap.Uint64("bytes_spliced", st.Spliced), zap.Uint64("bytes_copied", st.Copied), zap.Uint64("splice_refused", st.Refused))
}

// closePorts drains and closes all listeners; again, it does nothing. A backlog
// that finds no room (the session limit) is served when there is; nobody waits
// for that here.
func (s *Server) closePorts() {
	s.checker.Stop()
	s.unreport()
	var closing []<-chan struct{}
	for _, live := range s.ports {
		closing = append(closing, s.engine.Close(live.port))
	}
	s.ports = nil
	bound := time.NewTimer(closeWait)
	defer bound.Stop()
	for _, closed := range closing {
		select {
		case <-closed:
		case <-bound.C:
			return
		}
	}
}

// wait waits until there is no session, for limit at most (0: no bound).
func (s *Server) wait(limit time.Duration, hurry <-chan os.Signal) (done, hurried bool) {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-s.engine.Drained():
		return true, false
	case <-expired:
		return false, false
	case <-hurry:
		return false, true
	}
}
