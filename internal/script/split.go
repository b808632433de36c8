package script

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// A Split is a split_clients block: a variable whose value is chosen by the hash
// of a text.
type Split struct {
	Variable string // with its dollar
	Source   string // any text
	// Parts have a percentage with up to two decimals as key, such as 0.5%, or *
	// for all the rest. Their values have no variables.
	Parts []Entry
}

// Split defines a variable by a split_clients block. Names in its source are
// looked up by Build.
func (s *Scope) Split(c Split) error {
	d := &split{source: lazy{text: c.Source}}
	if err := s.define(c.Variable, false, d); err != nil {
		return err
	}
	var sum, end uint32
	for i, p := range c.Parts {
		share := uint32(0)
		if p.Key != "*" {
			var ok bool
			if share, ok = parsePercent(p.Key); !ok {
				return &EntryError{i, fmt.Errorf("invalid percent value %q", p.Key)}
			}
		}
		if sum += share; share == 0 {
			sum = hundredPercent
		}
		if sum > hundredPercent {
			return &EntryError{i, errors.New("percent total is greater than 100%")}
		}
		end += uint32(uint64(share) * math.MaxUint32 / hundredPercent)
		d.parts = append(d.parts, splitPart{end: end, rest: share == 0, value: []byte(p.Value)})
	}
	return nil
}

const hundredPercent = 100_00

// parsePercent reads a percentage as hundredths of a percent, of which there is
// at least one and so many that a sum cannot overflow.
func parsePercent(text string) (uint32, bool) {
	text, ok := strings.CutSuffix(text, "%")
	if !ok {
		return 0, false
	}
	whole, fraction, _ := strings.Cut(text, ".")
	if len(fraction) > 2 {
		return 0, false
	}
	n := uint32(0)
	for _, c := range []byte(whole + (fraction + "00")[:2]) {
		if c < '0' || c > '9' || n > hundredPercent {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, n > 0
}

// A split is what a split_clients block defines.
type split struct {
	source lazy
	parts  []splitPart
}

// A splitPart has the hashes below end that no part before it has, or the rest.
type splitPart struct {
	end   uint32
	rest  bool
	value []byte
}

func (d *split) compile(s *Scope) error { return d.source.compile(s) }

func (d *split) uses() []int { return d.source.value.slots }

// evaluate is ngx_stream_split_clients_variable.
func (d *split) evaluate(s *Session) []byte {
	hash := murmur2(s.hold(d.source.value))
	for i := range d.parts {
		if p := &d.parts[i]; p.rest || hash < p.end {
			return p.value
		}
	}
	return nil
}

// murmur2 is Austin Appleby's MurmurHash2 with the seed 0, as ngx_murmur_hash2.
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		h = h*m ^ (k^k>>24)*m
	}
	if len(b) > 0 {
		for i, c := range b {
			h ^= uint32(c) << (8 * i)
		}
		h *= m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
