package balancer_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/balancer"
	"smtplb/upstream"
)

// nginx's own orders, three periods each: the credit is back where it was
// after each.
//
// Fails if the last of equals wins, or if the total is not taken from the
// credit of the chosen one.
func TestGoldenOrders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		weights []int
		want    string
	}{
		{[]int{5, 1, 1}, "aabacaa"},
		{[]int{3, 2, 1}, "abacba"},
		{[]int{4, 3, 2, 1}, "abcabdacba"},
		{[]int{1, 1, 1}, "abc"},
		{[]int{1, 4}, "bbabb"},
		{[]int{7}, "aaaaaaa"},
	} {
		g := upstream.NewGroup(config(servers(test.weights...)...))
		require.Equal(t, strings.Repeat(test.want, 3), sessions(g, 3*len(test.want), 100), test.weights)
	}
}

// Backups have a rotation of their own.
//
// Fails as TestGoldenOrders does, and if the down primary is picked.
func TestGoldenOrderOfBackups(t *testing.T) {
	t.Parallel()
	all := servers(1, 5, 1, 1)
	all[0].Down = true
	for i := range all[1:] {
		all[i+1].Backup = true
	}
	g := upstream.NewGroup(config(all...))
	require.Equal(t, "bbcbdbb", sessions(g, 7, 100))
}

// A lighter server is credited with its old weight, and then recovers; the
// ineligible take no part in any of it.
//
// Fails if the recovery comes before the credit, or if it reaches those that
// are not eligible.
func TestPickSlots(t *testing.T) {
	t.Parallel()
	slots := []upstream.Slot{
		{Weight: 5, Effective: 2, Current: 1, Eligible: true},
		{Weight: 9, Effective: 4, Current: 9},
		{Weight: 1, Effective: 1, Current: 6, Eligible: true},
	}
	require.Equal(t, 2, balancer.RoundRobin{}.Pick(slots, nil))
	require.Equal(t, []upstream.Slot{
		{Weight: 5, Effective: 3, Current: 3, Eligible: true},
		{Weight: 9, Effective: 4, Current: 9},
		{Weight: 1, Effective: 1, Current: 4, Eligible: true},
	}, slots)

	slots[0].Eligible, slots[2].Eligible = false, false
	require.Equal(t, -1, balancer.RoundRobin{}.Pick(slots, nil))
	require.Equal(t, -1, balancer.RoundRobin{}.Pick(nil, nil))
}

// One session a second, weights 1 and 1, fail_timeout 10, b dead from 101 on.
// It is out for 101..111; at 112 it weighs nothing, at 113 it is the second of
// equals, and at 114 one session tries it. As long as it stays dead this goes
// on every 13 s; once it lives, normal alternation resumes at once.
//
// Fails if the window is shorter or longer by one, if the effective weight is
// not lowered by the failure or recovers before the credit is added, or if the
// success at 114 does not clear the failures.
func TestDeadServerIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		aliveAt int64
		want    string
	}{
		{"alive at 114", 114, "a ba a a a a a a a a a a a a b a b a b a b a b a b a b a b"},
		{"alive at 127", 127, "a ba a a a a a a a a a a a a ba a a a a a a a a a a a a b a b a"},
	} {
		g := upstream.NewGroup(config(servers(1, 1)...))
		var got []string
		for now := int64(100); len(got) < len(strings.Fields(test.want)); now++ {
			dead := ""
			if now >= 101 && now < test.aliveAt {
				dead = "b"
			}
			got = append(got, session(g, now, dead))
		}
		require.Equal(t, strings.Fields(test.want), got, test.name)
	}
}

// Effective weight of a after each of a row of sessions, of which those marked
// F fail. The other server is down, so a gets them all and yet is not single.
//
// Fails if the penalty is not the integer quotient weight/max_fails, if the
// weight goes below zero, or if it climbs by other than one, or above weight.
func TestEffectiveWeight(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name             string
		weight, maxFails int
		sessions         string
		want             []int
	}{
		{"10/3", 10, 3, "FF......", []int{7, 5, 6, 7, 8, 9, 10, 10}},
		{"integer division", 5, 10, "FF.", []int{5, 5, 5}},
		{"not below zero", 2, 1, "FF...", []int{0, 0, 1, 2, 2}},
		{"max_fails=0", 4, 0, "FF.", []int{4, 4, 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			all := servers(test.weight, 1)
			all[0].MaxFails, all[0].FailTimeout = test.maxFails, 0
			all[1].Down = true
			g := upstream.NewGroup(config(all...))
			var got []int
			for i, mark := range test.sessions {
				now := 100 + int64(i)
				dead := ""
				if mark == 'F' {
					dead = "a"
				}
				require.Equal(t, "a", session(g, now, dead))
				got = append(got, status(t, g, 0, now).Effective)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// A reload that changes neither servers nor weights does not disturb the
// rotation; any other starts it anew.
//
// Fails if every reload restarts it (reloading before each session would send
// all of them to a), or if none does.
func TestRotationOverReload(t *testing.T) {
	t.Parallel()
	g := upstream.NewGroup(config(servers(5, 1, 1)...))
	var got string
	for range 14 {
		g.Update(config(servers(5, 1, 1)...))
		got += sessions(g, 1, 100)
	}
	require.Equal(t, "aabacaaaabacaa", got)

	require.Equal(t, "aab", sessions(g, 3, 100))
	g.Update(config(servers(3, 2, 1)...))
	require.Equal(t, "abacba", sessions(g, 6, 100))
	require.Equal(t, "abac", sessions(g, 4, 100))
	g.Update(config(servers(3, 2, 1, 1)...))
	require.Equal(t, "abcadba", sessions(g, 7, 100))
}
