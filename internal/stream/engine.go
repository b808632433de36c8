package stream

import (
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"

	"smtplb/internal/reactor"
	"smtplb/internal/script"
	"smtplb/listener"
)

// Options are what an Engine is made of.
type Options struct {
	Workers     int // event loops; at least 1
	Pipes       int // pipes that all workers together may hold
	PipeBytes   int // how much each should hold; 0: what the kernel gives
	MaxSessions int // sessions at once; more wait in the kernel's backlog
	Logger      *zap.Logger
}

// Engine is the data plane of a process.
type Engine struct {
	workers  []*worker
	log      *zap.Logger
	sessions atomic.Int64 // accepted and not gone
	limit    atomic.Int64
	running  sync.WaitGroup

	sessionLog *Log // of the routes that have none

	drained atomic.Pointer[chan struct{}] // closed by whoever ends the last session

	pauses, refusals limiter
	numbers          atomic.Uint64 // of clients

	// Set by tests before the first port is opened.
	onEvent func(*session)
}

// worker is one loop and its sessions. All fields but load are owned by the
// loop's goroutine.
type worker struct {
	engine   *Engine
	index    int // in the engine's workers
	loop     *reactor.Loop
	log      *zap.Logger
	sessions reactor.Slab[session]
	ports    reactor.Slab[portSlot]
	paused   bool // accepting; see pauseAccept
	stats    Stats

	buf             []byte // what is read is written or held before the next read
	key             []byte // of the session that asks for a server; see next
	text            []byte // a value, while it is looked at
	line            []byte // of the access log
	from, to, local reactor.Sockaddr
	calls           calls
	doubtAfter      int64 // ms

	vars    script.Session // of whatever session is evaluated; see variables
	records []*record      // not borrowed
	kept    []*script.Session

	_    [64]byte // load is read by all workers
	load atomic.Int32
}

// calls are the kernel calls that tests replace by failing ones.
type calls struct {
	splice func(from, to, n int) (int, syscall.Errno)
	accept func(from *reactor.Sockaddr, listener int) (fd int, errno syscall.Errno)
	socket func(to *reactor.Sockaddr) (fd int, errno syscall.Errno)
}

const (
	kindPort = reactor.KindUser + iota
	kindClient
	kindServer
)

// Stats counts what an Engine has done since its start.
type Stats struct {
	Ended    uint64 // sessions
	Attempts uint64 // connects to servers
	Spliced  uint64 // bytes relayed without being copied
	Copied   uint64 // bytes relayed through user space
	Refused  uint64 // halves for which the kernel refused splice
}

func (s *Stats) add(o Stats) {
	s.Ended += o.Ended
	s.Attempts += o.Attempts
	s.Spliced += o.Spliced
	s.Copied += o.Copied
	s.Refused += o.Refused
}

// New opens an engine's loops and starts them. Stop ends it.
func New(o Options) (*Engine, error) {
	e := &Engine{log: o.Logger, sessionLog: NewLog(o.Logger)}
	e.limit.Store(int64(o.MaxSessions))
	for i := range o.Workers {
		w := &worker{engine: e, index: i, log: o.Logger, buf: make([]byte, 16<<10), doubtAfter: doubtAfter}
		w.calls = calls{splice: reactor.Splice, accept: (*reactor.Sockaddr).Accept, socket: (*reactor.Sockaddr).Socket}
		loop, err := reactor.NewLoop(w)
		if err != nil {
			e.Stop()
			return nil, err
		}
		w.loop = loop
		w.loop.Pipes.Limit = max(1, o.Pipes/o.Workers)
		w.loop.Pipes.Size = o.PipeBytes
		e.workers = append(e.workers, w)
		e.running.Add(1)
		go w.run()
	}
	return e, nil
}

func (w *worker) run() {
	defer w.engine.running.Done()
	w.loop.Run()
}

// Stop ends the loops. Sessions that are still there are cut by the exit of
// the process: End them first.
func (e *Engine) Stop() {
	for _, w := range e.workers {
		w.loop.Stop()
	}
	e.running.Wait()
}

// Ready implements reactor.Handler.
func (w *worker) Ready(t reactor.Token, events uint32) {
	if t.Kind() == kindPort {
		if slot := w.ports.Lookup(t); slot != nil && !w.paused {
			w.accept(slot.port)
		}
		return
	}
	s := w.sessions.Lookup(t)
	if s == nil || t.Kind() == kindServer && t.Attempt() != s.attempt {
		return // of a descriptor that has been closed
	}
	w.event(s, t.Kind(), events)
}

// Expired implements reactor.Handler.
func (w *worker) Expired(index uint32) {
	if s := w.sessions.At(index); s != nil {
		w.expired(s)
	}
}

// seconds is the clock of package upstream.
func (w *worker) seconds() int64 { return w.loop.Now() / 1000 }

// Seconds is the clock by which the engine's groups measure failures.
func (e *Engine) Seconds() int64 { return reactor.Clock() / 1000 }

// join and leave count a session of a worker, from accept to the last close.
func (w *worker) join() {
	w.load.Add(1)
	w.engine.sessions.Add(1)
}

func (w *worker) leave() {
	w.load.Add(-1)
	if w.engine.sessions.Add(-1) == 0 {
		if c := w.engine.drained.Swap(nil); c != nil {
			close(*c)
		}
	}
}

func (e *Engine) full() bool { return e.sessions.Load() >= e.limit.Load() }

// refusals is how many clients above the session limit may be on their way out
// with a reply. Their descriptors come from what every process keeps in reserve.
const refusals = 24

// crowded reports that not even a refusal has room.
func (e *Engine) crowded() bool { return e.sessions.Load() >= e.limit.Load()+refusals }

// Sessions returns how many sessions there are, lingering ones included.
func (e *Engine) Sessions() int { return int(e.sessions.Load()) }

// SetMaxSessions changes the session limit. Sessions above it stay.
func (e *Engine) SetMaxSessions(n int) { e.limit.Store(int64(n)) }

// Open starts accepting clients from a port.
func (e *Engine) Open(p *Port) {
	for _, w := range e.workers {
		w.loop.Post(func() { w.listen(p) })
	}
}

// Yield closes a socket that has taken clients from a port without being asked
// to: those are served as the port's. The channel is closed after that.
func (e *Engine) Yield(s *listener.Socket, to *Port) <-chan struct{} {
	p := NewPort(s, to.routes.Load())
	e.Open(p)
	return e.Close(p)
}

// refuseGrace is how long, in ms, handshakes under way have to finish before a
// port is closed. New ones are refused meanwhile.
const refuseGrace = 100

// Close stops accepting from a port: no new handshake starts, those under way
// and what waits in the backlog are served, and then the socket is closed. The
// channel is closed after that.
func (e *Engine) Close(p *Port) <-chan struct{} {
	if err := p.socket.Refuse(); err != nil {
		e.log.Warn("cannot refuse new handshakes while the listener drains", zap.String("listen", p.name), zap.Error(err))
	}
	e.workers[0].loop.Post(func() {
		e.workers[0].loop.After(refuseGrace, func() { e.withdraw(p) })
	})
	return p.closed
}

// withdraw stops every worker from watching a port; the last drains it.
func (e *Engine) withdraw(p *Port) {
	left := new(atomic.Int32)
	left.Store(int32(len(e.workers)))
	for _, w := range e.workers {
		w.loop.Post(func() {
			w.unlisten(p)
			if left.Add(-1) == 0 {
				w.drainPort(p)
			}
		})
	}
}

// Stats adds up what all workers have counted.
func (e *Engine) Stats() Stats {
	var sum Stats
	e.ask(func(w *worker) { sum.add(w.stats) })
	return sum
}

// ask runs f on every worker, one after the other, and waits.
func (e *Engine) ask(f func(*worker)) {
	for _, w := range e.workers {
		done := make(chan struct{})
		w.loop.Post(func() {
			defer close(done)
			f(w)
		})
		<-done
	}
}

// limiter allows one event a second and counts the others. The zero value is
// ready; any goroutine may use it.
type limiter struct {
	last    atomic.Int64 // second of the latest that was allowed
	skipped atomic.Int64 // since then
}

// allow reports whether this event is allowed, and then how many were not since
// the one before.
func (l *limiter) allow() (ok bool, skipped int64) {
	now := reactor.Clock() / 1000 // at least 1
	last := l.last.Load()
	if now > last && l.last.CompareAndSwap(last, now) {
		return true, l.skipped.Swap(0)
	}
	l.skipped.Add(1)
	return false, 0
}
