package upstream_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// checked is the config of a group whose servers are probed, of three failures
// each, and where its changes go: "a up-suspect".
func checked(changes *[]string, servers ...upstream.Server) upstream.Config {
	for i := range servers {
		servers[i].MaxFails = 3
	}
	c := config(servers...)
	c.Checked = true
	c.OnChange = func(x upstream.Change) {
		*changes = append(*changes, fmt.Sprintf("%s %s-%s", name(x.Peer), x.From, x.To))
	}
	return c
}

// fails makes sessions meet with the outcome at the server called want, n times.
func fails(t *testing.T, g *upstream.Group, want string, n int, o upstream.Outcome, now int64) {
	t.Helper()
	for range n {
		turn, p := pick(g, now)
		require.Equal(t, want, name(p))
		p.Release(turn, o, now)
	}
}

// peer returns the server called name.
func peer(t *testing.T, g *upstream.Group, name string) *upstream.Peer {
	t.Helper()
	return status(t, g, name, 0).Peer
}

var (
	good    = upstream.Probe{Good: true, State: upstream.StateUp, Why: "250 a"}
	bad     = upstream.Probe{State: upstream.StateUp, Why: "connect: refused"}
	fallen  = upstream.Probe{State: upstream.StateUnhealthy, Why: "connect: refused"}
	tooBusy = upstream.Probe{State: upstream.StateBusy, Why: "greeting: 421 4.3.2 busy"}
	rising  = upstream.Probe{Good: true, State: upstream.StateUnhealthy, Why: "250 a"}
	stale   = upstream.Probe{Good: true, Stale: true, State: upstream.StateUp, Why: "250 a"}
)

// What becomes of the first of two servers by what sessions and probes find
// out, step by step: each names the changes it makes, and whether a further
// probe is waited for.
//
// Fails, in the row named, if failures take a checked server out unconfirmed
// (blip, confirmed), if a probe brings a quarantined server back before
// fail_timeout (confirmed), if a bad probe out of the blue raises suspicion
// (alternating), if the check's word does not count in every state (fallen),
// if a good probe forgives nothing (blip: the fourth failure would be one
// too many) or clears a suspicion that came after it (good before the failures),
// or the end of an old session hides that nobody is greeted
// (greeted meanwhile).
func TestCheckedServer(t *testing.T) {
	t.Parallel()
	type step struct {
		now     int64
		do      any // an Outcome of one session, a Probe, "waited" or "greeted"
		changes string
		wanted  int64
	}
	refused := upstream.OutcomeRefused
	for name, steps := range map[string][]step{
		"blip": {
			{100, refused, "", 0}, {100, refused, "", 0}, {100, refused, "a up-suspect", 0},
			{101, good, "a suspect-up", 0},
			{102, refused, "", 0}, {102, refused, "", 0}, {102, refused, "a up-suspect", 0},
		},
		"confirmed": {
			{100, refused, "", 0}, {100, refused, "", 0}, {100, refused, "a up-suspect", 0},
			{101, bad, "a suspect-unavail", 1},
			{102, bad, "", 1},
			{103, good, "", 9}, {111, good, "", 1}, {112, good, "a unavail-up", 0},
		},
		"good before the failures": {
			{100, refused, "", 0}, {100, refused, "", 0}, {100, refused, "a up-suspect", 0},
			{101, stale, "", 1}, {102, bad, "a suspect-unavail", 1}, {113, stale, "a unavail-up", 0},
		},
		"fallen while suspect": {
			{100, refused, "", 0}, {100, refused, "", 0}, {100, refused, "a up-suspect", 0},
			{101, fallen, "a suspect-unhealthy", 0},
			{102, rising, "", 0}, {103, good, "a unhealthy-up", 0},
		},
		"fallen": {
			{100, fallen, "a up-unhealthy", 0}, {101, tooBusy, "a unhealthy-busy", 0},
			{102, fallen, "a busy-unhealthy", 0}, {103, good, "a unhealthy-up", 0},
		},
		"alternating": {
			{100, bad, "", 0}, {101, good, "", 0}, {102, bad, "", 0}, {103, good, "", 0},
		},
		"waited": {
			{100, "waited", "a up-suspect", 0}, {101, bad, "", 1}, {102, "waited", "", 0},
			{102, good, "a suspect-up", 0},
		},
		"rejected": {
			{100, upstream.OutcomeRejected, "a up-suspect", 0}, {101, good, "a suspect-up", 0},
		},
		"at the begin of time": {
			{0, "waited", "a up-suspect", 0}, {0, fallen, "a suspect-unhealthy", 0},
		},
		"about the client": {
			{100, upstream.OutcomeClientRejected, "", 0}, {100, upstream.OutcomeClientGone, "", 0},
			{100, upstream.OutcomeLocalError, "", 0}, {100, upstream.OutcomeUnjudged, "", 0},
		},
		"greeted meanwhile": {
			{100, "greeted", "", 0}, {104, "waited", "", 0},
			{104, upstream.OutcomeOK, "", 0}, // an old session ends: that says nothing of today
			{105, "waited", "a up-suspect", 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var changes []string
			g := upstream.NewGroup(checked(&changes, server("a"), server("b")))
			a := peer(t, g, "a")
			for i, s := range steps {
				changes = nil
				wanted := int64(0)
				switch do := s.do.(type) {
				case upstream.Outcome:
					fails(t, g, "a", 1, do, s.now)
				case upstream.Probe:
					wanted = a.Probed(do, s.now)
				case string:
					if do == "greeted" {
						a.Connected(s.now)
					} else {
						a.Waited(s.now)
					}
				}
				require.Equal(t, s.changes, strings.Join(changes, " "), "step %d", i)
				require.Equal(t, s.wanted, wanted, "step %d", i)
			}
		})
	}
}

// A checked server has failed whoever says so: a probe will tell.
//
// Fails if the exception for one client holds beside a check.
func TestOneClientMayAccuseACheckedServer(t *testing.T) {
	t.Parallel()
	var changes []string
	g := upstream.NewGroup(checked(&changes, server("a"), server("b")))
	for range 3 {
		turn, p := pick(g, 100)
		turn.Client = netip.MustParseAddr("192.0.2.1")
		p.Release(turn, upstream.OutcomeEmpty, 100)
	}
	require.Equal(t, []string{"a up-suspect"}, changes)
}

// Who gets a session that fails everywhere, by the states of the servers: the
// fit ones first, backups included, then the suspects, then at most two that
// are out.
//
// Fails, in the row named, if a suspect is taken before a backup that is up, if
// those out are tried while another is left, or more than two of them, or the
// one that failed last before the others, or a busy one after them; if one that
// answers its probes again is not taken before those, or before one that is up;
// and if a single server is spared by its check.
func TestFittestFirst(t *testing.T) {
	t.Parallel()
	a, b, c := server("a"), server("b"), server("c")
	for _, test := range []struct {
		name    string
		servers []upstream.Server
		states  string // of each: u, s(uspect), o(ut), r (out, but rising), y (busy)
		want    string
	}{
		{"all up", []upstream.Server{a, b, c}, "uuu", "abc"},
		{"a suspect", []upstream.Server{a, b, c}, "suu", "bca"},
		{"a suspect, backup up", []upstream.Server{a, with(b, backup)}, "su", "ba"},
		{"suspects all", []upstream.Server{a, b}, "ss", "ab"},
		{"one out", []upstream.Server{a, b}, "ou", "ba"},
		{"all out", []upstream.Server{a, b, c}, "ooo", "ab-"},
		{"all out, one busy", []upstream.Server{a, b, c}, "ooy", "ca-"},
		{"all out, one answers", []upstream.Server{a, b, c}, "oor", "cab"},
		{"one up, one answers", []upstream.Server{a, b}, "ru", "ba"},
		{"all out, one down", []upstream.Server{a, with(b, down), c}, "ouo", "ac"},
		{"out and backup suspect", []upstream.Server{a, with(b, backup)}, "os", "ba"},
		{"single", []upstream.Server{a}, "u", "a"},
		{"single out", []upstream.Server{a}, "o", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var changes []string
			g := upstream.NewGroup(checked(&changes, test.servers...))
			for i, state := range test.states {
				p := peer(t, g, test.servers[i].Name)
				switch state {
				case 's':
					p.Waited(90)
				case 'o':
					p.Probed(fallen, 90)
				case 'r':
					p.Probed(fallen, 80)
					p.Probed(rising, 90)
				case 'y':
					p.Probed(tooBusy, 90)
				}
			}
			require.Equal(t, test.want, walk(g, upstream.OutcomeUnjudged, 100))
		})
	}
}

// Sessions that fail at a server in quarantine do not prolong it: one client
// that comes often could keep the group out for ever.
//
// Fails if the quarantine is counted from the last failure.
func TestQuarantineEnds(t *testing.T) {
	t.Parallel()
	var changes []string
	g := upstream.NewGroup(checked(&changes, server("a")))
	a := peer(t, g, "a")
	fails(t, g, "a", 3, upstream.OutcomeEmpty, 100)
	a.Probed(bad, 100)
	for now := int64(101); now <= 111; now++ {
		walk(g, upstream.OutcomeEmpty, now)
		a.Probed(good, now)
	}
	require.Equal(t, []string{"a up-suspect", "a suspect-unavail", "a unavail-up"}, changes)
}

// A session that holds a server, slow as it is, is not given one that is out
// beside it.
//
// Fails if a last resort is offered to who still has a hope.
func TestNoResortBesideAServer(t *testing.T) {
	t.Parallel()
	var changes []string
	g := upstream.NewGroup(checked(&changes, server("a"), server("b")))
	peer(t, g, "b").Probed(fallen, 90)
	turn, a := pick(g, 100)
	require.Equal(t, "a", name(a))
	require.Nil(t, g.Next(turn, 100))
	a.Release(turn, upstream.OutcomeGreetingTimeout, 100)
	require.Equal(t, "b", name(g.Next(turn, 100)))
}

// While all are out, each server is tried once a second, by whichever session
// comes then.
//
// And all of them are probed, which makes them return soon.
//
// Fails if a last resort is not limited in time, or nobody asks for probes, or
// every session does, or one that has tried all that are up.
func TestLastResortIsRare(t *testing.T) {
	t.Parallel()
	var changes []string
	g := upstream.NewGroup(checked(&changes, server("a"), server("b"), server("c")))
	probes := ""
	c := checked(&changes, server("a"), server("b"), server("c"))
	c.Probe = func(p *upstream.Peer) { probes += name(p) }
	g.Update(c)
	peer(t, g, "b").Probed(fallen, 90)
	require.Equal(t, "acb", walk(g, upstream.OutcomeUnjudged, 90))
	require.Empty(t, probes, "others are up")
	for _, n := range []string{"a", "b", "c"} {
		peer(t, g, n).Probed(fallen, 90)
	}
	require.Equal(t, "ab-", walk(g, upstream.OutcomeRefused, 100))
	require.Equal(t, "ca-", walk(g, upstream.OutcomeRefused, 101), "the least recently failed first")
	require.Equal(t, "b-", walk(g, upstream.OutcomeRefused, 101))
	require.Equal(t, "-", walk(g, upstream.OutcomeRefused, 101))
	require.Equal(t, "abcabc", probes, "once a second each")
}

// Health survives an update, unless it is one that ends the check.
//
// Fails if Update forgets the state, or a group without a check keeps one that
// nobody will ever change.
func TestHealthSurvivesUpdate(t *testing.T) {
	t.Parallel()
	var changes []string
	a, b := server("a"), server("b")
	g := upstream.NewGroup(checked(&changes, a, b))
	peer(t, g, "a").Probed(fallen, 90)
	g.Update(checked(&changes, b, a))
	require.Equal(t, upstream.StateUnhealthy, status(t, g, "a", 100).State)
	g.Update(config(a, b))
	require.Equal(t, upstream.StateUp, status(t, g, "a", 100).State)
	require.Zero(t, peer(t, g, "a").Probed(fallen, 100), "a probe that was under way")
	require.Equal(t, upstream.StateUp, status(t, g, "a", 100).State)
	g.Update(checked(&changes, a, b))
	require.Equal(t, upstream.StateUp, status(t, g, "a", 100).State, "that was long ago")
}
