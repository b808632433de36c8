package script

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every text compiles or is refused, and what compiles is what a regular
// expression that finds the variables makes of it.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"", "$", "$$", "a$status", "${status}1", "${", "${}", "$1$12", "$x$y", "$remote_addr:$x", "${x", "$\x00", "é$y"} {
		f.Add(seed)
	}
	scope := built(f, func(s *Scope) {
		require.NoError(f, s.Map(Map{Variable: "$x", Source: "1-2", Entries: []Entry{{"~(1)-(2)", "$2$1"}}}))
		require.NoError(f, s.Set("$y"))
	})
	values := map[string]string{"status": "200", "x": "21", "y": "", "remote_addr": "unix:", "pid": "42"}
	reference := regexp.MustCompile(`(?s)\$([1-9])|\$\{([A-Za-z0-9_]+)\}|\$([A-Za-z0-9_]+)|\$`)
	f.Fuzz(func(t *testing.T, text string) {
		known := true
		want := reference.ReplaceAllStringFunc(text, func(m string) string {
			name := strings.ToLower(strings.Trim(m, "${}"))
			if len(m) == 2 && '1' <= m[1] && m[1] <= '9' {
				if strings.Contains("12", name) {
					return name
				}
				return ""
			}
			value, ok := values[name]
			known = known && ok
			return value
		})
		v, err := scope.Compile(text)
		if err != nil {
			_, other := builtins[strings.ToLower(strings.Trim(strings.TrimPrefix(text, "$"), "{}"))]
			require.True(t, !known || other, "%q: %v", text, err)
			return
		}
		if !known {
			return // another built-in variable
		}
		s := begun(scope)
		s.Status = 200
		compiled(t, scope, "$x").Append(nil, s) // so that there are captures
		require.Equal(t, want, string(v.Append(nil, s)), text)
	})
}

// A map gives the value of the entry that a search through the list finds which
// compares each key as the documentation of nginx says. Entries are separated by
// newlines; those the map refuses are left out of both. Fails if an expression is
// tried on nothing, the shortest prefix is taken, or the final dot is kept.
func FuzzMap(f *testing.F) {
	f.Add("example.org", "*.example.org\n.org\nexample.*\n~ex(a)\nexample.org\ndefault", true)
	f.Add("A.b.", "a.*\na.b.*\n*.b\n.b\nb", true)
	f.Add("Ab", "ab\n~*AB\n~b$\n\\~a\n*.b", false)
	f.Add("", "~\n.a\ndefault", true)
	f.Add("a.b.c", "a.*\na.b.*", true)
	f.Add(".a..b", ".a\n.b\n*.a.b\na.*\n..", true)
	f.Fuzz(func(t *testing.T, key, lines string, hostnames bool) {
		var entries []Entry
		for i, line := range strings.SplitN(lines, "\n", 20) {
			longer := append(slices.Clip(entries), Entry{line, fmt.Sprint(i)})
			if NewScope(Process{}).Map(Map{Variable: "$x", Hostnames: hostnames, Entries: longer}) == nil && !strings.Contains(line, "<") {
				entries = longer
			}
		}
		scope := built(t, func(s *Scope) {
			require.NoError(t, s.Map(Map{Variable: "$x", Source: "$server_name", Hostnames: hostnames, Entries: entries}))
		})
		s := begun(scope)
		s.ServerName = key
		require.Equal(t, naiveMap(key, entries, hostnames), string(compiled(t, scope, "$x").Append(nil, s)), entries)
	})
}

func naiveMap(key string, entries []Entry, hostnames bool) (value string) {
	if hostnames {
		key = strings.TrimSuffix(key, ".")
	}
	low := lower(key)
	best := -1
	better := func(rank int, v string) {
		if rank > best {
			best, value = rank, v
		}
	}
	const exact, suffix, prefix, expression, fallback = 5 << 20, 4 << 20, 3 << 20, 2 << 20, 0
	for i, e := range entries {
		k := lower(strings.TrimPrefix(e.Key, `\`))
		switch {
		case e.Key == "default":
			better(fallback, e.Value)
		case strings.HasPrefix(e.Key, "~*"):
			if key != "" && regexp.MustCompile("(?i)"+e.Key[2:]).MatchString(key) {
				better(expression-i, e.Value)
			}
		case strings.HasPrefix(e.Key, "~"):
			if key != "" && regexp.MustCompile(e.Key[1:]).MatchString(key) {
				better(expression-i, e.Value)
			}
		case hostnames && len(k) > 1 && k[0] == '.':
			if key != "" && (low == k[1:] || strings.HasSuffix(low, k)) {
				better(suffix+len(k), e.Value)
			}
		case hostnames && len(k) > 2 && k[:2] == "*.":
			if strings.HasSuffix(low, k[1:]) {
				better(suffix+len(k)-1, e.Value)
			}
		case hostnames && len(k) > 2 && strings.HasSuffix(k, ".*"):
			if strings.HasPrefix(low, k[:len(k)-1]) {
				better(prefix+len(k), e.Value)
			}
		case low == k:
			better(exact, e.Value)
		}
	}
	return value
}

// A geo block gives the value of the longest network that contains the address,
// the last one given of those that are equal. Fails if an IPv4 address in IPv6
// is looked up as IPv6.
func FuzzGeo(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, []byte{127, 0, 0, 0, 8, 0, 127, 0, 0, 1, 32, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1}, []byte{127, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{127, 0, 0, 1, 127, 0, 0, 1, 127, 0, 0, 1, 127, 0, 0, 1}, []byte{127, 0, 0, 1, 9, 1, 127, 0, 0, 1, 100, 1, 127, 0, 0, 1, 9, 3, 127, 0, 0, 1, 200, 2})
	f.Fuzz(func(t *testing.T, ip, spec []byte) {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		var entries []Entry
		type network struct {
			net   netip.Prefix
			value string
		}
		var model []network
		for ; len(spec) >= 6; spec = spec[6:] {
			four := [4]byte(spec)
			addr := netip.AddrFrom4(four)
			if spec[5]&1 != 0 {
				var six [16]byte
				for i := range 4 {
					copy(six[4*i:], four[:])
				}
				addr = netip.AddrFrom16(six)
			}
			net := netip.PrefixFrom(addr, int(spec[4])%(addr.BitLen()+1)).Masked()
			kept := model[:0]
			for _, n := range model {
				if n.net != net {
					kept = append(kept, n)
				}
			}
			if model = kept; spec[5]&2 != 0 {
				entries = append(entries, Entry{"delete", net.String()})
				continue
			}
			value := fmt.Sprint(len(entries))
			entries = append(entries, Entry{net.String(), value})
			model = append(model, network{net, value})
		}
		best := network{net: netip.PrefixFrom(a.Unmap(), 0)}
		for _, n := range model {
			if n.net.Contains(a.Unmap()) && n.net.Bits() >= best.net.Bits() {
				best = n
			}
		}
		requireGeo(t, Geo{Variable: "$x", Entries: entries}, a, best.value)
	})
}

// A geo block with ranges gives what an array of all the addresses would hold,
// where each range overwrites what was there. Fails if a range does not replace
// its duplicate.
func FuzzGeoRanges(f *testing.F) {
	f.Add(uint32(0x0a000005), []byte{0, 0, 2, 255, 0, 5, 0, 5, 1, 0, 1, 255, 1, 3, 1, 9})
	f.Add(uint32(0x0a000005), []byte{0, 0, 0, 9, 0, 0, 0, 9}) // replaced
	f.Add(uint32(0x0a000005), []byte{0, 0, 0, 9, 0, 0, 0, 4}) // cut at the front
	f.Add(uint32(0x0a000005), []byte{0, 0, 0, 9, 0, 6, 0, 9}) // cut at the end
	f.Add(uint32(0x0a000005), []byte{0, 0, 0, 1, 0, 7, 0, 9}) // in a gap
	f.Add(uint32(0x0a010005), []byte{0, 0, 2, 9, 1, 0, 1, 6}) // over several runs
	f.Fuzz(func(t *testing.T, ip uint32, spec []byte) {
		at := func(b []byte) uint32 { return 0x0a000000 | uint32(b[0]&3)<<16 | uint32(int8(b[1]))&0xffff }
		var entries []Entry
		want := ""
		for ; len(spec) >= 4 && len(entries) < 20; spec = spec[4:] {
			r := addrRange{first: at(spec), last: at(spec[2:])}
			value := fmt.Sprint(len(entries))
			longer := append(slices.Clip(entries), Entry{r.String(), value})
			_, err := NewScope(Process{}).Geo(Geo{Variable: "$x", Ranges: true, Entries: longer})
			if err != nil {
				continue // they overlap
			}
			entries = longer
			if r.first <= ip && ip <= r.last {
				want = value
			}
		}
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], ip)
		requireGeo(t, Geo{Variable: "$x", Ranges: true, Entries: entries}, netip.AddrFrom4(a), want)
	})
}

func requireGeo(t *testing.T, g Geo, a netip.Addr, want string) {
	t.Helper()
	scope := built(t, func(s *Scope) {
		_, err := s.Geo(g)
		require.NoError(t, err)
		g.Variable, g.Source = "$y", "$realip_remote_addr"
		_, err = s.Geo(g)
		require.NoError(t, err)
	})
	s := begun(scope)
	s.Client = netip.AddrPortFrom(a, 1)
	s.Front = s.Client
	require.Equal(t, want+" "+want, string(compiled(t, scope, "$x $y").Append(nil, s)), g.Entries)
}
