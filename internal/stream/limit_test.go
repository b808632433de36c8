package stream

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/script"
	"smtplb/internal/smtptest"
)

const tooManyReply = "421 4.7.0 lb.example too many connections from you\r\n"

// limited bounds a rig's sessions.
func limited(d *diary, limits ...Limit) func(*plan) {
	return func(p *plan) {
		p.Scope, p.Limits, p.LimitLogLevel = d.scope, limits, zapcore.WarnLevel
		if p.Gate != nil {
			p.Gate.Replies[ReplyTooMany] = []byte(tooManyReply)
		}
	}
}

// keys is how many keys the zone counts. It wants no room to be taken by none.
func (z *Zone) keys() (n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range z.counters {
		for ; c != nil; c = c.next {
			n++
		}
	}
	if n == 0 && z.used != 0 {
		return -1
	}
	return n
}

// holds is how many sessions the zone counts for the key.
func (z *Zone) holds(key string) (n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range z.counters {
		for ; c != nil; c = c.next {
			if string(c.key) == key {
				n = c.n
			}
		}
	}
	return n
}

// Of many clients at once exactly as many as the limit are served, on whatever
// workers, wave after wave, and then nobody is counted.
//
// Fails if claim lets one more in, if a session that is turned away is counted,
// or if one that has ended still is.
func TestLimitIsExact(t *testing.T) {
	t.Parallel()
	const limit, clients = 7, 40
	d := newDiary(t)
	zone := NewZone("perclient", 1<<20)
	var inside, most atomic.Int64
	addr := serve(t, func(c net.Conn) {
		n := inside.Add(1)
		for m := most.Load(); n > m; m = most.Load() {
			if most.CompareAndSwap(m, n) {
				break
			}
		}
		speak(c, goodGreeting)
		_, _ = io.Copy(io.Discard, c)
		inside.Add(-1)
	})
	g := newRig(t, []string{addr}, gated, func(p *plan) { p.Workers = 3 }, d.keeps("$status $limit_conn_status"),
		limited(d, Limit{zone, d.value("$remote_addr"), limit}))
	for range 3 {
		var mu sync.Mutex
		var served []net.Conn
		var refused atomic.Int64
		parallel(t, clients, clients, func(int) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			switch string(b) {
			case goodGreeting[:4]:
				mu.Lock()
				defer mu.Unlock()
				served = append(served, c)
				return nil
			case tooManyReply[:4]:
				refused.Add(1)
				return c.Close()
			}
			return fmt.Errorf("saw %q", b)
		})
		require.Len(t, served, limit)
		require.EqualValues(t, clients-limit, refused.Load())
		require.Equal(t, limit, zone.holds("127.0.0.1"))
		for _, c := range served {
			c.Close()
		}
		g.gone(patience)
		require.Zero(t, zone.keys())
		smtptest.Eventually(t, patience, "no session at the server", func() bool { return inside.Load() == 0 })
	}
	require.LessOrEqual(t, most.Load(), int64(limit))
	lines := strings.Join(d.lines(3*clients), "\n")
	require.Equal(t, 3*limit, strings.Count(lines, "200 PASSED"))
	require.Equal(t, 3*(clients-limit), strings.Count(lines, "503 REJECTED"))
	require.NotZero(t, g.logs.FilterMessage(`limiting connections by zone "perclient"`).FilterLevelExact(zapcore.WarnLevel).Len())
}

// Where no mail is spoken, a client above the limit just sees the end, and no
// server hears of it.
//
// Fails if dismiss is not called.
func TestLimitInSilence(t *testing.T) {
	t.Parallel()
	d := newDiary(t)
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, limited(d, Limit{NewZone("z", 1<<20), d.value("$server_port"), 1}))
	greetingOf(t, g.dial())
	saw, err := io.ReadAll(g.dial())
	require.NoError(t, err)
	require.Empty(t, saw)
	require.Len(t, w.seen(), 1)
	require.Equal(t, "connection limit", g.accounts()[0].end)
}

// Of several limits each counts, and the first that is reached turns away; the
// others then do not count the session. Denied clients are counted first.
//
// Fails if a rejected session keeps its earlier claims, or if the rules are
// asked before the limits.
func TestSeveralLimits(t *testing.T) {
	t.Parallel()
	d := newDiary(t)
	a, b := NewZone("a", 1<<20), NewZone("b", 1<<20)
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, d.keeps("$remote_addr $status"), access(denied("127.0.0.3/32")),
		limited(d, Limit{a, d.value("$remote_addr"), 2}, Limit{b, d.value("all"), 2}))
	var clients []net.Conn
	for range 2 {
		c := g.dialFrom("127.0.0.1")
		greetingOf(t, c)
		clients = append(clients, c)
	}
	require.NoError(t, told(g.dialFrom("127.0.0.2"), tooManyReply))
	require.NoError(t, told(g.dialFrom("127.0.0.3"), tooManyReply))
	require.Equal(t, 1, a.keys())
	require.Equal(t, 2, b.holds("all"))
	clients[0].Close()
	smtptest.Eventually(t, patience, "one is released", func() bool { return b.holds("all") == 1 && a.holds("127.0.0.1") == 1 })
	require.NoError(t, told(g.dialFrom("127.0.0.3"), deniedReply))
	clients[1].Close()
	smtptest.Eventually(t, patience, "all are released", func() bool { return a.keys()+b.keys() == 0 })
	require.ElementsMatch(t, []string{"127.0.0.2 503", "127.0.0.3 503", "127.0.0.3 403", "127.0.0.1 200", "127.0.0.1 200"}, d.lines(5))
}

// A dry run serves everybody, says whom it would not have, and does not count
// those.
//
// Fails if a session above the limit is counted, or turned away.
func TestLimitDryRun(t *testing.T) {
	t.Parallel()
	d := newDiary(t)
	zone, wide := NewZone("z", 1<<20), NewZone("wide", 1<<20)
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, d.keeps("$status $limit_conn_status"),
		limited(d, Limit{wide, d.value("all"), 9}, Limit{zone, d.value("$remote_addr"), 1}), func(p *plan) { p.LimitDryRun = true })
	for range 3 {
		greetingOf(t, g.dial())
	}
	require.Equal(t, 1, zone.holds("127.0.0.1"))
	require.Equal(t, 1, wide.holds("all"))
	g.End()
	require.ElementsMatch(t, []string{"200 PASSED", "200 REJECTED_DRY_RUN", "200 REJECTED_DRY_RUN"}, d.lines(3))
	require.Zero(t, zone.keys()+wide.keys())
	require.NotZero(t, g.logs.FilterMessage(`limiting connections, dry run, by zone "z"`).Len())
}

// A session without a key, or with one that is too long, is not counted; one for
// whose key the zone has no room is turned away.
//
// Fails if the bound is 254, or the room is not.
func TestLimitKeys(t *testing.T) {
	t.Parallel()
	d := newDiary(t, func(s *script.Scope) error {
		return s.Map(script.Map{Variable: "$key", Source: "$remote_addr", Entries: []script.Entry{
			{Key: "127.0.0.2", Value: strings.Repeat("k", 255)}, {Key: "127.0.0.3", Value: strings.Repeat("k", 256)}, {Key: "127.0.0.4", Value: "short"}}})
	})
	zone := NewZone("z", 512)
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, d.keeps("$remote_addr $status $limit_conn_status"), limited(d, Limit{zone, d.value("$key"), 1}))
	for range 2 {
		greetingOf(t, g.dialFrom("127.0.0.1"))
		greetingOf(t, g.dialFrom("127.0.0.3"))
	}
	require.Zero(t, zone.keys())
	full := g.dialFrom("127.0.0.2")
	greetingOf(t, full)
	require.Equal(t, 1, zone.keys())
	require.NoError(t, told(g.dialFrom("127.0.0.2"), tooManyReply), "the limit")
	require.NoError(t, told(g.dialFrom("127.0.0.4"), tooManyReply), "no room")
	full.Close()
	smtptest.Eventually(t, patience, "there is room", func() bool { return zone.keys() == 0 })
	greetingOf(t, g.dialFrom("127.0.0.4"))
	g.End()
	require.ElementsMatch(t, []string{"127.0.0.1 200 -", "127.0.0.1 200 -", "127.0.0.3 200 -", "127.0.0.3 200 -", "127.0.0.2 200 PASSED",
		"127.0.0.2 503 REJECTED", "127.0.0.4 503 REJECTED", "127.0.0.4 200 PASSED"}, d.lines(8))
}

// Keys whose hashes are the same are counted apart, whichever goes first.
//
// Fails if release takes the first of them for its own.
func TestZoneCollisions(t *testing.T) {
	t.Parallel()
	keys := []string{"a", "b", "c"}
	for first := range keys {
		z := NewZone("z", 1<<20)
		held := map[string]*counter{}
		var chain *counter // as if all hashes were 1
		for _, k := range keys {
			held[k] = &counter{zone: z, hash: 1, key: []byte(k), n: 1, next: chain}
			chain = held[k]
			z.used += cost([]byte(k))
		}
		z.counters[1] = chain
		for i := range keys {
			k := keys[(first+i)%len(keys)]
			require.Equal(t, 1, z.holds(k))
			held[k].release()
			require.Zero(t, z.holds(k))
			require.Equal(t, len(keys)-1-i, z.keys())
		}
	}
}
