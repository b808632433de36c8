package balancer_test

import "smtplb/upstream"

// ngx_stream_upstream_least_time_module.c, told again like the others.

func ngxAverage(average *int64, v int64) {
	if *average == 0 {
		*average = v
		return
	}
	*average = int64(0.5 + float64(0.05*float64(v)) + float64(0.95*float64(*average)))
}

func (rrp *ngxPeerData) getLeastTimePeer(now, ms int64) *ngxPeer {
	rrp.started, rrp.connectTime, rrp.firstByteTime = ms, -1, -1
	if rrp.peers.single {
		return rrp.getRoundRobinPeer(now)
	}
	peers := rrp.peers
	var best *ngxPeer
	total, many, p, bestEta := 0, false, 0, 0
	for peer, i := peers.peer, 0; peer != nil; peer, i = peer.next, i+1 {
		if rrp.unusable(peer, i, now) {
			continue
		}
		if peer.inflightReqs > 0 {
			ift := peer.inflightLast/peer.inflightReqs + (ms - peer.inflightChange)
			ngxAverage(&peer.inflightTime, ift)
		}
		eta := rrp.leastTimeEta(peer, now)
		if best == nil || eta*best.weight < bestEta*peer.weight {
			best, bestEta, many, p = peer, eta, false, i
		} else if eta*best.weight == bestEta*peer.weight {
			many = true
		}
	}
	if best == nil {
		if peers.next != nil {
			rrp.peers = peers.next
			clear(rrp.tried)
			return rrp.getLeastTimePeer(now, ms)
		}
		return nil
	}
	if many {
		// nginx has best.weight for weight, beside the eta of the best one before
		// this loop: see LeastTime.
		weight := best.weight
		for peer, i := best, p; peer != nil; peer, i = peer.next, i+1 {
			if rrp.unusable(peer, i, now) || rrp.leastTimeEta(peer, now)*weight != bestEta*peer.weight {
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
	if rrp.conf.useInflight {
		if best.inflightReqs > 0 {
			best.inflightLast += (ms - best.inflightChange) * best.inflightReqs
		}
		best.inflightChange = ms
		best.inflightReqs++
		rrp.inflight = true
	}
	return rrp.take(best, p, now)
}

func (rrp *ngxPeerData) leastTimeEta(peer *ngxPeer, now int64) int {
	var rt int64
	switch rrp.conf.mode {
	case upstream.FirstByte:
		rt = peer.firstByteTime
	case upstream.Connect:
		rt = peer.connectTime
	default:
		rt = peer.responseTime
	}
	if now-peer.checked > peer.failTimeout {
		rt >>= (now - peer.checked) / (peer.failTimeout + 1)
	}
	if peer.inflightReqs > 0 {
		rt = max(rt, peer.inflightTime)
	}
	peer.rt = rt
	if rt > 5000 {
		rt = 5000
	} else {
		rt += 20 - rt%20
	}
	return int(rt) * (1 + peer.conns)
}

// leastTimeNotify is called with upstream.Connect and upstream.FirstByte.
func (rrp *ngxPeerData) leastTimeNotify(m upstream.Moment, ms int64) {
	peer := rrp.current
	metric := &peer.connectTime
	if m == upstream.Connect {
		rrp.connectTime = ms - rrp.started
	} else {
		rrp.firstByteTime = ms - rrp.started
		metric = &peer.firstByteTime
	}
	if !rrp.conf.useInflight || rrp.conf.mode != m {
		return
	}
	ngxAverage(metric, ms-rrp.started)
	if rrp.inflight {
		rrp.inflightDone(ms, ms-rrp.started)
	}
}

func (rrp *ngxPeerData) inflightDone(ms, last int64) {
	peer := rrp.current
	if peer.inflightReqs == 1 {
		peer.inflightLast = 0
	} else {
		peer.inflightLast += (ms-peer.inflightChange)*peer.inflightReqs - last
		peer.inflightChange = ms
	}
	peer.inflightReqs--
	rrp.inflight = false
}

func (rrp *ngxPeerData) freeLeastTimePeer(failed bool, ms int64) {
	peer := rrp.current
	responseTime := ms - rrp.started
	if rrp.inflight {
		rrp.inflightDone(ms, responseTime)
	}
	if failed {
		return
	}
	ngxAverage(&peer.responseTime, responseTime)
	if !rrp.conf.useInflight || rrp.conf.mode != upstream.Connect {
		ngxAverage(&peer.connectTime, rrp.connectTime)
	}
	if rrp.firstByteTime != -1 && (!rrp.conf.useInflight || rrp.conf.mode != upstream.FirstByte) {
		ngxAverage(&peer.firstByteTime, rrp.firstByteTime)
	}
}
