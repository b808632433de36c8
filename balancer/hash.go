package balancer

import (
	"hash/crc32"
	"strconv"

	"smtplb/upstream"
)

// Hash is nginx's hash without consistent, and that of Perl's Cache::Memcached:
// a key falls on a server by the weights. If that one cannot be had, the key is
// hashed again with a number before it.
//
// See ngx_stream_upstream_get_hash_peer.
type Hash struct {
	shares shares
	digits []byte // of the number; the backing array is kept
}

// NewHash makes a Hash for servers, of which there are at least two.
func NewHash(servers []upstream.Server) *Hash {
	return &Hash{shares: newShares(servers)}
}

// Pick implements upstream.Method.
func (h *Hash) Pick(slots []upstream.Slot, s *upstream.Session) int {
	if s.Misses > maxMisses || len(s.Key) == 0 {
		return RoundRobin{}.Pick(slots, s)
	}
	if !anyEligible(slots) {
		return -1
	}
	total := uint64(h.shares.total())
	for {
		s.Hash += h.hash(s) >> 16 & 0x7fff
		s.Rounds++
		i := h.shares.at(int(uint64(s.Hash) % total))
		if slots[i].Eligible {
			return i
		}
		if s.Misses++; s.Misses > maxMisses {
			return RoundRobin{}.Pick(slots, s)
		}
	}
}

// hash is the CRC-32 of the number of the round, none in the first, and the key.
func (h *Hash) hash(s *upstream.Session) uint32 {
	if s.Rounds == 0 {
		return crc32.ChecksumIEEE(s.Key)
	}
	h.digits = strconv.AppendInt(h.digits[:0], int64(s.Rounds), 10)
	return crc32.Update(crc32.ChecksumIEEE(h.digits), crc32.IEEETable, s.Key)
}
