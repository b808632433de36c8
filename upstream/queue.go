package upstream

import (
	"bytes"
	"net/netip"
)

// queue is where sessions wait while every server that they could have has
// max_conns sessions. Clients take turns by their addresses, and come first in,
// first out within one, so that nobody is served sooner for coming more often.
//
// After each change that may have made room, serve gives it away. What is free
// then is nothing that anybody here could have: so a newcomer who is given it has
// not overtaken anyone, and none has to look who waits.
type queue struct {
	limit int // sessions that may wait; 0: none, there is no queue
	n     int
	lines map[netip.Addr]*line
	turn  *line // whose turn it is, in the ring of all; nil: nobody waits
}

// line are the sessions of one address, at least one, in the order of arrival.
type line struct {
	origin      netip.Addr
	first, last *waiter
	next, prev  *line
}

// waiter is a session in the queue, or one that has left it with a server and
// does not know yet.
type waiter struct {
	turn       *Turn
	key        []byte
	wake       func()
	peer       *Peer // given to it; nil: it waits
	line       *line
	next, prev *waiter
}

// Wait has a session wait for a server, after Next has found all full. It
// returns false if the queue is full. From is the client's address.
//
// Once a server is given to the session, which by then counts among that
// server's connections, wake is called, with the group locked: it must neither
// block nor use the group, only see to it that the session calls Claim. Until
// Claim returns a server, or Withdraw, the turn is the group's: it must not move,
// and nobody else may touch it.
//
// A session that has been given a server in vain goes to the front.
func (g *Group) Wait(t *Turn, from netip.Addr, wake func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	if t.waiting != nil {
		panic("upstream: BUG: a turn waits twice")
	}
	if g.queue.n >= g.queue.limit {
		return false
	}
	t.waiting = &waiter{turn: t, key: bytes.Clone(t.Session.Key), wake: wake}
	g.queue.push(t.waiting, hostOf(from.Unmap()))
	g.serve() // room may have been made since Next
	return true
}

// Claim returns the server that was given to a waiting session, whose turn is
// its own again; nil if it still waits.
func (g *Group) Claim(t *Turn) *Peer {
	g.mu.Lock()
	defer g.mu.Unlock()

	w := t.waiting
	if w == nil || w.peer == nil {
		return nil
	}
	t.waiting = nil
	return w.peer
}

// Withdraw takes a session out of the queue that will not wait any longer. If a
// server was given to it, the next one gets that.
func (g *Group) Withdraw(t *Turn, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()

	w := t.waiting
	if w == nil {
		return
	}
	t.waiting = nil
	if w.peer == nil {
		g.queue.remove(w)
		return
	}
	g.observe(t, now)
	w.peer.release(t, OutcomeClientGone, now)
	g.serve()
}

// Poll serves the queue if only time has passed: for a server that is let in
// again by the clock. Sessions that wait are to call it about once a second.
func (g *Group) Poll(now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()

	if now > g.now {
		g.now = now
		g.serve()
	}
}

// Waiting returns how many sessions are in the queue.
func (g *Group) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()

	return g.queue.n
}

// observe notes the present, for those who are served by the way.
func (g *Group) observe(t *Turn, now int64) {
	g.now, g.ms = max(g.now, now), max(g.ms, t.Now)
}

// full reports whether a server would be as good as any for the turn, had it
// not max_conns sessions.
func (g *Group) full(t *Turn) bool {
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			s := &tr.slots[i]
			s.Eligible = s.full() && g.condition(s, g.now) < out
		}
	}
	t.exclude()
	for _, tr := range [...]*tier{&g.primary, &g.backup} {
		for i := range tr.slots {
			if tr.slots[i].Eligible {
				return true
			}
		}
	}
	return false
}

// serve gives away what servers have for those who wait.
func (g *Group) serve() {
	for given := true; given && g.queue.n > 0; {
		given = g.serveOne()
	}
}

// serveOne gives a server to the first, in the order of their turns, who can
// have one. What a session that has tried nothing yet cannot have, nobody can.
func (g *Group) serveOne() bool {
	l := g.queue.turn
	for range len(g.queue.lines) {
		for w := l.first; w != nil; w = w.next {
			if g.offer(w) {
				return true
			}
			if w.turn.fresh() {
				return false
			}
		}
		l = l.next
	}
	return false
}

// offer gives a server to a waiting session, if there is one for it, as if it
// had come just now: to it the primaries come before the backups once more.
func (g *Group) offer(w *waiter) bool {
	t := w.turn
	t.backup, t.Session, t.Now = false, Session{Key: w.key}, g.ms
	s, _ := g.search(t, g.now)
	if s == nil {
		return false
	}
	w.peer = g.seat(s, t)
	l := w.line
	g.queue.remove(w)
	if l.first != nil {
		g.queue.yield(l)
	}
	w.wake()
	return true
}

// push lets a session join the line of its address: at the end, or if it has
// been given a server in vain, in front of all.
func (q *queue) push(w *waiter, origin netip.Addr) {
	l := q.lines[origin]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[netip.Addr]*line)
		}
		l = &line{origin: origin}
		q.lines[origin] = l
		q.append(l)
	}
	w.line = l
	if w.turn.fresh() {
		w.prev = l.last
	} else {
		w.next = l.first
		q.yield(l)
		q.turn = l
	}
	*l.after(w.prev), *l.before(w.next) = w, w
	q.n++
}

// remove takes a session out of its line, and the line out of the ring if
// nobody is left in it.
func (q *queue) remove(w *waiter) {
	l := w.line
	*l.after(w.prev), *l.before(w.next) = w.next, w.prev
	w.line, w.next, w.prev = nil, nil, nil
	q.n--
	if l.first == nil {
		delete(q.lines, l.origin)
		q.detach(l)
	}
}

// after is the link to whom follows w, or to the first; before is that to whom
// w follows, or to the last.
func (l *line) after(w *waiter) **waiter {
	if w == nil {
		return &l.first
	}
	return &w.next
}

func (l *line) before(w *waiter) **waiter {
	if w == nil {
		return &l.last
	}
	return &w.prev
}

// yield makes a line the last to have its turn.
func (q *queue) yield(l *line) {
	q.detach(l)
	q.append(l)
}

// append puts a line into the ring, to be the last to have its turn.
func (q *queue) append(l *line) {
	if q.turn == nil {
		q.turn, l.next, l.prev = l, l, l
		return
	}
	l.next, l.prev = q.turn, q.turn.prev
	l.prev.next, l.next.prev = l, l
}

func (q *queue) detach(l *line) {
	if l.next == l {
		q.turn = nil
		return
	}
	if q.turn == l {
		q.turn = l.next
	}
	l.prev.next, l.next.prev = l.next, l.prev
}
