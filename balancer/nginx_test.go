package balancer_test

import "smtplb/upstream"

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
	name            string // as configured
	ngxTimes
	next *ngxPeer
}

type ngxPeers struct {
	number      int
	tries       int
	totalWeight int
	single      bool
	peer        *ngxPeer
	next        *ngxPeers
}

// ngxPeerData is ngx_stream_upstream_rr_peer_data_t, and the tries of
// ngx_peer_connection_t.
type ngxPeerData struct {
	peers   *ngxPeers
	current *ngxPeer
	tried   []uint64
	tries   int

	ngxMethodData
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
			peers.totalWeight += servers[i].Weight
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
				accessed:        -1 << 40, // the 0 of its clock
				checked:         -1 << 40,
				down:            servers[i].Down,
				name:            servers[i].Name,
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

func (peers *ngxPeers) slice() (all []*ngxPeer) {
	for ; peers != nil; peers = peers.next {
		for peer := peers.peer; peer != nil; peer = peer.next {
			all = append(all, peer)
		}
	}
	return all
}
