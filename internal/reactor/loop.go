package reactor

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Readiness of a descriptor, as epoll reports it.
const (
	Readable = unix.EPOLLIN
	Writable = unix.EPOLLOUT
	Urgent   = unix.EPOLLPRI
	PeerShut = unix.EPOLLRDHUP // the peer sent its end of stream: read until 0
	Hup      = unix.EPOLLHUP
	Error    = unix.EPOLLERR

	// Stream is what a connected socket is registered for, once and for its
	// life, edge-triggered.
	Stream = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	// Listener is what a listening socket is registered for in every loop that
	// shares it: level-triggered, and the kernel wakes one of them.
	Listener = unix.EPOLLIN | unix.EPOLLEXCLUSIVE
)

// Handler is told what happens on a Loop, on the loop's goroutine.
type Handler interface {
	// Ready reports events on the descriptor registered under t. The slot may
	// have been freed since: look it up.
	Ready(t Token, events uint32)
	// Expired reports that the timer of a slot fired.
	Expired(index uint32)
}

const batch = 512 // events taken from the kernel at once

// Loop is an epoll instance, its timers and its mailbox.
type Loop struct {
	// Timers belongs to the embedder's slots; see Handler.Expired.
	Timers Wheel
	// Pipes are lent for splicing.
	Pipes Pipes

	handler Handler
	epfd    int
	wakefd  int
	events  []unix.EpollEvent

	// Owned by the loop's goroutine.
	now      int64 // ms
	ready    []Token
	again    []Token // spare of ready
	closing  []int
	laters   []later
	trimming bool

	mu   sync.Mutex // protects mail, and wakefd from being closed
	mail []func()

	asleep atomic.Bool // the loop may be in a blocking wait: a post must wake it
	stop   bool        // owned by the loop's goroutine
	done   chan struct{}
}

type later struct {
	at int64
	f  func()
}

// NewLoop opens the loop's descriptors. Its owner calls Run on a goroutine of
// its own and Stop to end it.
func NewLoop(h Handler) (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{
		handler: h,
		epfd:    epfd,
		wakefd:  wakefd,
		events:  make([]unix.EpollEvent, batch),
		done:    make(chan struct{}),
	}
	if e := l.Add(wakefd, MakeToken(kindWake, 0, 0, 0), unix.EPOLLIN|unix.EPOLLET); e != 0 {
		Close(epfd)
		Close(wakefd)
		return nil, os.NewSyscallError("epoll_ctl", e)
	}
	l.now = Clock()
	l.Timers.Advance(l.now, nil)
	return l, nil
}

// start is the origin of every loop's clock.
var start = time.Now()

// Clock returns the present time of every loop's clock: milliseconds of the
// monotonic clock. It starts above zero, so that 0 can mean "never".
func Clock() int64 { return time.Since(start).Milliseconds() + 1000 }

// Now returns the loop's clock in milliseconds, read once for each batch of
// events. All loops share its origin; it does not follow changes of the wall
// clock.
func (l *Loop) Now() int64 { return l.now }

// Add registers a descriptor under a token.
func (l *Loop) Add(fd int, t Token, events uint32) syscall.Errno {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(t)), Pad: int32(uint32(t >> 32))}
	return l.control(unix.EPOLL_CTL_ADD, fd, &ev)
}

// Move registers a descriptor, which is registered already, under another token.
// Events that are waiting are reported again.
func (l *Loop) Move(fd int, t Token, events uint32) syscall.Errno {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(t)), Pad: int32(uint32(t >> 32))}
	return l.control(unix.EPOLL_CTL_MOD, fd, &ev)
}

// Remove stops events of a descriptor that stays open. Closing a descriptor
// removes it, too.
func (l *Loop) Remove(fd int) syscall.Errno {
	return l.control(unix.EPOLL_CTL_DEL, fd, &unix.EpollEvent{})
}

func (l *Loop) control(op, fd int, ev *unix.EpollEvent) syscall.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return e
}

// CloseLater closes a descriptor at the end of the current batch, so that its
// number is not in use again while events of the batch may still carry it.
func (l *Loop) CloseLater(fd int) { l.closing = append(l.closing, fd) }

// Again delivers Ready(t, 0) once more after the events that are waiting: for a
// descriptor that has used up its share of a turn and has more to do.
func (l *Loop) Again(t Token) { l.ready = append(l.ready, t) }

// After calls f on the loop's goroutine in d milliseconds or a little later.
// It is for the few chores of a loop, not for sessions.
func (l *Loop) After(d int64, f func()) {
	l.laters = append(l.laters, later{at: l.now + d, f: f})
}

// Post runs f on the loop's goroutine after the events of the current batch.
// Any goroutine may call it. Posts run in order. After Stop they are dropped.
func (l *Loop) Post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock() // to the end: Run must not close what is being written to
	l.mail = append(l.mail, f)
	// A loop that is awake looks into its mailbox before it sleeps.
	if len(l.mail) == 1 && l.asleep.Load() {
		l.wake()
	}
}

func (l *Loop) wake() {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wakefd), uintptr(unsafe.Pointer(&one)), 8)
}

// Stop ends Run after the current batch and waits for it. Any goroutine but
// the loop's may call it, once.
func (l *Loop) Stop() {
	l.Post(func() { l.stop = true })
	<-l.done
}

// Run handles events until Stop. It closes the loop's own descriptors, not
// those that were registered.
func (l *Loop) Run() {
	defer close(l.done)
	for !l.stop {
		l.turn()
	}
	l.Pipes.Close()
	Close(l.epfd)
	l.mu.Lock()
	defer l.mu.Unlock()
	Close(l.wakefd)
}

// turn is one round: events, then those that want another go, then timers,
// then the mailbox; descriptors are closed last.
func (l *Loop) turn() {
	n := l.wait()
	l.now = Clock()
	l.report(n)
	if len(l.ready) > 0 {
		l.ready, l.again = l.again[:0], l.ready
		for _, t := range l.again {
			l.handler.Ready(t, 0)
		}
	}
	if l.Timers.Due(l.now) {
		l.catchUp()
	}
	l.Timers.Advance(l.now, l.handler.Expired)
	l.chores()
	l.readMail()
	for _, fd := range l.closing {
		Close(fd)
	}
	l.closing = l.closing[:0]
}

// report tells the handler of the n events taken from the kernel.
func (l *Loop) report(n int) {
	for i := range l.events[:n] {
		ev := &l.events[i]
		t := Token(uint32(ev.Fd)) | Token(uint32(ev.Pad))<<32
		if t.Kind() == kindWake {
			continue // edge-triggered: the counter need not be read
		}
		l.handler.Ready(t, ev.Events)
	}
}

// catchUp reports what has come before the clock was read. A loop that is not
// run for a while, since its process is stopped, its container throttled or the
// machine busy, finds every timer due and has none of the events of that time.
func (l *Loop) catchUp() {
	for range 1 + l.Timers.armed/batch {
		n := l.poll(0)
		l.report(n)
		if n < batch {
			return
		}
	}
}

// How a loop waits. A wait that goes through the Go scheduler costs little by
// itself, but when it lasts, the runtime's monitor thread takes the processor
// away, and after the next event it polls every 20 µs for a while: that was a
// third of the processor time of a loop relaying bulk, and a twentieth with
// short sessions. So a loop that has just been busy waits beside the scheduler
// for a few slices of time first. A slice is shorter than the 10 ms after which the
// monitor takes notice, and a collection that wants the world stopped ends it
// by its signal. GOMAXPROCS must be larger than the number of loops.
const (
	dozes   = 4
	sliceMs = 9
)

// wait takes events from the kernel.
func (l *Loop) wait() int {
	if len(l.ready) > 0 {
		return l.poll(0)
	}
	l.asleep.Store(true)
	n := l.doze()
	l.asleep.Store(false)
	return n
}

func (l *Loop) doze() int {
	for range dozes {
		if l.hasMail() {
			return l.poll(0)
		}
		limit := l.timeout()
		if limit < 0 || limit > sliceMs {
			if n := l.poll(sliceMs); n > 0 {
				return n
			}
			continue
		}
		return l.poll(limit)
	}
	if l.hasMail() {
		return l.poll(0)
	}
	n, err := unix.EpollWait(l.epfd, l.events, l.timeout())
	if err == unix.EINTR {
		return 0
	}
	if err != nil {
		panic(fmt.Sprintf("reactor: BUG: epoll_wait: %v", err))
	}
	return n
}

func (l *Loop) hasMail() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mail) > 0
}

// poll waits for ms milliseconds at most without telling the scheduler.
func (l *Loop) poll(ms int) int {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(unsafe.SliceData(l.events))), uintptr(len(l.events)), uintptr(ms), 0, 0)
	if e != 0 {
		return 0 // EINTR: the runtime wants this goroutine
	}
	return int(n)
}

// timeout is the time until the next timer or chore in ms; -1 for none.
func (l *Loop) timeout() int {
	at := l.Timers.Next()
	for i := range l.laters {
		if at < 0 || l.laters[i].at < at {
			at = l.laters[i].at
		}
	}
	if at < 0 {
		return -1
	}
	return int(max(0, at-Clock()) + 1)
}

func (l *Loop) chores() {
	for i := 0; i < len(l.laters); {
		if l.laters[i].at > l.now {
			i++
			continue
		}
		f := l.laters[i].f
		l.laters = append(l.laters[:i], l.laters[i+1:]...)
		f()
	}
	if !l.trimming && l.Pipes.Open() > 0 {
		l.trimming = true
		l.After(pipeIdle, l.trim)
	}
}

// pipeIdle is how long, in ms, a pipe is kept that nobody has borrowed.
const pipeIdle = 3000

func (l *Loop) trim() {
	l.trimming = l.Pipes.Trim()
	if l.trimming {
		l.After(pipeIdle, l.trim)
	}
}

func (l *Loop) readMail() {
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, f := range mail {
		f()
	}
}
