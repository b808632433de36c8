package stream

import (
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
)

const (
	// pause is for how long, in ms, nothing is accepted after the kernel or the
	// session limit said that there is no room.
	pause = 100
	// slack is how many sessions more than the least loaded worker one may have
	// before it hands new ones over, plus a sixteenth of its own.
	slack = 4
)

// listen starts accepting from a port on this worker.
func (w *worker) listen(p *Port) {
	slot, index, generation := w.ports.Get()
	*slot = portSlot{port: p, token: reactor.MakeToken(kindPort, index, generation, 0)}
	if !w.paused {
		w.watch(slot)
	}
}

func (w *worker) watch(slot *portSlot) {
	if e := w.loop.Add(slot.port.socket.FD(), slot.token, reactor.Listener); e != 0 {
		w.log.Error("register listener", zap.String("listen", slot.port.name), zap.Error(e))
	}
}

// unlisten stops accepting from a port on this worker.
func (w *worker) unlisten(p *Port) {
	w.ports.Each(func(index uint32, slot *portSlot) {
		if slot.port == p {
			if !w.paused {
				_ = w.loop.Remove(p.socket.FD())
			}
			w.ports.Put(index)
		}
	})
}

// accept takes one client from a port; the listener is level-triggered and
// reports again if there are more. It reports whether to ask again.
func (w *worker) accept(p *Port) (more bool) {
	full := w.engine.full()
	if full && !w.hasRoom(p) {
		w.pauseAccept("session limit reached: raise worker_rlimit_nofile or add balancers", 0)
		return false
	}
	fd, errno := w.calls.accept(&w.from, p.socket.FD())
	switch errno {
	case 0:
	case eagain:
		return false
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		w.pauseAccept("no descriptors or memory left: is worker_rlimit_nofile what the process has?", errno)
		return false
	case unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENONET,
		unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH:
		// The connection died in the queue (accept(2) lists what TCP passes on):
		// there may be another behind it.
		return true
	default:
		w.pauseAccept("accept failed", errno)
		return false
	}
	from := w.from.TCP()
	if full {
		w.join()
		w.refuse(p, fd, from)
		return true
	}
	target := w.place()
	target.join()
	if target == w {
		w.open(p, fd, from)
	} else {
		target.loop.Post(func() { target.open(p, fd, from) })
	}
	return true
}

// hasRoom reports whether a client of the port can be taken now: for a session,
// or where all have a gate, to be told that there is none.
func (w *worker) hasRoom(p *Port) bool {
	return !w.engine.full() || p.routes.Load().gated && !w.engine.crowded()
}

// place chooses the worker for a new session: this one, unless it holds clearly
// more sessions than the least loaded.
func (w *worker) place() *worker {
	own := w.load.Load()
	least, low := w, own
	for _, other := range w.engine.workers {
		if n := other.load.Load(); n < low {
			least, low = other, n
		}
	}
	if own > low+slack+low/16 {
		return least
	}
	return w
}

// pauseAccept leaves all listeners alone for a while. A listener is
// level-triggered and would otherwise report for ever what cannot be accepted.
func (w *worker) pauseAccept(why string, errno syscall.Errno) {
	if ok, _ := w.engine.pauses.allow(); ok {
		fields := []zap.Field{zap.String("reason", why), zap.Int("sessions", w.engine.Sessions()), zap.Int64("limit", w.engine.limit.Load())}
		if errno != 0 {
			fields = append(fields, zap.Error(errno))
		}
		w.log.Error("accepting paused; clients wait in the backlog", fields...)
	}
	if w.paused {
		return
	}
	w.paused = true
	w.ports.Each(func(_ uint32, slot *portSlot) { _ = w.loop.Remove(slot.port.socket.FD()) })
	w.loop.After(pause, w.resumeAccept)
}

func (w *worker) resumeAccept() {
	room := false
	w.ports.Each(func(_ uint32, slot *portSlot) { room = room || w.hasRoom(slot.port) })
	if !room && w.ports.Len() > 0 {
		w.loop.After(pause, w.resumeAccept)
		return
	}
	w.paused = false
	w.ports.Each(func(_ uint32, slot *portSlot) { w.watch(slot) })
}

// drainPort serves what the kernel has already accepted for a port that no
// worker watches any more, and closes it.
func (w *worker) drainPort(p *Port) {
	for w.accept(p) {
	}
	// The queue is empty, unless there was no room for a session just now.
	if w.paused {
		w.loop.After(pause, func() { w.drainPort(p) })
		return
	}
	if err := p.socket.Close(); err != nil {
		w.log.Warn("close listener", zap.String("listen", p.name), zap.Error(err))
	}
	close(p.closed)
}

// portSlot is a port as one worker watches it.
type portSlot struct {
	port  *Port
	token reactor.Token
}
