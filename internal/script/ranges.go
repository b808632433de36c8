package script

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// An addrRange is the value of the IPv4 addresses from first to last.
type addrRange struct {
	first, last uint32
	value       []byte
}

// parseRange reads first-last. nginx takes 255.255.255.255 for no address.
func parseRange(text string) (r addrRange, err error) {
	from, to, _ := strings.Cut(text, "-")
	first, ok1 := parseIPv4(from)
	last, ok2 := parseIPv4(to)
	if !ok1 || !ok2 || first == none || last == none || last.Less(first) {
		return r, fmt.Errorf("invalid range %q", text)
	}
	return addrRange{first: ipv4(first), last: ipv4(last)}, nil
}

func ipv4(a netip.Addr) uint32 {
	ip := a.As4()
	return binary.BigEndian.Uint32(ip[:])
}

// ranges are sorted and disjoint.
type ranges []addrRange

func (r ranges) find(a netip.Addr) (value []byte, ok bool) {
	if !a.Is4() {
		return nil, false
	}
	ip := ipv4(a)
	i, found := slices.BinarySearchFunc(r, ip, func(r addrRange, ip uint32) int { return cmp.Compare(r.first, ip) })
	if !found {
		i-- // to the last that begins before ip
	}
	if i < 0 || r[i].last < ip {
		return nil, false
	}
	return r[i].value, true
}

// A rangeTable is a geo block with ranges as nginx builds it: ranges are cut at
// each multiple of 65536, and it is the pieces that may replace or split each
// other and must not overlap otherwise. Each element is sorted and disjoint.
type rangeTable map[uint32]ranges

// pieces calls f with the parts of r within each run of 65536 addresses.
func (r addrRange) pieces(f func(run uint32, piece addrRange) error) error {
	for run := r.first >> 16; run <= r.last>>16; run++ {
		piece := addrRange{max(r.first, run<<16), min(r.last, run<<16|0xffff), r.value}
		if err := f(run, piece); err != nil {
			return err
		}
	}
	return nil
}

// add is ngx_stream_geo_add_range. The text is that of the range.
func (t *rangeTable) add(r addrRange, text string) (odd []string, err error) {
	if *t == nil {
		*t = make(rangeTable)
	}
	err = r.pieces(func(run uint32, piece addrRange) error {
		list := (*t)[run]
		// at is behind the last that does not begin after the piece.
		at := len(list)
		for at > 0 && piece.last < list[at-1].first {
			at--
		}
		if at == 0 || piece.first > list[at-1].last {
			(*t)[run] = slices.Insert(list, at, piece)
			return nil
		}
		old := list[at-1]
		switch {
		case piece.first < old.first || piece.last > old.last:
			return fmt.Errorf("range %q overlaps %q", text, old.String())
		case piece.first == old.first && piece.last == old.last && odd == nil: // 65536 pieces are one range
			odd = append(odd, fmt.Sprintf("duplicate range %q, value: %q, old value: %q", text, r.value, old.value))
		}
		around := ranges{piece}
		if old.first < piece.first {
			around = slices.Insert(around, 0, addrRange{old.first, piece.first - 1, old.value})
		}
		if piece.last < old.last {
			around = append(around, addrRange{piece.last + 1, old.last, old.value})
		}
		(*t)[run] = slices.Replace(list, at-1, at, around...)
		return nil
	})
	return odd, err
}

// remove is ngx_stream_geo_delete_range. It returns false if a piece was not
// there; the others are removed nevertheless.
func (t *rangeTable) remove(r addrRange) bool {
	all := true
	_ = r.pieces(func(run uint32, piece addrRange) error {
		n := len((*t)[run])
		rest := slices.DeleteFunc((*t)[run], func(r addrRange) bool {
			return r.first == piece.first && r.last == piece.last
		})
		if len(rest) == n {
			all = false
		} else {
			(*t)[run] = rest
		}
		return nil
	})
	return all
}

// ranges returns the whole table, never nil, with what was cut put together
// again.
func (t *rangeTable) ranges() ranges {
	all := make(ranges, 0, len(*t))
	for _, list := range *t {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b addrRange) int { return cmp.Compare(a.first, b.first) })
	whole := all[:0]
	for _, r := range all {
		if n := len(whole); n > 0 && whole[n-1].last+1 == r.first && string(whole[n-1].value) == string(r.value) {
			whole[n-1].last = r.last
			continue
		}
		whole = append(whole, r)
	}
	return slices.Clip(whole)
}

func (r addrRange) String() string {
	var first, last [4]byte
	binary.BigEndian.PutUint32(first[:], r.first)
	binary.BigEndian.PutUint32(last[:], r.last)
	return netip.AddrFrom4(first).String() + "-" + netip.AddrFrom4(last).String()
}
