package balancer

import (
	"sort"

	"smtplb/upstream"
)

// shares is the sum of the weights as a line on which each server has a piece
// as long as its weight, in the order of the configuration. Servers that are
// down have theirs, too: so nobody else's moves when one goes down.
type shares []int // where each piece ends

func newShares(servers []upstream.Server) shares {
	ends := make(shares, len(servers))
	total := 0
	for i, s := range servers {
		total += s.Weight
		ends[i] = total
	}
	return ends
}

// total is the length of the line.
func (s shares) total() int { return s[len(s)-1] }

// at returns whose piece x lies in.
func (s shares) at(x int) int { return sort.SearchInts(s, x+1) }
