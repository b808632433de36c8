package balancer_test

import (
	"fmt"
	"hash/crc32"
	"sort"
	"strings"

	"smtplb/upstream"
)

// nginx's other methods, told again like its round robin in nginx_test.go.

// ngxMethodData is what the modules put behind ngx_stream_upstream_rr_peer_data_t.
type ngxMethodData struct {
	conf ngxConf

	// ngx_stream_upstream_hash_peer_data_t, and tries of random's.
	key        string
	methodTry  int
	rehash     int
	hash       uint32
	chashPlace int

	// ngx_stream_upstream_lt_peer_data_t, and ngx_stream_upstream_state_t.
	inflight      bool
	started       int64
	connectTime   int64
	firstByteTime int64
}

type ngxConf struct {
	points      []ngxPoint
	random      func() int
	mode        upstream.Moment
	useInflight bool
}

type ngxPoint struct {
	hash   uint32
	server string
}

// ngxTimes are a peer's fields for least_time.
type ngxTimes struct {
	connectTime, firstByteTime, responseTime   int64
	inflightTime, inflightLast, inflightChange int64
	inflightReqs                               int64
	rt                                         int64 // what least_time_eta came to, before it is put into clusters
}

// unusable is the row of conditions that all methods have, in their own order.
func (rrp *ngxPeerData) unusable(peer *ngxPeer, i int, now int64) bool {
	return rrp.tried[i/64]&(uint64(1)<<(i%64)) != 0 ||
		peer.down ||
		peer.maxFails != 0 && peer.fails >= peer.maxFails && now-peer.checked <= peer.failTimeout ||
		peer.maxConns != 0 && peer.conns >= peer.maxConns
}

// take is the end that all methods have.
func (rrp *ngxPeerData) take(best *ngxPeer, i int, now int64) *ngxPeer {
	if now-best.checked > best.failTimeout {
		best.checked = now
	}
	best.conns++
	rrp.current = best
	rrp.tried[i/64] |= uint64(1) << (i % 64)
	return best
}

func (rrp *ngxPeerData) getLeastConnPeer(now, ms int64) *ngxPeer {
	if rrp.peers.single {
		return rrp.getRoundRobinPeer(now)
	}
	peers := rrp.peers
	var best *ngxPeer
	total, many, p := 0, false, 0
	for peer, i := peers.peer, 0; peer != nil; peer, i = peer.next, i+1 {
		if rrp.unusable(peer, i, now) {
			continue
		}
		if best == nil || peer.conns*best.weight < best.conns*peer.weight {
			best, many, p = peer, false, i
		} else if peer.conns*best.weight == best.conns*peer.weight {
			many = true
		}
	}
	if best == nil {
		if peers.next != nil {
			rrp.peers = peers.next
			clear(rrp.tried)
			return rrp.getLeastConnPeer(now, ms)
		}
		return nil
	}
	if many {
		for peer, i := best, p; peer != nil; peer, i = peer.next, i+1 {
			if rrp.unusable(peer, i, now) || peer.conns*best.weight != best.conns*peer.weight {
				continue
			}
			peer.currentWeight += peer.effectiveWeight
			total += peer.effectiveWeight
			if peer.effectiveWeight < peer.weight {
				peer.effectiveWeight++
			}
			if peer.currentWeight > best.currentWeight {
				best, p = peer, i
			}
		}
	}
	best.currentWeight -= total
	return rrp.take(best, p, now)
}

func (rrp *ngxPeerData) getHashPeer(now, _ int64) *ngxPeer {
	if rrp.methodTry > 20 || rrp.peers.number < 2 || rrp.key == "" {
		return rrp.getRoundRobinPeer(now)
	}
	for {
		text := rrp.key
		if rrp.rehash > 0 {
			text = fmt.Sprint(rrp.rehash) + text
		}
		rrp.hash += crc32.ChecksumIEEE([]byte(text)) >> 16 & 0x7fff
		rrp.rehash++
		w := int(rrp.hash) % rrp.peers.totalWeight
		peer, p := rrp.peers.peer, 0
		for w >= peer.weight {
			w -= peer.weight
			peer = peer.next
			p++
		}
		if !rrp.unusable(peer, p, now) {
			return rrp.take(peer, p, now)
		}
		if rrp.methodTry++; rrp.methodTry > 20 {
			return rrp.getRoundRobinPeer(now)
		}
	}
}

// ngxChash is ngx_stream_upstream_update_chash.
func ngxChash(peers *ngxPeers) []ngxPoint {
	var points []ngxPoint
	for peer := peers.peer; peer != nil; peer = peer.next {
		host, port := peer.name, ""
		if strings.HasPrefix(strings.ToLower(host), "unix:") {
			host = host[5:]
		} else {
			for j := len(host) - 1; j >= 0; j-- {
				if host[j] == ':' {
					host, port = host[:j], host[j+1:]
					break
				}
				if host[j] < '0' || host[j] > '9' {
					break
				}
			}
		}
		prev := []byte{0, 0, 0, 0}
		for range peer.weight * 160 {
			hash := crc32.ChecksumIEEE([]byte(host + "\x00" + port + string(prev)))
			points = append(points, ngxPoint{hash, peer.name})
			prev = []byte{byte(hash), byte(hash >> 8), byte(hash >> 16), byte(hash >> 24)}
		}
	}
	sort.SliceStable(points, func(i, j int) bool { return points[i].hash < points[j].hash })
	i := 0
	for j := 1; j < len(points); j++ {
		if points[i].hash != points[j].hash {
			i++
			points[i] = points[j]
		}
	}
	return points[:i+1]
}

// initChashPeer finds the first point that is not less than the key's hash.
func (rrp *ngxPeerData) initChashPeer() {
	hash := crc32.ChecksumIEEE([]byte(rrp.key))
	for rrp.chashPlace < len(rrp.conf.points) && rrp.conf.points[rrp.chashPlace].hash < hash {
		rrp.chashPlace++
	}
}

func (rrp *ngxPeerData) getChashPeer(now, _ int64) *ngxPeer {
	if rrp.methodTry > 20 || rrp.peers.single || rrp.key == "" {
		return rrp.getRoundRobinPeer(now)
	}
	for {
		server := rrp.conf.points[rrp.chashPlace%len(rrp.conf.points)].server
		var best *ngxPeer
		bestI, total := 0, 0
		for peer, i := rrp.peers.peer, 0; peer != nil; peer, i = peer.next, i+1 {
			if rrp.unusable(peer, i, now) || peer.name != server {
				continue
			}
			peer.currentWeight += peer.effectiveWeight
			total += peer.effectiveWeight
			if peer.effectiveWeight < peer.weight {
				peer.effectiveWeight++
			}
			if best == nil || peer.currentWeight > best.currentWeight {
				best, bestI = peer, i
			}
		}
		if best != nil {
			best.currentWeight -= total
			return rrp.take(best, bestI, now)
		}
		rrp.chashPlace++
		if rrp.methodTry++; rrp.methodTry > 20 {
			return rrp.getRoundRobinPeer(now)
		}
	}
}

// peekRandomPeer leaves out the binary search.
func (rrp *ngxPeerData) peekRandomPeer() (*ngxPeer, int) {
	x := rrp.conf.random() % rrp.peers.totalWeight
	peer, i := rrp.peers.peer, 0
	for x >= peer.weight {
		x -= peer.weight
		peer = peer.next
		i++
	}
	return peer, i
}

func (rrp *ngxPeerData) getRandomPeer(now, _ int64) *ngxPeer {
	if rrp.methodTry > 20 || rrp.peers.number < 2 {
		return rrp.getRoundRobinPeer(now)
	}
	for {
		peer, i := rrp.peekRandomPeer()
		if !rrp.unusable(peer, i, now) {
			return rrp.take(peer, i, now)
		}
		if rrp.methodTry++; rrp.methodTry > 20 {
			return rrp.getRoundRobinPeer(now)
		}
	}
}

func (rrp *ngxPeerData) getRandom2Peer(now, _ int64) *ngxPeer {
	if rrp.methodTry > 20 || rrp.peers.number < 2 {
		return rrp.getRoundRobinPeer(now)
	}
	var prev *ngxPeer
	p := 0
	for {
		peer, i := rrp.peekRandomPeer()
		if peer != prev && !rrp.unusable(peer, i, now) {
			if prev != nil {
				if peer.conns*prev.weight > prev.conns*peer.weight {
					peer, i = prev, p
				}
				return rrp.take(peer, i, now)
			}
			prev, p = peer, i
		}
		if rrp.methodTry++; rrp.methodTry > 20 {
			return rrp.getRoundRobinPeer(now)
		}
	}
}
