package balancer_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

func named(names ...string) []upstream.Server {
	all := servers(make([]int, len(names))...)
	for i := range all {
		all[i].Name, all[i].Weight = names[i], 1
	}
	return all
}

// nginx's own choices for some clients.
//
// Fails if the hash is another one, or if the third server's weight is ignored.
func TestGoldenHashes(t *testing.T) {
	t.Parallel()
	all := named("10.0.0.1:25", "10.0.0.2:25", "10.0.0.3:25")
	all[2].Weight = 2
	require.Len(t, ngxChash(ngxInit(all)), 640)
	plain := upstream.NewGroup(by(balancer.Options{Name: "hash"}, all...))
	consistent := upstream.NewGroup(by(balancer.Options{Name: "hash", Consistent: true}, all...))
	for _, test := range []struct {
		key               string
		plain, consistent int
	}{
		{"192.0.2.1", 2, 1},
		{"192.0.2.2", 1, 1},
		{"192.0.2.3", 3, 3},
		{"198.51.100.7", 2, 2},
		{"203.0.113.9", 3, 3},
		{"2001:db8::1", 1, 3},
	} {
		for g, want := range map[*upstream.Group]int{plain: test.plain, consistent: test.consistent} {
			for range 2 {
				var turn upstream.Turn
				begin(g, &turn, test.key)
				p := g.Next(&turn, 100)
				require.Equal(t, want, index(p)+1, test.key)
				p.Release(&turn, upstream.OutcomeOK, 100)
			}
		}
	}
}

// The points of a server follow from how it is written, as nginx splits that.
// Keys are taken from the points themselves, so that the slightest difference
// shows: a key whose hash is that of a point belongs to it.
//
// Fails if the port is hashed with its colon, if "unix:" is, if a name without a
// port loses its last digits, or if a point does not own its own hash.
func TestPointsFollowFromNames(t *testing.T) {
	t.Parallel()
	all := named("mx.example.org:25", "[2001:db8::1]:2525", "unix:/run/a:25", "UNIX:/run/b", "mx9", "mx.example.org", "mx.example.org:26")
	for i := range all {
		all[i].Weight = 100
	}
	points := ngxChash(ngxInit(all))
	owner := make(map[uint32]string, len(points))
	for _, p := range points {
		owner[p.hash] = p.server
	}
	g := upstream.NewGroup(by(balancer.Options{Name: "hash", Consistent: true}, all...))
	random := rand.New(rand.NewPCG(1, 0))
	exact := 0
	var turn upstream.Turn
	for i := 0; i < 20_000 || exact < 3; i++ {
		key := binary.LittleEndian.AppendUint64(nil, random.Uint64())
		hash := crc32.ChecksumIEEE(key)
		want, on := owner[hash]
		if on {
			exact++
		} else if i >= 20_000 {
			continue
		} else {
			first := sort.Search(len(points), func(i int) bool { return points[i].hash >= hash })
			want = points[first%len(points)].server
		}
		begin(g, &turn, string(key))
		p := g.Next(&turn, 100)
		require.Equal(t, want, all[index(p)].Name)
		p.Release(&turn, upstream.OutcomeOK, 100)
	}
}

// Where heavy servers are down, most sessions hit upon none that is up in twenty
// tries, and round robin takes over.
//
// Fails if that comes one try earlier or later, or with the next server that
// such a session asks for it is not round robin any more.
func TestGivesUpAsNginx(t *testing.T) {
	t.Parallel()
	for _, m := range ngxMethods {
		if !m.primariesOnly() {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			all := servers(25, 1, 1, 1)
			all[0].Down = true
			seeded := func(seed uint64) func() int {
				r := rand.New(rand.NewPCG(seed, 0))
				return func() int { return int(r.Uint32()) }
			}
			c := by(m.options, all...)
			var draw func() int
			if m.options.Name == "random" {
				c.Method = func(s []upstream.Server) upstream.Method {
					if len(s) == 0 {
						return balancer.RoundRobin{}
					}
					return balancer.NewRandom(s, m.options.Two, func(n int) int { return draw() % n })
				}
			}
			g, peers := upstream.NewGroup(c), ngxInit(all)
			points := ngxChash(peers)
			var turn upstream.Turn
			for i := range 2000 {
				key := fmt.Sprint("client ", i)
				begin(g, &turn, key)
				ngx := ngxInitPeer(peers)
				ngx.key, ngx.conf.points, ngx.conf.random = key, points, seeded(uint64(i))
				ngx.initChashPeer()
				draw = seeded(uint64(i))
				for turn.Left() > 0 {
					p, want := g.Next(&turn, 100), m.get(ngx, 100, 0)
					require.NotNil(t, p)
					require.Equal(t, want.server, index(p), "session %d", i)
					p.Release(&turn, upstream.OutcomeLocalError, 100)
					want.conns--
					ngx.tries--
				}
			}
		})
	}
}

// When a server goes, a consistent hash moves its keys alone; a plain one does
// that only while the server stays in the list, down.
//
// Fails if the points depend on the place of a server in the list, or if a down
// server's share of the plain hash falls to its neighbour alone.
func TestWhatMovesWhenAServerGoes(t *testing.T) {
	t.Parallel()
	all := named("a:25", "b:25", "c:25", "d:25", "e:25")
	without := append(append([]upstream.Server{}, all[:2]...), all[3:]...)
	down := append([]upstream.Server{}, all...)
	down[2].Down = true
	for _, test := range []struct {
		options balancer.Options
		after   []upstream.Server
	}{
		{balancer.Options{Name: "hash", Consistent: true}, without},
		{balancer.Options{Name: "hash", Consistent: true}, down},
		{balancer.Options{Name: "hash"}, down},
	} {
		before := upstream.NewGroup(by(test.options, all...))
		after := upstream.NewGroup(by(test.options, test.after...))
		moved, to := 0, map[int]int{}
		for i := range 2000 {
			var one, two upstream.Turn
			begin(before, &one, fmt.Sprint("client ", i))
			begin(after, &two, fmt.Sprint("client ", i))
			was, is := index(before.Next(&one, 100)), index(after.Next(&two, 100))
			if was == 2 {
				moved++
				to[is]++
				continue
			}
			require.Equal(t, was, is)
		}
		require.InDelta(t, 400, moved, 120)
		require.Len(t, to, 4, "the others share what it had")
	}
}

// Where every server of a group with a check is suspect, sessions go to those,
// and each to its own as before.
//
// Fails if what was not to be had among the fit counts as misses.
func TestHashAmongSuspects(t *testing.T) {
	t.Parallel()
	for _, consistent := range []bool{false, true} {
		c := by(balancer.Options{Name: "hash", Consistent: consistent}, named("a:25", "b:25", "c:25")...)
		before := upstream.NewGroup(c)
		c.Checked = true
		g := upstream.NewGroup(c)
		var turn upstream.Turn
		for begin(g, &turn, "client"); turn.Left() > 0; {
			g.Next(&turn, 100).Release(&turn, upstream.OutcomeRefused, 100)
		}
		for i := range 100 {
			key := fmt.Sprint("client ", i)
			begin(before, &turn, key)
			want := before.Next(&turn, 100)
			begin(g, &turn, key)
			got := g.Next(&turn, 100)
			require.Equal(t, upstream.StateSuspect, status(t, g, index(got), 100).State)
			require.Equal(t, index(want), index(got), key)
		}
	}
}
