package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// The same groups, sessions and order of sessions in front of this program and
// of Debian's nginx: what either chooses, the other does.

// voters are servers that tell each client who they are, and when its session
// has ended for them. They speak no SMTP.
type voters struct {
	addrs []string

	mu    sync.Mutex
	last  int
	ended map[int]chan struct{} // by the number of a session
}

func newVoters(t *testing.T, n int) *voters {
	t.Helper()
	v := &voters{ended: make(map[int]chan struct{})}
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { ln.Close() })
		v.addrs = append(v.addrs, ln.Addr().String())
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go v.serve(conn, i)
			}
		}()
	}
	return v
}

// serve says "server session\n", waits for the end and closes.
func (v *voters) serve(conn net.Conn, server int) {
	defer conn.Close()
	ended := make(chan struct{})
	defer close(ended)
	v.mu.Lock()
	v.last++
	n := v.last
	v.ended[n] = ended
	v.mu.Unlock()
	if _, err := fmt.Fprintf(conn, "%d %d\n", server, n); err != nil {
		return
	}
	_, _ = conn.Read(make([]byte, 1))
}

// ballot is a session with one of the voters.
type ballot struct {
	conn   net.Conn
	server int
	ended  chan struct{}
}

// ask opens a session with whomever a proxy chooses for a client.
func (v *voters) ask(addr, client string) (*ballot, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	b := &ballot{conn: conn}
	var line [32]byte
	n := 0
	for n == 0 || line[n-1] != '\n' {
		_ = conn.SetDeadline(time.Now().Add(patience))
		got, err := conn.Read(line[n:])
		if n += got; err != nil {
			conn.Close()
			return nil, fmt.Errorf("%s: said %q: %w", addr, line[:n], err)
		}
	}
	server, session, _ := strings.Cut(strings.TrimSpace(string(line[:n])), " ")
	if b.server, err = strconv.Atoi(server); err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(session)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	b.ended = v.ended[number]
	delete(v.ended, number)
	v.mu.Unlock()
	return b, nil
}

// end closes the session and waits until the server has seen that, which is
// after the proxy has taken it off its count. No port is left in TIME_WAIT.
func (b *ballot) end() {
	_ = b.conn.(*net.TCPConn).SetLinger(0)
	b.conn.Close()
	<-b.ended
}

// group is a group of voters as both configurations say it.
type group struct {
	method, nginx string // the directive
	weights       []int
	down, backup  []bool
}

func plainGroup(method, nginx string, weights ...int) group {
	return group{method, nginx, weights, make([]bool, len(weights)), make([]bool, len(weights))}
}

// pair is a group behind this program and behind nginx.
type pair struct {
	*voters
	ours, nginx string // where they listen
}

// both starts this program and nginx with the same groups of voters.
func both(t *testing.T, v *voters, groups ...group) []pair {
	t.Helper()
	var ours, theirs strings.Builder
	ours.WriteString(workers(2))
	pairs := make([]pair, len(groups))
	first := ""
	for i, g := range groups {
		pairs[i] = pair{v, freeAddr(t), peers.ReserveAddr(t)}
		if first == "" {
			first = pairs[i].nginx
		}
		name := fmt.Sprint("group", i)
		var list []string
		fmt.Fprintf(&theirs, "upstream %s { %s\n", name, g.nginx)
		for j, weight := range g.weights {
			line := fmt.Sprintf("server %s weight=%d", v.addrs[j], weight)
			params := []string{fmt.Sprint("weight = ", weight)}
			if g.down[j] {
				line += " down"
				params = append(params, "down = true")
			}
			if g.backup[j] {
				line += " backup"
				params = append(params, "backup = true")
			}
			fmt.Fprintf(&theirs, "%s;\n", line)
			list = append(list, server(v.addrs[j], params...))
		}
		fmt.Fprintf(&theirs, "}\nserver { listen %s; proxy_pass %s; }\n", pairs[i].nginx, name)
		ours.WriteString(checkedUpstream(name, "check = false\nmethod = "+g.method, list...))
		ours.WriteString(proxy(pairs[i].ours, name, "smtp = false", "proxy_half_close = false"))
	}
	peers.NginxStream(t, first, theirs.String())
	smtptest.Start(t, ours.String())
	return pairs
}

// drawGroup makes up a group, some with servers that are down or backups.
func drawGroup(random *rand.Rand, method, nginx string, n int) group {
	g := group{method: method, nginx: nginx}
	for i := range 1 + random.IntN(n) {
		g.weights = append(g.weights, 1+random.IntN(9))
		g.down = append(g.down, i > 0 && random.IntN(6) == 0)
		g.backup = append(g.backup, i > 0 && random.IntN(5) == 0)
	}
	return g
}

// few runs f for every i below n, some at a time, and returns the first error.
func few(n int, f func(i int) error) error {
	next := make(chan int)
	failed := make(chan error, 1)
	var running sync.WaitGroup
	for range 6 {
		running.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// sequence runs sessions at one proxy: those of the script open, in its order,
// and end in between, when the script says how many of the eldest do.
func (v *voters) sequence(addr string, script []int) (chosen []int, err error) {
	var open []*ballot
	for _, ends := range script {
		b, err := v.ask(addr, "127.0.0.1")
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, b.server)
		open = append(open, b)
		for range min(ends, len(open)) {
			open[0].end()
			open = open[1:]
		}
	}
	for _, b := range open {
		b.end()
	}
	return chosen, nil
}

// A hundred groups made up by chance, of 200 sessions each: by round robin one
// after the other, by least_conn with some open at a time.
//
// Fails if ties are broken otherwise, for instance by the last of equals or
// without a rotation, if the one with the fewest sessions pays for being
// chosen, or if weights do not count.
func TestSequencesAsNginx(t *testing.T) {
	t.Parallel()
	const groups, sessions = 100, 200
	random := rand.New(rand.NewPCG(6, 0))
	all := make([]group, groups)
	scripts := make([][]int, groups)
	for i := range all {
		scripts[i] = make([]int, sessions)
		if i%2 == 0 {
			all[i] = drawGroup(random, `"round_robin"`, "", 6)
			for j := range scripts[i] {
				scripts[i][j] = 1
			}
		} else {
			all[i] = drawGroup(random, `"least_conn"`, "least_conn;", 6)
			for j := range scripts[i] {
				scripts[i][j] = random.IntN(4) * random.IntN(2)
			}
		}
	}
	pairs := both(t, newVoters(t, 6), all...)
	require.NoError(t, few(groups, func(i int) error {
		want, err := pairs[i].sequence(pairs[i].nginx, scripts[i])
		if err != nil {
			return err
		}
		got, err := pairs[i].sequence(pairs[i].ours, scripts[i])
		if err == nil && fmt.Sprint(want) != fmt.Sprint(got) {
			err = fmt.Errorf("%+v\nnginx: %v\nours:  %v", all[i], want, got)
		}
		return err
	}))
}

// A thousand clients get the server that nginx has for them, by both hashes,
// also from a list with one server fewer, and one with a server that is down; and
// by a constant the one that it has for all. Names are as configured, weights and
// all.
//
// Fails if the key has a port, if a hash, a point or an order differs, or if a
// constant is taken for the client's address.
func TestHashesAsNginx(t *testing.T) {
	t.Parallel()
	const clients = 1000
	var all []group
	for _, m := range [][2]string{
		{`{ type = "hash", key = "client_address" }`, "hash $remote_addr;"},
		{`{ type = "hash", key = "client_address", consistent = true }`, "hash $remote_addr consistent;"},
	} {
		full, fewer := plainGroup(m[0], m[1], 1, 2, 1, 3, 1), plainGroup(m[0], m[1], 1, 2, 1, 3)
		down := plainGroup(m[0], m[1], 1, 2, 1, 3, 1)
		down.down[3] = true
		all = append(all, full, fewer, down)
	}
	all = append(all,
		plainGroup(`{ type = "hash", key = "gold" }`, "hash gold;", 1, 2, 1, 3, 1),
		plainGroup(`{ type = "hash", key = "gold", consistent = true }`, "hash gold consistent;", 1, 2, 1, 3, 1))
	pairs := both(t, newVoters(t, 5), all...)
	require.NoError(t, few(clients, func(i int) error {
		client := fmt.Sprintf("127.%d.%d.%d", 1+i%251, i*7%256, 1+i*13%253)
		for j, p := range pairs {
			want, err := p.ask(p.nginx, client)
			if err != nil {
				return err
			}
			want.end()
			got, err := p.ask(p.ours, client)
			if err != nil {
				return err
			}
			got.end()
			if want.server != got.server {
				return fmt.Errorf("%s at %s: want %d, got %d", client, all[j].nginx, want.server, got.server)
			}
		}
		return nil
	}))
}

// Chance gives each server the share of sessions that its weight says, here as
// at nginx, and to the better of two what nginx gives: with none open beside,
// that is the second that is drawn, and light servers have more than their
// share. All within five standard deviations.
//
// Fails if weights are ignored, or if two are not drawn.
func TestChanceAsNginx(t *testing.T) {
	t.Parallel()
	const sessions = 2000
	weights := []int{1, 2, 3, 4}
	pairs := both(t, newVoters(t, 4), plainGroup(`"random"`, "random;", weights...),
		plainGroup(`{ type = "random", two = true }`, "random two least_conn;", weights...))
	count := func(addr string, v *voters) []float64 {
		got := make([]float64, len(weights))
		chosen, err := v.sequence(addr, slices.Repeat([]int{1}, sessions))
		require.NoError(t, err)
		for _, server := range chosen {
			got[server]++
		}
		return got
	}
	deviation := func(share float64) float64 { return math.Sqrt(sessions * share * (1 - share)) }
	for _, addr := range []string{pairs[0].ours, pairs[0].nginx} {
		for i, n := range count(addr, pairs[0].voters) {
			share := float64(weights[i]) / 10
			require.InDelta(t, sessions*share, n, 5*deviation(share), "server %d", i)
		}
	}
	ours, nginx := count(pairs[1].ours, pairs[1].voters), count(pairs[1].nginx, pairs[1].voters)
	for i := range weights {
		share := 0.0
		for j, first := range weights {
			if j != i {
				share += float64(first) / 10 * float64(weights[i]) / float64(10-first)
			}
		}
		require.InDelta(t, sessions*share, ours[i], 5*deviation(share), "server %d: %v, nginx %v", i, ours, nginx)
		require.InDelta(t, sessions*share, nginx[i], 5*deviation(share), "server %d: %v, nginx %v", i, ours, nginx)
	}
}

// Clients go to the server that greets fast, once both have greeted. The time
// until the connection is made tells nothing of that: by it, weight decides.
//
// Fails if the time is not the one configured, or is not taken.
func TestLeastTimeByGreeting(t *testing.T) {
	t.Parallel()
	slow := ledger.NewServer(t, smtptest.Script{Name: "s", Connect: smtptest.Step{Wait: time.Second}})
	fast := mx(t, "f")
	for _, test := range []struct{ of, weight, want string }{
		{`of = "first_byte"`, "weight = 1", "sfffff"},
		{`of = "first_byte", inflight = true`, "weight = 1", "sfffff"},
		{`of = "last_byte"`, "weight = 1", "sfffff"},
		{`of = "first_byte"`, "weight = 10", "sf"},
		{`of = "connect"`, "weight = 100", "sss"},
	} {
		listen := freeAddr(t)
		p := smtptest.Start(t, verbose+checkedUpstream("mail", "check = false\nmethod = { type = \"least_time\", "+test.of+" }",
			server(slow.Addr(), test.weight), server(fast.Addr()))+proxy(listen, "mail"))
		got := ""
		for i := range test.want {
			got += visits(t, listen, 1)
			p.Await("session ended", i+1) // a time is taken when its session is over
		}
		require.Equal(t, test.want, got, test.of)
	}
}
