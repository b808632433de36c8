package reactor

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Pipe is an empty or partly filled kernel pipe between two splices.
type Pipe struct {
	R, W int // descriptors of the read and the write end
}

// Pipes is a loop's free list of pipes. Pipes are a quota of the user (past
// pipe-user-pages-soft the kernel makes them two slots small and refuses to
// enlarge them), so the list is bounded, a pipe is lent only while bytes move,
// and pipes that nobody has needed for a while are closed. One goroutine owns
// it. The zero value lends nothing.
type Pipes struct {
	// Limit is the most pipes that may exist at once, lent ones included.
	Limit int
	// Size is how many bytes a new pipe holds, in whole pages; 0 is the
	// kernel's own choice, and so is a size that the kernel refuses.
	Size int

	free []Pipe
	open int // lent and free
	low  int // fewest free pipes since the last Trim
}

// Get lends a pipe; EAGAIN means that the limit is reached, another errno that
// the kernel has none to give. Both mean: copy instead.
func (p *Pipes) Get() (Pipe, syscall.Errno) {
	if n := len(p.free); n > 0 {
		pipe := p.free[n-1]
		p.free = p.free[:n-1]
		p.low = min(p.low, n-1)
		return pipe, 0
	}
	if p.open >= p.Limit {
		return Pipe{}, unix.EAGAIN
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		if e, ok := err.(syscall.Errno); ok {
			return Pipe{}, e
		}
		return Pipe{}, unix.EMFILE
	}
	if p.Size > 0 {
		_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, p.Size)
	}
	p.open++
	return Pipe{R: fds[0], W: fds[1]}, 0
}

// Put takes back an empty pipe. A pipe that may hold bytes must go to Discard:
// the next borrower would send them to a stranger.
func (p *Pipes) Put(pipe Pipe) {
	p.free = append(p.free, pipe)
}

// Discard closes a pipe and whatever it holds.
func (p *Pipes) Discard(pipe Pipe) {
	Close(pipe.R)
	Close(pipe.W)
	p.open--
}

// Trim closes the pipes that were free throughout since the last Trim and
// reports whether any pipe is left to trim later.
func (p *Pipes) Trim() bool {
	for range p.low {
		last := len(p.free) - 1
		p.Discard(p.free[last])
		p.free = p.free[:last]
	}
	p.low = len(p.free)
	return p.open > 0
}

// Open returns how many pipes exist.
func (p *Pipes) Open() int { return p.open }

// Close closes all free pipes.
func (p *Pipes) Close() {
	for _, pipe := range p.free {
		p.Discard(pipe)
	}
	p.free, p.low = nil, 0
}
