package healthcheck

import (
	"context"
	"sync"
	"time"
)

const (
	tick = 250 * time.Millisecond
	// stall is the gap between two ticks above which the process did not run:
	// it was stopped, or got no processor.
	stall = time.Second
)

// stalls knows when the process did not run. What a probe then took for a
// silent server may have been our own silence.
type stalls struct {
	mu   sync.Mutex // protects below
	last time.Time  // of the last tick
	end  time.Time  // of the last stall; zero if there was none
}

// watch ticks until ctx is done, on a goroutine of its own.
func (s *stalls) watch(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.tick(time.Now()) // the channel's time may be from before the stall
		}
	}
}

func (s *stalls) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) > stall {
		s.end = now
	}
	s.last = now
}

// between reports whether there was a stall after start. It may have ended just
// now, with no tick since.
func (s *stalls) between(start, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end.After(start) || !s.last.IsZero() && now.Sub(s.last) > stall
}
