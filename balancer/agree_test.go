package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"smtplb/balancer"
	"smtplb/upstream"
)

// ngxMethod is a method, and nginx's function for it.
type ngxMethod struct {
	name    string
	options balancer.Options
	get     func(rrp *ngxPeerData, now, ms int64) *ngxPeer
}

func leastTime(of upstream.Moment, inflight bool) balancer.Options {
	return balancer.Options{Name: "least_time", Measure: upstream.Measure{Of: of, Inflight: inflight}}
}

var ngxMethods = []ngxMethod{
	{"round_robin", balancer.Options{Name: "round_robin"}, func(rrp *ngxPeerData, now, _ int64) *ngxPeer { return rrp.getRoundRobinPeer(now) }},
	{"least_conn", balancer.Options{Name: "least_conn"}, (*ngxPeerData).getLeastConnPeer},
	{"hash", balancer.Options{Name: "hash"}, (*ngxPeerData).getHashPeer},
	{"hash consistent", balancer.Options{Name: "hash", Consistent: true}, (*ngxPeerData).getChashPeer},
	{"random", balancer.Options{Name: "random"}, (*ngxPeerData).getRandomPeer},
	{"random two", balancer.Options{Name: "random", Two: true}, (*ngxPeerData).getRandom2Peer},
	{"least_time connect", leastTime(upstream.Connect, false), (*ngxPeerData).getLeastTimePeer},
	{"least_time first_byte", leastTime(upstream.FirstByte, false), (*ngxPeerData).getLeastTimePeer},
	{"least_time last_byte", leastTime(upstream.LastByte, false), (*ngxPeerData).getLeastTimePeer},
	{"least_time connect inflight", leastTime(upstream.Connect, true), (*ngxPeerData).getLeastTimePeer},
	{"least_time first_byte inflight", leastTime(upstream.FirstByte, true), (*ngxPeerData).getLeastTimePeer},
	{"least_time last_byte inflight", leastTime(upstream.LastByte, true), (*ngxPeerData).getLeastTimePeer},
}

// primariesOnly reports whether a method leaves the backups to round robin.
func (m ngxMethod) primariesOnly() bool {
	return m.options.Name == "hash" || m.options.Name == "random"
}

// observed keeps what the method sees and leaves behind, which a Snapshot does
// not show.
type observed struct {
	upstream.Method
	seen *[]seen
}

type seen struct {
	Current int
	Latency int64 // of the eligible
}

func (o observed) Pick(slots []upstream.Slot, s *upstream.Session) int {
	*o.seen = (*o.seen)[:0]
	for _, s := range slots {
		var latency int64
		if s.Eligible {
			latency = s.Latency
		}
		*o.seen = append(*o.seen, seen{0, latency})
	}
	i := o.Method.Pick(slots, s)
	for i, s := range slots {
		(*o.seen)[i].Current = s.Current
	}
	return i
}

func (o observed) Measure() upstream.Measure {
	if m, ok := o.Method.(upstream.TimedMethod); ok {
		return m.Measure()
	}
	return upstream.Measure{}
}

// Random groups live random lives beside the model of nginx, by each method,
// and agree after each step on the server picked, the credits, the latencies
// expected, the tries left, and each server's effective weight, connections and
// fails.
//
// Fails within the hundred groups of one run if, for instance: the effective
// weight recovers before it is added; the last of equals is best; a server is
// out for < instead of <= fail_timeout; a pick after the window does not set
// checked; a failure sets only accessed or only checked; a success clears fails
// at accessed <= checked; max_fails=0 takes a weight's penalty; the single
// server keeps its tries or counts its failures; one of the first, second or
// later servers tried is not remembered; or a session returns from the backups.
//
// And if, of the other methods: a unique winner of least_conn pays or takes part
// in the rotation; hash begins anew with each try, numbers the first round, or
// leaves servers that are down without their share; the points of a ring are
// not deduplicated, or servers of one name do not share them; the first draw of
// two is no miss, or the second does not win when they are equal; the latency
// is not halved while a server is idle; failed sessions are learned from; or a
// session is in flight for longer than its moment.
func TestAgreesWithNginx(t *testing.T) {
	t.Parallel()
	for _, m := range ngxMethods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { liveBesideNginx(t, m) })
		})
	}
}

// life is a session, here and in the model.
type life struct {
	turn      upstream.Turn
	peer      *upstream.Peer
	ngx       *ngxPeerData
	connected bool
	greeted   bool
}

func liveBesideNginx(t *rapid.T, m ngxMethod) {
	all := drawGroup(t, m)
	c := by(m.options, all...)
	var saw []seen
	random := rand.New(rand.NewPCG(0, 0))
	method := c.Method
	c.Method = func(s []upstream.Server) upstream.Method {
		inner := method(s)
		if _, ok := inner.(*balancer.Random); ok {
			inner = balancer.NewRandom(s, m.options.Two, func(n int) int { return int(random.Uint32()) % n })
		}
		return observed{inner, &saw}
	}
	g := upstream.NewGroup(c)
	peers := ngxInit(all)
	ngxRandom := rand.New(rand.NewPCG(0, 0))
	conf := ngxConf{random: func() int { return int(ngxRandom.Uint32()) }}
	conf.mode, conf.useInflight = m.options.Measure.Of, m.options.Measure.Inflight
	if m.options.Consistent {
		conf.points = ngxChash(peers)
	}
	ms := rapid.Int64Range(1000, 2_000_000).Draw(t, "start")
	var live []*life

	next := func(l *life) {
		saw = nil
		seed := rapid.Uint64().Draw(t, "seed") // no draws are left over from the last pick
		random = rand.New(rand.NewPCG(seed, 1))
		ngxRandom = rand.New(rand.NewPCG(seed, 1))
		want := m.get(l.ngx, ms/1000, ms)
		l.turn.Now = ms
		l.peer = g.Next(&l.turn, ms/1000)
		l.connected, l.greeted = false, false
		if want == nil {
			require.Nil(t, l.peer, "no live upstreams")
			return
		}
		require.Equal(t, want.server, index(l.peer), "server picked")
		live = append(live, l)

		if saw == nil {
			return // the single server: no method was asked
		}
		var credits []int
		for peer := l.ngx.peers.peer; peer != nil; peer = peer.next {
			credits = append(credits, peer.currentWeight)
		}
		for i, peer := 0, l.ngx.peers.peer; peer != nil; i, peer = i+1, peer.next {
			require.Equal(t, peer.currentWeight, saw[i].Current, "current weights, want %v", credits)
			if saw[i].Latency != 0 {
				require.Equal(t, peer.rt, saw[i].Latency, "expected latency")
			}
		}
	}
	connected := func(l *life) {
		l.turn.Now = ms
		l.ngx.notifyRoundRobinPeer()
		if !l.connected {
			l.ngx.leastTimeNotify(upstream.Connect, ms)
		}
		l.peer.Reached(&l.turn, upstream.Connect)
		l.peer.Connected(ms / 1000)
		l.connected = true
	}
	release := func(l *life, o upstream.Outcome) {
		live = slices.DeleteFunc(live, func(x *life) bool { return x == l })
		failed := o != upstream.OutcomeOK
		if !failed && !l.connected {
			connected(l)
		}
		l.ngx.freeLeastTimePeer(failed, ms)
		l.ngx.freeRoundRobinPeer(failed, ms/1000)
		l.turn.Now = ms
		l.peer.Release(&l.turn, o, ms/1000)
		require.Equal(t, l.ngx.tries, l.turn.Left(), "tries")
	}
	draw := func(t *rapid.T) *life {
		if len(live) == 0 {
			t.Skip()
		}
		return rapid.SampledFrom(live).Draw(t, "session")
	}

	t.Repeat(map[string]func(*rapid.T){
		"session": func(t *rapid.T) {
			if len(live) > 12 {
				t.Skip()
			}
			l := &life{ngx: ngxInitPeer(peers)}
			l.ngx.conf = conf
			g.Begin(&l.turn)
			l.ngx.key = rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.2", "192.0.2.77", "2001:db8::1"}).Draw(t, "key")
			l.turn.Session.Key = []byte(l.ngx.key)
			if m.options.Consistent {
				l.ngx.initChashPeer()
			}
			require.Equal(t, l.ngx.tries, l.turn.Left())
			next(l)
		},
		"connected": func(t *rapid.T) { connected(draw(t)) },
		"greeted": func(t *rapid.T) {
			l := draw(t)
			if !l.connected || l.greeted {
				t.Skip()
			}
			l.greeted = true
			l.ngx.leastTimeNotify(upstream.FirstByte, ms)
			l.turn.Now = ms
			l.peer.Reached(&l.turn, upstream.FirstByte)
		},
		"failed": func(t *rapid.T) {
			l := draw(t)
			release(l, upstream.OutcomeConnectTimeout)
			if l.turn.Left() > 0 {
				next(l)
			}
		},
		"ended":  func(t *rapid.T) { release(draw(t), upstream.OutcomeOK) },
		"second": func(*rapid.T) { ms += 1000 },
		"moment": func(*rapid.T) { ms += rapid.Int64Range(1, 300).Draw(t, "ms") },
		"time":   func(*rapid.T) { ms += 1000 * rapid.Int64Range(2, 15).Draw(t, "seconds") },
		"": func(t *rapid.T) {
			for i, want := range peers.slice() {
				got := g.Snapshot(ms / 1000)[i]
				require.Equal(t,
					fmt.Sprint(all[want.server].Name, want.effectiveWeight, want.conns, want.fails),
					fmt.Sprint(got.Name, got.Effective, got.Conns, got.Fails),
					"name, effective weight, connections, fails")
			}
		},
	})
}

// drawGroup makes up a group. Where a single primary has backups, nginx comes
// back to a hash of these, or to a random one past the end of a list: no model.
func drawGroup(t *rapid.T, m ngxMethod) []upstream.Server {
	n := rapid.IntRange(1, 6).Draw(t, "servers")
	all := make([]upstream.Server, n)
	for i := range all {
		all[i] = server(i, rapid.IntRange(1, 12).Draw(t, "weight"))
		all[i].MaxConns = max(0, rapid.IntRange(-3, 4).Draw(t, "max_conns"))
		all[i].MaxFails = rapid.IntRange(0, 4).Draw(t, "max_fails")
		all[i].FailTimeout = rapid.Int64Range(0, 10).Draw(t, "fail_timeout")
		all[i].Down = rapid.IntRange(0, 5).Draw(t, "down") == 0
		first := 1
		if m.primariesOnly() {
			first = 2
		}
		all[i].Backup = i >= first && rapid.IntRange(0, 2).Draw(t, "backup") == 0
		if m.options.Consistent && i > 0 && !all[i].Backup && rapid.IntRange(0, 3).Draw(t, "name") == 0 {
			all[i].Name = all[0].Name // two addresses of one host
		}
	}
	return all
}
