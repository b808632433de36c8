package healthcheck

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

// world is a group of servers that die and return, its sessions and its probes,
// tied together as in the program, and all that happens to them by chance.
type world struct {
	t     *testing.T
	c     *Checker
	g     *upstream.Group
	begun time.Time
	held  map[*upstream.Turn]*upstream.Peer

	mu    sync.Mutex // protects below
	dice  *rand.Rand
	alive map[string]bool
}

var places = []string{"192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, begun: time.Now(), held: map[*upstream.Turn]*upstream.Peer{},
		dice: rand.New(rand.NewPCG(seed, 0)), alive: map[string]bool{},
	}
	w.c = newChecker(t, func(ctx context.Context, _, address string) (net.Conn, error) {
		answer := w.lives(address)
		select {
		case <-time.After(time.Duration(w.roll(3000)) * time.Millisecond): // and it may die meanwhile
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !answer {
			return nil, syscall.ECONNREFUSED
		}
		client, server := net.Pipe()
		server.Close()
		return client, nil
	})
	w.configure(true)
	return w
}

func (w *world) roll(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dice.IntN(n)
}

func (w *world) lives(address string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive[address]
}

func (w *world) set(address string, alive bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive[address] = alive
}

func (w *world) now() int64 { return 1000 + int64(time.Since(w.begun)/time.Second) }

// told is the Reporter of a peer; by comparison it is always the same.
type told struct {
	w *world
	p *upstream.Peer
}

func (r told) Probed(o Result) time.Duration {
	states := map[State]upstream.State{Up: upstream.StateUp, Busy: upstream.StateBusy, Down: upstream.StateUnhealthy}
	wanted := r.p.Probed(upstream.Probe{Good: o.Good, Stale: o.Stale, State: states[o.State], Why: o.Why}, r.w.now())
	return time.Duration(wanted) * time.Second
}

// configure is a reload: to anything, or if whole is set to a group in which
// every server is probed.
func (w *world) configure(whole bool) {
	method, err := balancer.New(balancer.Options{Name: "least_conn"})
	require.NoError(w.t, err)
	c := upstream.Config{
		Name: "mail", Method: method, Checked: whole || w.roll(4) > 0, DefaultDown: w.roll(3) == 0,
		Probe: func(p *upstream.Peer) { w.c.ProbeNow(told{w, p}) },
	}
	for i, p := range places {
		if whole || i == 0 || w.roll(4) > 0 {
			c.Servers = append(c.Servers, upstream.Server{
				Name: p, Addr: upstream.Addr{TCP: netip.MustParseAddrPort(p)}, Weight: 1 + w.roll(3),
				MaxFails: w.roll(4), FailTimeout: int64(1 + w.roll(20)), SlowStart: int64(20 * w.roll(2)),
				MaxPending: 2 * w.roll(2), MaxConns: 3 * w.roll(2), Down: !whole && w.roll(5) == 0, Backup: i > 0 && w.roll(3) == 0,
			})
		}
	}
	if w.g == nil {
		w.g = upstream.NewGroup(c)
	} else {
		w.g.Update(c)
	}
	var targets []Target
	helo := fmt.Sprint(w.roll(2)) // with other settings, other probes
	for _, st := range w.g.Snapshot(w.now()) {
		if !c.Checked || st.State == upstream.StateDown || st.State == upstream.StateRemoved {
			continue
		}
		target := aim(st.Name, told{w, st.Peer})
		target.Settings.Helo, target.Interval = helo, time.Duration(1+w.roll(20))*time.Second
		target.Rise, target.Fall = 1+w.roll(3), 1+w.roll(3)
		if st.Health == upstream.StateUnhealthy {
			target.State = Down
		}
		targets = append(targets, target)
	}
	w.c.Update(targets)
}

// visit is a session, which may stay.
func (w *world) visit() {
	turn := new(upstream.Turn)
	w.g.Begin(turn)
	for p := w.g.Next(turn, w.now()); p != nil; p = w.g.Next(turn, w.now()) {
		if w.roll(10) == 0 {
			p.Waited(w.now())
		}
		if w.lives(p.Name()) {
			p.Established(turn)
			p.Connected(w.now())
			w.held[turn] = p
			return
		}
		if p.Release(turn, upstream.OutcomeRefused, w.now()); turn.Left() == 0 {
			return
		}
	}
}

func (w *world) leave() {
	for turn, p := range w.held {
		p.Release(turn, upstream.OutcomeOK, w.now())
	}
	clear(w.held)
}

// Whatever sessions, probes and reloads have found out and undone, in any order:
// when nothing happens any more, the probes soon have every server where it
// belongs, and no session, connect or place is left over.
//
// Fails if a state is left that no probe ends, such as that of a suspect for which
// every good result is too old, or if the only server of a group does not get its
// place back.
func TestEverythingSettles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			for range 60 {
				switch w.roll(6) {
				case 0:
					p := places[w.roll(len(places))]
					w.set(p, !w.lives(p))
				case 1:
					w.configure(false)
				case 2:
					w.leave()
				default:
					for range w.roll(5) {
						w.visit()
					}
				}
				pass(time.Duration(w.roll(8000)) * time.Millisecond)
			}
			alive := seed%2 == 0
			for _, p := range places {
				w.set(p, alive)
			}
			w.configure(true)
			w.leave()
			pass(3 * time.Minute)
			servers := w.g.Snapshot(w.now())
			require.Len(t, servers, len(places))
			for _, st := range servers {
				require.Zero(t, st.Conns)
				require.Equal(t, alive, st.State == upstream.StateUp, "seed %d: %s is %s", seed, st.Name, st.State)
			}
		})
	}
}
