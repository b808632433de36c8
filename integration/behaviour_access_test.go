package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// Random lists of rules, some of them of all servers that have none of their
// own, let the same clients in, whether these come by themselves, through a
// balancer that names them, or by a unix socket.
func testAccess(t *testing.T) {
	const servers, clients = 60, 12
	seed := variable(t, seedVariable, 1)
	t.Logf("%s=%d", seedVariable, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	pass := mx(t, "a").Addr()
	var stream strings.Builder
	fmt.Fprintf(&stream, "set_real_ip_from 127.0.0.0/8;\n%s", rules(random, 3))
	var lists [servers]string
	var own, named [servers]int // ports of those who come by themselves, and of those who are named
	for i := range lists {
		lists[i], own[i], named[i] = rules(random, random.IntN(6)), smtptest.FreePort(t), smtptest.FreePort(t)
		fmt.Fprintf(&stream, "server {\nproxy_pass %s; listen $host:%d; listen $host:%d proxy_protocol; listen unix:$dir/%d;\n%s}\n",
			pass, own[i], named[i], i, lists[i])
	}
	sides := beside(t, own[0], stream.String())
	let, all := 0, 0
	for i, list := range lists {
		var from []string
		for range clients {
			from = append(from, randomClient(random))
		}
		var verdicts [2]string
		for j, s := range sides {
			for _, client := range from {
				verdicts[j] += verdict(t, openFrom(t, client, s.at(own[i]), ""))
				verdicts[j] += verdict(t, open(t, "tcp", s.at(named[i]), fmt.Sprintf("PROXY TCP4 %s 127.0.0.1 1234 25\r\n", client)))
			}
			verdicts[j] += verdict(t, open(t, "tcp", s.at(named[i]), "PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n"))
			verdicts[j] += verdict(t, open(t, "unix", fmt.Sprintf("%s/%d", s.dir, i), ""))
		}
		require.Equal(t, verdicts[0], verdicts[1], "%s\nclients %v, each directly and by a header; by IPv6; by a unix socket", list, from)
		let += strings.Count(verdicts[0], "a")
		all += len(verdicts[0])
	}
	t.Logf("%d of %d clients let in", let, all)
	denied := func(s side) int { return strings.Count(s.log(), "access forbidden by rule") }
	for _, s := range sides {
		smtptest.Eventually(t, patience, s.name+" logs whom it denied", func() bool { return denied(s) == all-let })
	}
}

// rules makes up n directives about clients such as randomClient's.
func rules(random *rand.Rand, n int) string {
	var list strings.Builder
	for range n {
		verb := [...]string{"allow", "deny"}[random.IntN(2)]
		var whom string
		switch random.IntN(8) {
		case 0:
			whom = "all"
		case 1:
			whom = [...]string{"unix:", "2001:db8::/32", "2001:db8::2", "::/0"}[random.IntN(4)]
		case 2, 3:
			whom = randomClient(random)
		default:
			whom = netip.PrefixFrom(netip.MustParseAddr(randomClient(random)), random.IntN(33)).Masked().String()
		}
		fmt.Fprintf(&list, "    %s %s;\n", verb, whom)
	}
	return list.String()
}

// randomClient is one of a few addresses of this machine that differ in all
// parts but the first.
func randomClient(random *rand.Rand) string {
	some := func() int { return [...]int{1, 2, 64, 254}[random.IntN(4)] }
	return fmt.Sprintf("127.%d.%d.%d", some(), some(), some())
}

// verdict is "a" for a client that server a has greeted, and "-" for one that
// was sent away without a byte.
func verdict(t *testing.T, c net.Conn) string {
	t.Helper()
	defer c.Close()
	v := &visitor{Conn: c}
	require.NoError(t, v.greet())
	return v.name
}

// Both directions have the rates that they have from nginx, at the same time and
// over seconds, also where variables say so. They are never more; a busy machine,
// which wakes everybody late, has a few chances not to make them less. What is no
// rate is no limit.
//
// Fails if a rest is a tenth shorter or longer, or if variables become rates before
// there is a server.
func testRates(t *testing.T) {
	const up, down, seconds, chances = 200_000, 120_000, 3, 8
	arrived, began := make(chan float64, 1), make(chan time.Time, 1)
	server := serveRaw(t, func(c net.Conn) {
		go stream(c, down*seconds)
		arrived <- rateOf(c, <-began)
	})
	ports := [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	const free = "127.77.0.1"
	sides := beside(t, ports[0], fmt.Sprintf(`
map $remote_addr $up { default %[4]d; %[6]s ""; }
map $upstream_addr $down { default 1; %[3]s %[5]d; }
server { listen $host:%[1]d; proxy_pass %[3]s; proxy_half_close on; proxy_upload_rate %[4]d; proxy_download_rate %[5]d; }
server { listen $host:%[2]d; proxy_pass %[3]s; proxy_half_close on; proxy_upload_rate $up; proxy_download_rate ${down}; }`,
		ports[0], ports[1], server, up, down, free))
	for _, s := range sides {
		for _, port := range ports {
			near := false
			for range chances {
				begun := time.Now() // no later than the session's, or a busy machine's rates are too high
				began <- begun
				c := open(t, "tcp", s.at(port), "")
				go stream(c, up*seconds)
				fromServer := rateOf(c, begun) / down
				fromClient := <-arrived / up
				t.Logf("%s: %.3f of the rate up, %.3f down", s.name, fromClient, fromServer)
				require.LessOrEqual(t, max(fromClient, fromServer), 1.05, s.name)
				if near = min(fromClient, fromServer) >= 0.95; near {
					break
				}
			}
			require.True(t, near, "%s has not reached its rates", s.name)
		}
		fast := false
		for range chances {
			began <- time.Now()
			c := openFrom(t, free, s.at(ports[1]), "")
			go stream(c, up*seconds)
			fast = <-arrived/up > 2
			c.Close()
			if fast {
				break
			}
		}
		require.True(t, fast, "%s limits what has no rate", s.name)
		smtptest.Eventually(t, patience, s.name+" complains", func() bool { return strings.Contains(s.log(), `invalid size "" while connecting to upstream`) })
	}
}

// stream writes n bytes and the end of the stream.
func stream(c net.Conn, n int) {
	if _, err := c.Write(make([]byte, n)); err == nil {
		_ = smtptest.CloseWrite(c)
	}
}

// rateOf reads to the end and returns how many bytes a second there were since
// the session began. Those read last do not count: their time is not over.
func rateOf(r io.Reader, begun time.Time) float64 {
	var (
		b         = make([]byte, 64<<10)
		last      = begun
		all, late int
	)
	for {
		n, err := r.Read(b)
		if n > 0 {
			last = time.Now()
			all, late = all+n, n
		}
		if err != nil {
			return float64(all-late) / last.Sub(begun).Seconds()
		}
	}
}
