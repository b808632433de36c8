package balancer_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/upstream"
)

// What follows is ngx_stream_upstream_round_robin.c told again in Go, line by
// line and as naively as it is written: lists, a bitmap of the tried, gotos
// turned into ifs. It shares nothing with the code under test.

type ngxPeer struct {
	server          int
	weight          int
	effectiveWeight int
	currentWeight   int
	conns           int
	maxConns        int
	fails           int
	maxFails        int
	failTimeout     int64
	accessed        int64
	checked         int64
	down            bool
	next            *ngxPeer
}

type ngxPeers struct {
	number int
	tries  int
	single bool
	peer   *ngxPeer
	next   *ngxPeers
}

// ngxPeerData is ngx_stream_upstream_rr_peer_data_t, and the tries of
// ngx_peer_connection_t.
type ngxPeerData struct {
	peers   *ngxPeers
	current *ngxPeer
	tried   []uint64
	tries   int
}

func ngxInit(servers []upstream.Server) *ngxPeers {
	list := func(backup bool) *ngxPeers {
		peers := &ngxPeers{}
		peerp := &peers.peer
		for i := range servers {
			if servers[i].Backup != backup {
				continue
			}
			peers.number++
			if !servers[i].Down {
				peers.tries++
			}
			peer := &ngxPeer{
				server:          i,
				weight:          servers[i].Weight,
				effectiveWeight: servers[i].Weight,
				currentWeight:   0,
				maxConns:        servers[i].MaxConns,
				maxFails:        servers[i].MaxFails,
				failTimeout:     servers[i].FailTimeout,
				down:            servers[i].Down,
			}
			*peerp = peer
			peerp = &peer.next
		}
		return peers
	}
	peers := list(false)
	peers.single = peers.number == 1
	backup := list(true)
	if backup.number == 0 {
		return peers
	}
	peers.single = false
	backup.single = false
	peers.next = backup
	return peers
}

func ngxInitPeer(peers *ngxPeers) *ngxPeerData {
	n := peers.number
	tries := peers.tries
	if peers.next != nil {
		n = max(n, peers.next.number)
		tries += peers.next.tries
	}
	return &ngxPeerData{peers: peers, tried: make([]uint64, (n+63)/64), tries: tries}
}

func (rrp *ngxPeerData) getRoundRobinPeer(now int64) *ngxPeer {
	peers := rrp.peers
	var peer *ngxPeer
	if peers.single {
		peer = peers.peer
		if peer.down {
			peer = nil
		} else if peer.maxConns != 0 && peer.conns >= peer.maxConns {
			peer = nil
		} else {
			rrp.current = peer
		}
	} else {
		peer = rrp.getPeer(now)
	}
	if peer != nil {
		peer.conns++
		return peer
	}
	if peers.next != nil {
		rrp.peers = peers.next
		for i := range rrp.tried {
			rrp.tried[i] = 0
		}
		return rrp.getRoundRobinPeer(now)
	}
	return nil
}

func (rrp *ngxPeerData) getPeer(now int64) *ngxPeer {
	var best *ngxPeer
	total := 0
	p := 0
	for peer, i := rrp.peers.peer, 0; peer != nil; peer, i = peer.next, i+1 {
		n, m := i/64, uint64(1)<<(i%64)
		if rrp.tried[n]&m != 0 {
			continue
		}
		if peer.down {
			continue
		}
		if peer.maxFails != 0 && peer.fails >= peer.maxFails && now-peer.checked <= peer.failTimeout {
			continue
		}
		if peer.maxConns != 0 && peer.conns >= peer.maxConns {
			continue
		}
		peer.currentWeight += peer.effectiveWeight
		total += peer.effectiveWeight
		if peer.effectiveWeight < peer.weight {
			peer.effectiveWeight++
		}
		if best == nil || peer.currentWeight > best.currentWeight {
			best = peer
			p = i
		}
	}
	if best == nil {
		return nil
	}
	rrp.current = best
	n, m := p/64, uint64(1)<<(p%64)
	rrp.tried[n] |= m
	best.currentWeight -= total
	if now-best.checked > best.failTimeout {
		best.checked = now
	}
	return best
}

// freeRoundRobinPeer reports that "upstream server temporarily disabled" was
// logged.
func (rrp *ngxPeerData) freeRoundRobinPeer(failed bool, now int64) (disabled bool) {
	peer := rrp.current
	if rrp.peers.single {
		if peer.fails != 0 {
			peer.fails = 0
		}
		peer.conns--
		rrp.tries = 0
		return false
	}
	if failed {
		peer.fails++
		peer.accessed = now
		peer.checked = now
		if peer.maxFails != 0 {
			peer.effectiveWeight -= peer.weight / peer.maxFails
			if peer.fails >= peer.maxFails {
				disabled = true
			}
		}
		if peer.effectiveWeight < 0 {
			peer.effectiveWeight = 0
		}
	} else {
		if peer.accessed < peer.checked {
			peer.fails = 0
		}
	}
	peer.conns--
	if rrp.tries != 0 {
		rrp.tries--
	}
	return disabled
}

func (rrp *ngxPeerData) notifyRoundRobinPeer() {
	peer := rrp.current
	if peer.accessed < peer.checked {
		peer.fails = 0
	}
}

// observed keeps the credits that the method leaves behind, which a Snapshot
// does not show.
type observed struct {
	upstream.Method
	current *[]int
}

func (o observed) Pick(slots []upstream.Slot, s *upstream.Session) int {
	i := o.Method.Pick(slots, s)
	*o.current = (*o.current)[:0]
	for _, s := range slots {
		*o.current = append(*o.current, s.Current)
	}
	return i
}

func (peers *ngxPeers) slice() (all []*ngxPeer) {
	for ; peers != nil; peers = peers.next {
		for peer := peers.peer; peer != nil; peer = peer.next {
			all = append(all, peer)
		}
	}
	return all
}

// Random groups live random lives beside the model of nginx, and agree after
// each step on the server picked, its credit, whether a failure disabled it,
// the tries left, and each server's effective weight, connections and fails.
//
// Fails within the hundred groups of one run if, for instance: the effective
// weight recovers before it is added; the last of equals is best; a server is
// out for < instead of <= fail_timeout; a pick after the window does not set
// checked; a failure sets only accessed or only checked; a success clears fails
// at accessed <= checked; max_fails=0 takes a weight's penalty; the single
// server keeps its tries or counts its failures; one of the first, second or
// later servers tried is not remembered; or a session returns from the backups.
func TestAgreesWithNginx(t *testing.T) {
	t.Parallel()
	type life struct {
		turn upstream.Turn
		peer *upstream.Peer
		ngx  *ngxPeerData
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "servers")
		all := make([]upstream.Server, n)
		for i := range all {
			all[i] = server(i, rapid.IntRange(1, 12).Draw(t, "weight"))
			all[i].MaxConns = max(0, rapid.IntRange(-3, 4).Draw(t, "max_conns"))
			all[i].MaxFails = rapid.IntRange(0, 4).Draw(t, "max_fails")
			all[i].FailTimeout = rapid.Int64Range(0, 10).Draw(t, "fail_timeout")
			all[i].Down = rapid.IntRange(0, 5).Draw(t, "down") == 0
			all[i].Backup = i > 0 && rapid.IntRange(0, 2).Draw(t, "backup") == 0
		}
		var current []int
		c := config(all...)
		method := c.Method
		c.Method = func(s []upstream.Server) upstream.Method { return observed{method(s), &current} }
		g := upstream.NewGroup(c)
		peers := ngxInit(all)
		now := rapid.Int64Range(0, 2000).Draw(t, "start")
		var live []*life

		next := func(l *life) {
			current = nil
			want := l.ngx.getRoundRobinPeer(now)
			l.peer = g.Next(&l.turn, now)
			if want == nil {
				require.Nil(t, l.peer, "no live upstreams")
				return
			}
			require.Equal(t, want.server, index(l.peer), "server picked")
			live = append(live, l)

			if current == nil {
				return // the single server: no method was asked
			}
			var credits []int
			for peer := l.ngx.peers.peer; peer != nil; peer = peer.next {
				credits = append(credits, peer.currentWeight)
			}
			require.Equal(t, credits, current, "current weights")
		}
		release := func(l *life, o upstream.Outcome) {
			live = slices.DeleteFunc(live, func(x *life) bool { return x == l })
			l.ngx.freeRoundRobinPeer(o != upstream.OutcomeOK, now)
			l.peer.Release(&l.turn, o, now)
			require.Equal(t, l.ngx.tries, l.turn.Left(), "tries")
		}
		draw := func(t *rapid.T) *life {
			if len(live) == 0 {
				t.Skip()
			}
			return rapid.SampledFrom(live).Draw(t, "session")
		}

		t.Repeat(map[string]func(*rapid.T){
			"session": func(t *rapid.T) {
				if len(live) > 12 {
					t.Skip()
				}
				l := &life{ngx: ngxInitPeer(peers)}
				g.Begin(&l.turn)
				require.Equal(t, l.ngx.tries, l.turn.Left())
				next(l)
			},
			"connected": func(t *rapid.T) {
				l := draw(t)
				l.ngx.notifyRoundRobinPeer()
				l.peer.Connected(now)
			},
			"failed": func(t *rapid.T) {
				l := draw(t)
				release(l, upstream.OutcomeConnectTimeout)
				if l.turn.Left() > 0 {
					next(l)
				}
			},
			"ended": func(t *rapid.T) {
				release(draw(t), upstream.OutcomeOK)
			},
			"second": func(*rapid.T) {
				now++
			},
			"time": func(t *rapid.T) {
				now += rapid.Int64Range(2, 15).Draw(t, "seconds")
			},
			"": func(t *rapid.T) {
				for i, want := range peers.slice() {
					got := g.Snapshot(now)[i]
					require.Equal(t,
						fmt.Sprint(all[want.server].Name, want.effectiveWeight, want.conns, want.fails),
						fmt.Sprint(got.Name, got.Effective, got.Conns, got.Fails),
						"name, effective weight, connections, fails")
				}
			},
		})
	})
}
