package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// Maps, geos and split_clients that are made up at random choose the same for
// the same clients: of IPv4 and IPv6, named by a PROXY header, and at a unix
// socket; and for texts of all kinds, which are parts of these addresses.
//
// Fails if capital letters of a map's entry are another text, or if a share is a
// ten thousandth more.
func TestTablesAsNginx(t *testing.T) {
	t.Parallel()
	const tables, clients = 12, 150
	seed := variable(t, seedVariable, 1)
	t.Logf("%s=%d", seedVariable, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 2))
	var conf, text strings.Builder
	for i := range tables {
		fmt.Fprintf(&conf, "geo $geo%d {%s}\n", i, geoLines(random))
		fmt.Fprintf(&conf, "geo $proxy_protocol_server_addr $there%d {%s}\n", i, geoLines(random))
		fmt.Fprintf(&conf, "map %s $map%d {%s}\n", mapSources[random.IntN(len(mapSources))], i, mapLines(random))
		fmt.Fprintf(&conf, "split_clients \"%s\" $split%d {%s}\n", mapSources[random.IntN(len(mapSources))], i, splitLines(random))
		fmt.Fprintf(&text, "$geo%[1]d,$there%[1]d,$map%[1]d,$split%[1]d;", i)
	}
	port, ready := smtptest.FreePort(t), smtptest.FreePort(t)
	fmt.Fprintf(&conf, `
set_real_ip_from 127.0.0.0/8;
server { listen $host:%d; return ""; }
server { listen $host:%d proxy_protocol; listen unix:$dir/in; return "%s"; }`, ready, port, text.String())
	sides := beside(t, ready, conf.String())
	answer := func(c net.Conn) string {
		defer c.Close()
		return toEnd(c)
	}
	compare := func(client string, dial func(side) net.Conn) string {
		theirs, ours := answer(dial(sides[0])), answer(dial(sides[1]))
		require.Equal(t, theirs, ours, "%s\n%s", client, conf.String())
		return ours
	}
	all := map[string]bool{}
	for range clients {
		header := fmt.Sprintf("PROXY TCP4 %s %s %d 25\r\n", someIPv4(random), someIPv4(random), 1+random.IntN(3))
		if random.IntN(2) == 0 {
			header = fmt.Sprintf("PROXY TCP6 %s %s %d 25\r\n", someIPv6(random), someIPv6(random), 1+random.IntN(3))
		}
		all[compare(header, func(s side) net.Conn { return open(t, "tcp", s.at(port), header) })] = true
	}
	compare("a unix socket", func(s side) net.Conn { return open(t, "unix", s.dir+"/in", "") })
	t.Logf("%d answers to %d clients", len(all), clients)
	require.Greater(t, len(all), clients/4, "tables that say the same to all show nothing")
}

// mapSources are texts that only the client decides.
var mapSources = []string{
	"$remote_addr", "$remote_addr:$remote_port", "$remote_port", "$proxy_protocol_server_addr",
	"X$remote_addr-Y", "$proxy_protocol_addr", "$protocol$remote_port",
}

// someIPv4 and someIPv6 are of few different parts.
func someIPv4(random *rand.Rand) string {
	some := func() int { return [...]int{0, 1, 2, 128, 255}[random.IntN(5)] }
	return fmt.Sprintf("%d.%d.%d.%d", [...]int{10, 192, 127}[random.IntN(3)], some(), some(), some())
}

func someIPv6(random *rand.Rand) string {
	some := func() string { return [...]string{"0", "1", "8000", "abcd"}[random.IntN(4)] }
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:%s:%s::%s", some(), some(), some())).String()
}

func geoLines(random *rand.Rand) string {
	lines := map[string]bool{}
	if random.IntN(4) > 0 {
		lines["default none"] = true
	}
	seen := map[string]bool{}
	for i := range 12 {
		addr, bits := netip.MustParseAddr(someIPv4(random)), random.IntN(33)
		if random.IntN(2) == 0 {
			addr, bits = netip.MustParseAddr(someIPv6(random)), 16+random.IntN(113)
		}
		network := netip.PrefixFrom(addr, bits).Masked().String()
		if !seen[network] {
			seen[network] = true
			lines[fmt.Sprintf("%s g%d", network, i)] = true
		}
	}
	return joined(lines)
}

func mapLines(random *rand.Rand) string {
	lines, seen := map[string]bool{}, map[string]bool{}
	for i := range 12 {
		var key string
		switch random.IntN(6) {
		case 0:
			key = strconv.Itoa(1 + random.IntN(3))
		case 1:
			key = strings.ToUpper(someIPv6(random))
		case 2:
			key = fmt.Sprintf(`"~*^X?%d\.(\d+)"`, [...]int{10, 192, 127}[random.IntN(3)])
		case 3:
			key = fmt.Sprintf(`"~:%s(:|$)"`, [...]string{"1", "8000", "abcd"}[random.IntN(3)])
		case 4:
			key = `tcp` + strconv.Itoa(1+random.IntN(3))
		default:
			key = someIPv4(random)
		}
		if value := fmt.Sprintf("m%d", i); !seen[key] {
			seen[key] = true
			if strings.Contains(key, `(\d+)`) {
				value += "-$1"
			}
			lines[key+" "+value] = true
		}
	}
	if random.IntN(4) > 0 {
		lines[`default "<$remote_port>"`] = true
	}
	return joined(lines)
}

func splitLines(random *rand.Rand) string {
	lines, left := "", 10000
	for i := range 1 + random.IntN(4) {
		share := 1 + random.IntN(left/2)
		left -= share
		lines += fmt.Sprintf(" %d.%02d%% s%d;", share/100, share%100, i)
	}
	if random.IntN(2) == 0 {
		lines += " * rest;"
	}
	return lines
}

// joined ends each line; their order is that of their text.
func joined(lines map[string]bool) (text string) {
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		text += " " + line + ";"
	}
	return text
}
