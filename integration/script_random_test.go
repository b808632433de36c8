package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"smtplb/internal/script"
)

// keyAddr is the client's address that gives the key.
func keyAddr(i int) string { return fmt.Sprintf("127.9.%d.%d:0", i/250, 1+i%250) }

// mapKeys are texts that may or may not be found in a map.
func mapKeys(random *rand.Rand) []string {
	keys := []string{
		"", ".", "..", "a", "A", "example.org", "EXAMPLE.org", "example.org.", ".example.org", "x.example.org",
		"a.b.example.org", "mail.example.org", "mail.example.com", "mail.", "mail", "mail.a.b", "x.mail.example.org",
		"default", "hostnames", "~tilde", `back\slash`, `"quoted"`, "tab\there", "line\nbreak", "caf\u00e9", "\x7f", "\x01",
		"user1@host", "USER22@HOST", "user1", "192.0.2.1", "aXb", "axb", "one-two", "one-", "-two",
	}
	labels := []string{"a", "b", "mail", "MX", "example", "org", "com", ""}
	for range 200 {
		var parts []string
		for range 1 + random.IntN(4) {
			parts = append(parts, labels[random.IntN(len(labels))])
		}
		keys = append(keys, strings.Join(parts, "."))
	}
	return keys
}

// definitions are those of all the variables that the test prints.
func definitions(random *rand.Rand, keys []string) *scripts {
	exact := []script.Entry{{Key: "default", Value: "none"}}
	for i := 0; i < len(keys); i += 2 {
		if k := strings.ToLower(keys[i]); !containsKey(exact, k) && k != "default" && k != "hostnames" && !strings.HasPrefix(k, "~") && !strings.HasPrefix(k, `\`) {
			exact = append(exact, script.Entry{Key: k, Value: fmt.Sprintf("e%d", i)})
		}
	}
	exact = append(exact,
		script.Entry{Key: `\default`, Value: "word"}, script.Entry{Key: `\hostnames`, Value: "word"}, script.Entry{Key: `\~tilde`, Value: "word"})
	host := []script.Entry{{Key: "*.com", Value: "com"}, {Key: "*.example.org", Value: "sub"}, {Key: ".b.example.org", Value: "dot"},
		{Key: "mail.*", Value: "mail"}, {Key: "mail.example.*", Value: "mx"}, {Key: "a", Value: "a:$key"}, {Key: "mail.example.org", Value: "exact"},
		{Key: ".a.b", Value: "ab"}, {Key: "~^[.]", Value: "leading"}}
	match := []script.Entry{
		{Key: `~^user(\d+)@(host)$`, Value: "user $1 of $2,"}, {Key: `~*^USER(\d+)(@|$)`, Value: "any $1,"},
		{Key: `~^(?<first>[a-z]+)-(?P<second>[a-z]*)$`, Value: "$second to $first"}, {Key: `~(a)|(b)x|(c)`, Value: "<$1$2$3>"},
		{Key: `~^a.b`, Value: "plain"}, {Key: "axb", Value: "exact"}, {Key: "~^$", Value: "empty"},
	}
	key := script.Geo{Variable: "$key"}
	for i, k := range keys {
		host, _, _ := net.SplitHostPort(keyAddr(i))
		key.Entries = append(key.Entries, script.Entry{Key: host, Value: k})
	}
	networks, rangesOf := someNetworks(random), someRanges(random)
	shares := []script.Entry{{Key: "0.5%", Value: "half"}, {Key: "10%", Value: "tenth"}, {Key: "33.33%", Value: "third"}, {Key: "*", Value: "rest"}}
	return &scripts{
		geos: []script.Geo{
			key,
			{Variable: "$net", Entries: networks}, {Variable: "$range", Ranges: true, Entries: rangesOf},
			{Variable: "$far_net", Source: "$proxy_protocol_addr", Entries: networks},
			{Variable: "$far_range", Source: "$proxy_protocol_addr", Ranges: true, Entries: rangesOf},
		},
		maps: []script.Map{
			{Variable: "$exact", Source: "$key", Entries: exact},
			{Variable: "$host", Source: "${key}", Hostnames: true, Entries: host},
			{Variable: "$match", Source: "$key", Entries: match},
			{Variable: "$moved", Source: "x$key-$remote_addr", Entries: []script.Entry{{Key: "~^x(.*)-", Value: "$1=$host"}}},
			{Variable: "$always", Source: "$key", Volatile: true, Entries: []script.Entry{{Key: "default", Value: "$exact!"}}},
		},
		splits: []script.Split{
			{Variable: "$split", Source: "${remote_addr}AAA$key", Parts: shares},
			{Variable: "$some", Source: "$key", Parts: shares[:3]},
			{Variable: "$far_split", Source: "$proxy_protocol_addr", Parts: shares},
		},
	}
}

func containsKey(list []script.Entry, key string) bool {
	for _, e := range list {
		if e.Key == key {
			return true
		}
	}
	return false
}

// someAddr favours few values of each octet, so that networks are hit.
func someAddr(random *rand.Rand) netip.Addr {
	octet := func() byte {
		if random.IntN(8) == 0 {
			return byte(random.IntN(256))
		}
		return [...]byte{0, 1, 9, 127, 255}[random.IntN(5)]
	}
	if random.IntN(2) == 0 {
		a := netip.AddrFrom4([4]byte{127, octet(), octet(), octet()})
		if random.IntN(4) == 0 {
			return netip.AddrFrom16(a.As16())
		}
		return a
	}
	ip := [16]byte{0: 0x20, 1: 0x01}
	for i := 2; i < len(ip); i += 1 + random.IntN(6) {
		ip[i] = octet()
	}
	return netip.AddrFrom16(ip)
}

func someNetworks(random *rand.Rand) []script.Entry {
	list := []script.Entry{{Key: "default", Value: "none"}, {Key: "::1", Value: "six"}, {Key: "255.255.255.255", Value: "nowhere"}, {Key: "::ffff:127.0.0.0/100", Value: "mapped"}}
	for i := range 150 {
		a := someAddr(random)
		net := fmt.Sprintf("%v/%d", a, random.IntN(a.BitLen()+1))
		list = append(list, script.Entry{Key: net, Value: fmt.Sprintf("n%d", i)})
		if random.IntN(8) == 0 {
			list = append(list, script.Entry{Key: "delete", Value: net})
		}
	}
	return list
}

// someRanges are such as do not overlap but by containing one another.
func someRanges(random *rand.Rand) []script.Entry {
	list := []script.Entry{{Key: "127.0.0.0-127.3.255.255", Value: "runs"}, {Key: "127.1.0.0-127.1.255.255", Value: "run"}, {Key: "default", Value: "none"}}
	for i := range 200 {
		second, third, first := random.IntN(4), random.IntN(10), random.IntN(100)
		r := fmt.Sprintf("127.%d.%d.%d-127.%d.%d.%d", second, third, first, second, third+random.IntN(2), 255-first)
		longer := append(slices.Clip(list), script.Entry{Key: r, Value: fmt.Sprintf("r%d", i)})
		if random.IntN(8) == 0 {
			longer = append(longer, script.Entry{Key: "delete", Value: r})
		}
		// What we refuse wrongly goes unnoticed here, but not in the test of refusals;
		// what we accept wrongly does not: nginx does not start.
		if _, err := script.NewScope(script.Process{}).Geo(script.Geo{Variable: "$r", Ranges: true, Entries: longer}); err == nil {
			list = longer
		}
	}
	return list
}
