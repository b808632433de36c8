package upstream

import (
	"bytes"
	"container/heap"
	"net/netip"
)

// queue is where sessions wait while every server that they could have has
// max_conns sessions. Clients take turns by their addresses, and come first in,
// first out within one, so that nobody is served sooner for coming more often.
// Nor does anybody fill the queue alone: when it is full, the longest line gives way.
//
// After each change that may have made room, serve gives it away. What is free
// then is nothing that anybody here could have: so a newcomer who is given it has
// not overtaken anyone, and none has to look who waits.
type queue struct {
	limit int // sessions that may wait; 0: none, there is no queue
	n     int
	lines map[netip.Addr]*line
	turn  *line // whose turn it is, in the ring of all; nil: nobody waits
	ranks ranks // of all
}

// line are the sessions of one address, at least one, in the order of arrival.
type line struct {
	origin      netip.Addr
	first, last *waiter
	n           int
	rank        int // its place in ranks
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
// returns false if there is no room for it. From is the client's address.
//
// Once a server is given to the session, which by then counts among that
// server's connections, or its room to another, wake is called, with the group
// locked: it must neither block nor use the group, only see to it that the
// session calls Claim. Until Claim says that it waits no more, or Withdraw, the
// turn is the group's: it must not move, and nobody else may touch it.
//
// A session that has been given a server in vain goes to the front. In a full
// queue there is room for it, or for who is new, at the cost of the latest
// session of the longest line, if that is longer than its own.
func (g *Group) Wait(t *Turn, from netip.Addr, wake func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	if t.waiting != nil {
		panic("upstream: BUG: a turn waits twice")
	}
	w := &waiter{turn: t, key: bytes.Clone(t.Session.Key), wake: wake}
	t.waiting = w
	g.queue.push(w, hostOf(from.Unmap()))
	g.serve() // room may have been made since Next
	if g.queue.n <= g.queue.limit || w.peer != nil {
		return true
	}
	last := g.queue.longest(w.line).last
	last.turn.waiting = nil
	g.queue.remove(last)
	if last != w {
		last.wake()
	}
	return last != w
}

// Claim returns the server that was given to a waiting session, whose turn is
// its own again; or that the session still waits; or neither, if it had to give
// way to another.
func (g *Group) Claim(t *Turn) (p *Peer, waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	w := t.waiting
	if w == nil || w.peer == nil {
		return nil, w != nil
	}
	t.waiting = nil
	return w.peer, false
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
		heap.Push(&q.ranks, l)
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
	q.count(l, 1)
}

// remove takes a session out of its line, and the line out of the ring if
// nobody is left in it.
func (q *queue) remove(w *waiter) {
	l := w.line
	*l.after(w.prev), *l.before(w.next) = w.next, w.prev
	w.line, w.next, w.prev = nil, nil, nil
	q.count(l, -1)
	if l.first == nil {
		delete(q.lines, l.origin)
		q.detach(l)
		heap.Remove(&q.ranks, l.rank)
	}
}

// count notes that a line has become longer or shorter.
func (q *queue) count(l *line, by int) {
	q.n += by
	l.n += by
	heap.Fix(&q.ranks, l.rank)
}

// longest returns the longest line: l, if no other is longer.
func (q *queue) longest(l *line) *line {
	if first := q.ranks[0]; first.n > l.n {
		return first
	}
	return l
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

// ranks is a heap of all lines, the longest in front; see container/heap.
type ranks []*line

func (r ranks) Len() int           { return len(r) }
func (r ranks) Less(i, j int) bool { return r[i].n > r[j].n }

func (r ranks) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].rank, r[j].rank = i, j
}

func (r *ranks) Push(x any) {
	l := x.(*line)
	l.rank = len(*r)
	*r = append(*r, l)
}

func (r *ranks) Pop() any {
	last := len(*r) - 1
	l := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return l
}
