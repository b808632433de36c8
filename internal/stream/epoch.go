package stream

import "sync/atomic"

// Epoch is the time of one configuration. It begins with the routes that carry
// it, and is over when no session is left that took one of them: what only
// these could use may go then. An old worker process of nginx has the same life.
//
// Each worker counts its own sessions, so that nothing is shared while an epoch
// lasts.
type Epoch struct {
	engine   *Engine
	sessions []tally      // by worker
	left     atomic.Int32 // workers that have sessions, or may get some yet
	over     chan struct{}
}

// tally is an epoch's sessions of one worker, and owned by its loop's goroutine.
type tally struct {
	n     int
	ended bool // no route of the epoch is given out any more

	_ [48]byte // no two workers write to one cache line
}

// NewEpoch returns an epoch for the routes of a configuration.
func (e *Engine) NewEpoch() *Epoch {
	epoch := &Epoch{engine: e, sessions: make([]tally, len(e.workers)), over: make(chan struct{})}
	epoch.left.Store(int32(len(e.workers)))
	return epoch
}

// End is called once, when every port with a route of the epoch has another one
// or is closed. The channel that it returns is closed when the epoch is over;
// never, if the engine stops before.
func (e *Epoch) End() <-chan struct{} {
	for i, w := range e.engine.workers {
		// Posts run in order: what a port has handed to the worker so far is a
		// session by then, and what comes later finds the port's new route.
		w.loop.Post(func() {
			e.sessions[i].ended = true
			e.check(&e.sessions[i])
		})
	}
	return e.over
}

// join and leave count a session on its worker, as long as it has its route. A
// route without an epoch is one that nobody takes away.
func (e *Epoch) join(w *worker) {
	if e != nil {
		e.sessions[w.index].n++
	}
}

func (e *Epoch) leave(w *worker) {
	if e != nil {
		t := &e.sessions[w.index]
		t.n--
		e.check(t)
	}
}

func (e *Epoch) check(t *tally) {
	if t.ended && t.n == 0 && e.left.Add(-1) == 0 {
		close(e.over)
	}
}
