package server

import (
	"maps"
	"slices"

	"smtplb/internal/stream"
)

// tenure is what one configuration holds for its sessions. It outlasts the
// reload that replaces the configuration: until the last of them has gone.
type tenure struct {
	epoch *stream.Epoch // nil: before the first configuration
	logs  []releaser
}

// succeed makes next the present tenure and retires the one before, whose last
// sessions may still wait in the backlogs of ports that are closing.
func (s *Server) succeed(next tenure) {
	old, closing := s.present, slices.Collect(maps.Keys(s.closing))
	if s.present = next; old.epoch != nil {
		s.retiring.Go(func() { s.retire(old, closing) })
	}
}

// retire ends a tenure: when its ports are closed, no session can join its epoch
// any more, and when that is over, nobody uses what it holds. A stop does not
// wait for that; it closes all logs.
func (s *Server) retire(t tenure, closing []<-chan struct{}) {
	for _, closed := range closing {
		if !s.await(closed) {
			return
		}
	}
	if s.await(t.epoch.End()) {
		release(t.logs)
	}
}

// await reports whether c is closed before the server has stopped.
func (s *Server) await(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-s.stopped:
		return false
	}
}

// releaser is a log of a set, of either kind.
type releaser interface{ Release() }

// release gives logs back to their sets.
func release(logs []releaser) {
	for _, l := range logs {
		l.Release()
	}
}
