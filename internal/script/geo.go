package script

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// A Geo is a geo block: a variable whose value is chosen by an address.
type Geo struct {
	Variable string // with its dollar
	// Source is the variable that has the address, with its dollar; if empty it is
	// the client's.
	Source   string
	Ranges   bool // keys are ranges of IPv4 addresses, not networks
	Volatile bool // evaluated anew at each use, not once a session
	// Entries are in the order of the file. Their values have no variables. "delete"
	// has the network or range as its value.
	Entries []Entry
}

// Geo defines a variable by a geo block. The name of the source is looked up by
// Build. The warnings are what an operator should know and nginx would log.
func (s *Scope) Geo(g Geo) (warnings []*EntryError, err error) {
	d := &geography{source: g.Source}
	if g.Source == "$" || g.Source != "" && g.Source[0] != '$' {
		return nil, fmt.Errorf("invalid variable name %q", g.Source)
	}
	if err := s.define(g.Variable, g.Volatile, d); err != nil {
		return nil, err
	}
	var table rangeTable
	for i, e := range g.Entries {
		var odd []string
		if g.Ranges {
			odd, err = d.addRange(&table, e)
		} else {
			odd, err = d.addNetwork(e)
		}
		for _, text := range odd {
			warnings = append(warnings, &EntryError{i, errors.New(text)})
		}
		if err != nil {
			return warnings, &EntryError{i, err}
		}
	}
	if g.Ranges {
		d.ranges = table.ranges()
	}
	return warnings, nil
}

// A geography is what a geo block defines.
type geography struct {
	source   string // a variable with its dollar, or empty
	from     part   // source, compiled
	networks bart.Table[[]byte]
	ranges   ranges
	fallback []byte
}

func (g *geography) addNetwork(e Entry) (odd []string, err error) {
	// A default is nothing else than two networks.
	key, nets := e.Key, []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	remove := key == "delete"
	if remove {
		key = e.Value
	}
	if remove || key != "default" {
		net, exact, ok := parseNetwork(key)
		if !ok {
			return nil, fmt.Errorf("invalid network %q", key)
		}
		if !exact {
			odd = append(odd, fmt.Sprintf("low address bits of %s are meaningless", key))
		}
		nets = []netip.Prefix{net}
	}
	for _, net := range nets {
		old, ok := g.networks.Get(net)
		switch {
		case remove && !ok:
			odd = append(odd, fmt.Sprintf("no network %q to delete", key))
		case remove:
			g.networks.Delete(net)
			continue
		case ok:
			odd = append(odd, fmt.Sprintf("duplicate network %q, value: %q, old value: %q", key, e.Value, old))
		}
		if !remove {
			g.networks.Insert(net, []byte(e.Value))
		}
	}
	return odd, nil
}

func (g *geography) addRange(table *rangeTable, e Entry) (odd []string, err error) {
	switch e.Key {
	case "default":
		if g.fallback != nil {
			odd = append(odd, fmt.Sprintf("duplicate default geo range value: %q, old value: %q", e.Value, g.fallback))
		}
		g.fallback = []byte(e.Value)
	case "delete":
		r, err := parseRange(e.Value)
		if err != nil {
			return nil, err
		}
		if !table.remove(r) {
			odd = append(odd, fmt.Sprintf("no address range %q to delete", e.Value))
		}
	default:
		r, err := parseRange(e.Key)
		if err != nil {
			return nil, err
		}
		r.value = []byte(e.Value)
		return table.add(r, e.Key)
	}
	return odd, nil
}

func (g *geography) compile(s *Scope) (err error) {
	if g.source == "" {
		return nil
	}
	g.from, err = s.variable(g.source[1:])
	return err
}

func (g *geography) uses() []int {
	if g.from.slot == 0 {
		return nil
	}
	return []int{g.from.slot - 1}
}

// none is the address that nginx looks up where there is none: INADDR_NONE.
var none = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// evaluate is ngx_stream_geo_cidr_variable and ngx_stream_geo_range_variable.
func (g *geography) evaluate(s *Session) []byte {
	a := g.addr(s).Unmap()
	if g.ranges != nil {
		if value, ok := g.ranges.find(a); ok {
			return value
		}
		return g.fallback
	}
	if value, ok := g.networks.Lookup(a); ok {
		return value
	}
	return g.fallback
}

func (g *geography) addr(s *Session) netip.Addr {
	if g.source == "" {
		if a := s.Client.Addr(); a.IsValid() {
			return a
		}
		return none
	}
	s.evaluate(g.uses())
	s.lower, _ = g.from.append(s.lower[:0], s)
	if a, ok := parseIPv4(s.lower); ok {
		return a
	}
	if bytes.IndexByte(s.lower, ':') < 0 {
		return none
	}
	if a, err := netip.ParseAddr(string(s.lower)); err == nil && a.Zone() == "" {
		return a
	}
	return none
}

// parseNetwork is ngx_ptocidr: an address, or a network of which exact says
// whether the bits behind the prefix are zero.
func parseNetwork(text string) (net netip.Prefix, exact, ok bool) {
	host, length, slash := strings.Cut(text, "/")
	a, ok := parseIPv4([]byte(host))
	if !ok {
		var err error
		a, err = netip.ParseAddr(host)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return net, false, false
		}
	}
	bits := a.BitLen()
	if slash {
		var err error
		if bits, err = strconv.Atoi(length); err != nil || bits > a.BitLen() || length[0] < '0' {
			return net, false, false
		}
	}
	net = netip.PrefixFrom(a, bits).Masked()
	return net, net.Addr() == a, true
}

// parseIPv4 is ngx_inet_addr, which takes 010 for ten and nothing for zero.
func parseIPv4[T string | []byte](text T) (netip.Addr, bool) {
	var ip [4]byte
	octet, dots := 0, 0
	for i := range len(text) {
		switch c := text[i]; {
		case '0' <= c && c <= '9':
			if octet = octet*10 + int(c-'0'); octet > 255 {
				return netip.Addr{}, false
			}
		case c == '.' && dots < 3:
			ip[dots] = byte(octet)
			octet = 0
			dots++
		default:
			return netip.Addr{}, false
		}
	}
	ip[3] = byte(octet)
	return netip.AddrFrom4(ip), dots == 3
}
