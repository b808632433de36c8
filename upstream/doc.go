// Package upstream holds groups of servers and their live state: who may be
// picked now, who holds how many sessions, who has failed and since when.
// The arithmetic is that of nginx (ngx_stream_upstream_round_robin.c).
//
// A session goes through a group by its Turn:
//
//	g.Begin(&s.turn)
//	for {
//		peer := g.Next(&s.turn, now) // counted against max_conns from here on
//		if peer == nil {
//			break // no live upstreams
//		}
//		if connect(peer.Addr()) == nil {
//			peer.Connected()
//			relay()
//			peer.Release(&s.turn, upstream.OutcomeOK, now)
//			break
//		}
//		peer.Release(&s.turn, upstream.OutcomeRefused, now)
//		if s.turn.Left() == 0 {
//			break
//		}
//	}
//
// Every peer that Next returned is released exactly once.
//
// Where a group has a queue, a session that finds all servers full may Wait
// there, and Claim the one that is given to it in the end.
//
// The package decides who may be picked; which of those it is, a Method says
// (package balancer). It makes no system call, starts no goroutine and has no
// clock: now is whole seconds of one monotonic clock, as nginx's ngx_time(),
// and every window is measured in whole seconds. All methods of Group and
// Peer may be called from any goroutine; a Turn belongs to its session.
package upstream
