package stream

import (
	"syscall"

	"github.com/valyala/bytebufferpool"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/upstream"
)

const (
	eagain = unix.EAGAIN

	// turns and turnBytes are the share of one half in one event; then other
	// sessions have their turn. 16 splices of a pipe's 64 KiB at most.
	turns     = 16
	turnBytes = 256 << 10

	// spliceBytes is asked for at once: more than a default pipe holds.
	spliceBytes = 1 << 20
	// spliceMin is the least that makes a splice worth its pipe; a smaller one
	// means that bulk is over and dialogue is back.
	spliceMin = 4 << 10

	// spinLimit is how many events within a second one session may see without a
	// byte moving before it is taken for spinning and ended.
	spinLimit = 10_000
)

// relay moves what can be moved both ways, and ends the session when both
// halves are done.
func (w *worker) relay(s *session) {
	up, down, out := s.up.in, s.down.in, s.up.out+s.down.out
	s.up.pace.waits, s.down.pace.waits = false, false
	more := w.pump(s, &s.up, &s.client, &s.server)
	more = w.pump(s, &s.down, &s.server, &s.client) || more
	if down == 0 && s.down.in > 0 {
		w.bookFirstByte(s)
		if s.greeted() {
			s.peer.Reached(w.turn(s), upstream.FirstByte)
		}
	}
	if s.up.done && s.down.done {
		w.finish(s, s.cause)
		return
	}
	if s.up.in != up || s.down.in != down || s.up.out+s.down.out != out {
		s.active = w.loop.Now()
		s.barren = 0
		s.downLast = s.up.in == up && (s.downLast || s.down.in != down)
	} else if !s.waits() && w.spins(s) { // what still comes for a half that rests is no spin
		return
	}
	if s.waits() {
		w.loop.Timers.Arm(s.index, w.deadline(s))
	}
	if more && !s.again {
		s.again = true
		w.loop.Again(s.clientToken())
	}
}

// spins counts an event without progress and ends a session that has had far
// too many within a second: a loop must not be held by a mistake of ours.
func (w *worker) spins(s *session) bool {
	now := w.loop.Now()
	if s.barren == 0 || now-s.barrenAt > 1000 {
		s.barrenAt = now
		s.barren = 0
	}
	if s.barren++; s.barren <= spinLimit {
		return false
	}
	w.log.Error("session spins, dropped; please report this", zap.String("client", clientAddr(s.from)))
	w.finish(s, causeInternal)
	return true
}

// pump moves bytes from src to dst until one of them can do no more or the
// half's share of this turn is used up, which it reports.
func (w *worker) pump(s *session, h *half, src, dst *end) (more bool) {
	limit := h.in + turnBytes
	for range turns {
		if h.done {
			return false
		}
		if h.holds() && !w.flush(h, dst) {
			return false
		}
		if h.eof {
			w.passEnd(s, h, src, dst)
			return false
		}
		if !src.readable || !dst.writable {
			h.giveBack(w)
			return false
		}
		if h.in >= limit {
			return true
		}
		n := h.allow(w.loop.Now(), s.route.BufferSize)
		if n == 0 {
			h.giveBack(w)
			return false
		}
		if h.bulk && !h.copied && !src.urgent && n >= spliceMin {
			w.splice(h, src, n)
		} else {
			w.copy(h, src, dst, min(n, s.route.BufferSize))
		}
	}
	return true
}

// copy reads once, up to size bytes, and writes what the destination takes; the
// rest is held.
func (w *worker) copy(h *half, src, dst *end, size int) {
	h.giveBack(w)
	b := w.buffer(size)
	n, errno := reactor.Recv(int(src.fd), b)
	if errno == eagain {
		// At an urgent mark that is also said while a signal is pending, whatever
		// is behind it (tcp_recvmsg_locked).
		if !src.urgent || reactor.Unread(int(src.fd)) == 0 {
			src.readable, src.urgent = false, false
		}
		return
	}
	if errno != 0 || n == 0 {
		h.eof, src.eof = true, true
		src.reset = src.reset || errno != 0
		return
	}
	h.in += int64(n)
	h.pace.rest(n, w.loop.Now())
	w.stats.Copied += uint64(n)
	// A read that did not fill the buffer has emptied the socket, unless an
	// end or an urgent mark cut it short: no further edge would tell.
	h.bulk = n == len(b)
	if !h.bulk && !src.hup && !src.urgent {
		src.readable = false
	}
	w.send(h, dst, b[:n])
}

// buffer returns n bytes to read into. There is one buffer for all sessions of
// a worker: what is read is written or held before the next read.
func (w *worker) buffer(n int) []byte {
	if len(w.buf) < n {
		w.buf = make([]byte, n)
	}
	return w.buf[:n]
}

// send writes b and holds what the destination does not take. On entry the
// half holds nothing.
func (w *worker) send(h *half, dst *end, b []byte) {
	n, errno := reactor.Send(int(dst.fd), b)
	h.out += int64(n)
	if errno != 0 && errno != eagain {
		w.lost(h, dst, errno)
		return
	}
	if n < len(b) {
		dst.writable = false
		h.held = bytebufferpool.Get()
		h.held.Set(b[n:])
		h.off = 0
	}
}

// splice fills the half's pipe from the source, with up to size bytes. The pipe
// is empty on entry, and an empty pipe always has room: so EAGAIN can only mean
// that the source is empty, although splice reports a full pipe the same way.
func (w *worker) splice(h *half, src *end, size int) {
	if !h.lent {
		pipe, errno := w.loop.Pipes.Get()
		if errno != 0 {
			h.bulk = false // this once; the next full read asks again
			return
		}
		h.pipe, h.lent = pipe, true
	}
	n, errno := w.calls.splice(int(src.fd), h.pipe.W, size)
	switch {
	case n > 0:
		h.piped = int32(n)
		h.in += int64(n)
		h.pace.rest(n, w.loop.Now())
		w.stats.Spliced += uint64(n)
		h.bulk = n >= spliceMin
	case errno == 0:
		// The end of the stream, or an urgent mark, or a kernel's mistake: a
		// read tells which.
		h.bulk = false
	case errno == eagain:
		if src.hup {
			h.bulk = false // older kernels say EAGAIN at the end: ask by a read
		} else {
			src.readable = false
		}
	case refused(errno):
		w.refuseSplice(h, errno)
	default:
		h.eof, src.eof, src.reset = true, true, true
	}
}

// flush writes what the half holds. It reports whether all of it is out; if
// not, the destination is full or lost.
func (w *worker) flush(h *half, dst *end) bool {
	for h.piped > 0 {
		if !dst.writable {
			return false
		}
		n, errno := w.calls.splice(h.pipe.R, int(dst.fd), int(h.piped))
		switch {
		case n > 0:
			h.piped -= int32(n)
			h.out += int64(n)
		case errno == eagain:
			// The pipe holds bytes, so it is the destination that cannot.
			dst.writable = false
			return false
		case errno == 0 || refused(errno):
			w.refuseSplice(h, errno)
		default:
			w.lost(h, dst, errno)
			return false
		}
	}
	if h.held == nil {
		return true
	}
	if !dst.writable {
		return false
	}
	n, errno := reactor.Send(int(dst.fd), h.held.B[h.off:])
	if errno != 0 && errno != eagain {
		w.lost(h, dst, errno)
		return false
	}
	h.off += int32(n)
	h.out += int64(n)
	if int(h.off) < len(h.held.B) {
		dst.writable = false
		return false
	}
	h.release()
	return true
}

// refused tells an errno that is about splice itself (not allowed by a sandbox,
// not built, not for this kind of descriptor) from one about the connection.
func refused(e syscall.Errno) bool {
	switch e {
	case unix.EINVAL, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOMEM:
		return true
	}
	return false
}

// refuseSplice turns a half to copying for good. What its pipe holds is read
// out and held, so that no byte is lost.
func (w *worker) refuseSplice(h *half, errno syscall.Errno) {
	h.copied, h.bulk = true, false
	w.stats.Refused++
	if ok, _ := w.engine.refusals.allow(); ok {
		w.log.Warn("splice refused, copying instead; bulk mail will cost more processor time", zap.Error(errno))
	}
	if h.piped == 0 {
		return
	}
	h.held = bytebufferpool.Get()
	h.off = 0
	for h.piped > 0 {
		n, errno := reactor.ReadPipe(h.pipe.R, w.buf[:min(len(w.buf), int(h.piped))])
		if errno != 0 || n == 0 {
			panic("stream: BUG: pipe holds less than was counted")
		}
		_, _ = h.held.Write(w.buf[:n])
		h.piped -= int32(n)
	}
}

// passEnd is called when a half has read its source to the end and delivered
// everything: the end itself is passed on.
func (w *worker) passEnd(s *session, h *half, src, dst *end) {
	h.giveBack(w)
	h.done = true
	back, closed, lost := &s.down, causeClientClosed, causeClientReset
	if h == &s.down {
		back, closed, lost = &s.up, causeServerClosed, causeServerReset
	}
	if s.cause == causeNone {
		s.cause = closed
		if src.reset {
			s.cause = lost
		}
	}
	switch {
	case src.reset, !s.route.HalfClose && !s.draining:
		// Nothing can reach src any more, or nothing shall.
		back.drop(w)
		back.eof, back.done = true, true
	case !back.done && !dst.shut:
		dst.shut = true
		_ = reactor.ShutdownWrite(int(dst.fd))
		w.loop.Timers.Arm(s.index, w.deadline(s))
	}
}

// lost is called when a write found the destination gone. What it sent before
// is still to be read and delivered, so only this half is over. One that had
// ended its stream properly and then closed is not taken for a reset, whether or
// not its end was read by now: a reset that comes behind the end of a stream is
// EPIPE, any other is not (tcp_reset).
func (w *worker) lost(h *half, dst *end, errno syscall.Errno) {
	dst.reset = errno != unix.EPIPE && !dst.eof
	dst.readable = true
	dst.hup = true
	h.drop(w)
	h.eof, h.done = true, true
}

// holds reports whether bytes were read that are not written yet.
func (h *half) holds() bool { return h.piped > 0 || h.held != nil }

// release returns the buffer, which is written out or given up.
func (h *half) release() {
	bytebufferpool.Put(h.held)
	h.held, h.off = nil, 0
}

// giveBack returns the pipe, which must be empty.
func (h *half) giveBack(w *worker) {
	if !h.lent {
		return
	}
	if h.piped != 0 {
		panic("stream: BUG: pipe given back with bytes in it")
	}
	w.loop.Pipes.Put(h.pipe)
	h.pipe, h.lent = reactor.Pipe{}, false
}

// drop gives up what the half holds. A pipe that may hold bytes is closed, not
// pooled: the next borrower would send them to a stranger.
func (h *half) drop(w *worker) {
	if h.held != nil {
		h.release()
	}
	if h.lent {
		if h.piped > 0 {
			w.loop.Pipes.Discard(h.pipe)
		} else {
			w.loop.Pipes.Put(h.pipe)
		}
		h.pipe, h.lent, h.piped = reactor.Pipe{}, false, 0
	}
}
