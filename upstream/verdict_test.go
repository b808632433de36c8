package upstream_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/upstream"
)

// Each outcome is met by a server with two failures in the books, picked again
// after its window: a pass clears them, a failure adds one and puts the server
// out, anything else leaves them.
//
// Fails if the row of any outcome is given another verdict.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	const (
		pass   = 0
		ignore = 2
		fail   = 3
	)
	for outcome, want := range map[upstream.Outcome]int{
		upstream.OutcomeOK:             pass,
		upstream.OutcomeRefused:        fail,
		upstream.OutcomeUnreachable:    fail,
		upstream.OutcomeConnectTimeout: fail,
		upstream.OutcomeReset:          fail,
		upstream.OutcomeLocalError:     ignore,
		upstream.OutcomeClientGone:     ignore,

		upstream.OutcomeEmpty:           fail, // the client is not known here
		upstream.OutcomeGreetingTimeout: fail,
		upstream.OutcomeBusy:            fail,
		upstream.OutcomeGarbage:         fail,
		upstream.OutcomeRejected:        ignore,
		upstream.OutcomeClientRejected:  ignore,
		upstream.OutcomeUnjudged:        ignore,
	} {
		t.Run(outcome.String(), func(t *testing.T) {
			t.Parallel()
			a := with(server("a"), func(s *upstream.Server) { s.MaxFails = 3 })
			g := upstream.NewGroup(config(a, server("b")))
			for range 2 {
				turn, p := pick(g, 100)
				p.Release(turn, upstream.OutcomeRefused, 100)
			}

			turn, p := pick(g, 111)
			require.Equal(t, "a", name(p))
			p.Release(turn, outcome, 111)
			require.Equal(t, 1, turn.Left())

			s := status(t, g, "a", 111)
			require.Equal(t, want, s.Fails)
			require.Equal(t, 0, s.Conns)
			require.Equal(t, want == fail, s.State == upstream.StateUnavail)
		})
	}
}

// A server that closes before its greeting, and knows its clients, has failed
// only if more than one of them says so since it last worked: one bad client
// must not take it out, whatever addresses of one IPv6 network it comes from.
//
// Fails if failIfTwo is judged as fail, if a success does not clear the first
// client, and if IPv6 clients are compared by more than 64 bits.
func TestTwoClientsMustFindAFault(t *testing.T) {
	t.Parallel()
	type step struct {
		client  string // "": unknown
		outcome upstream.Outcome
		fails   int // after it
	}
	const empty, ok = upstream.OutcomeEmpty, upstream.OutcomeOK
	for name, steps := range map[string][]step{
		"unknown":        {{"", empty, 1}, {"", empty, 2}},
		"one":            {{"192.0.2.1", empty, 0}, {"192.0.2.1", empty, 0}, {"192.0.2.1", empty, 0}},
		"two":            {{"192.0.2.1", empty, 0}, {"192.0.2.2", empty, 1}},
		"success":        {{"192.0.2.1", empty, 0}, {"192.0.2.3", ok, 0}, {"192.0.2.2", empty, 0}, {"192.0.2.1", empty, 1}},
		"ignored":        {{"192.0.2.1", empty, 0}, {"192.0.2.3", upstream.OutcomeClientRejected, 0}, {"192.0.2.2", empty, 1}},
		"one network":    {{"2001:db8::1", empty, 0}, {"2001:db8::2", empty, 0}, {"2001:db8::ffff:0:0:1", empty, 0}},
		"two networks":   {{"2001:db8::1", empty, 0}, {"2001:db8:0:1::1", empty, 1}},
		"zones":          {{"fe80::1%1", empty, 0}, {"fe80::1%2", empty, 0}},
		"other outcomes": {{"192.0.2.1", upstream.OutcomeBusy, 1}, {"192.0.2.1", upstream.OutcomeGreetingTimeout, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := with(server("a"), func(s *upstream.Server) { s.MaxFails = 100 })
			g := upstream.NewGroup(config(a, server("b")))
			for i, step := range steps {
				turn, p := pick(g, 100)
				if step.client != "" {
					turn.Client = netip.MustParseAddr(step.client)
				}
				p.Release(turn, step.outcome, 100)
				require.Equal(t, step.fails, status(t, g, "a", 100).Fails, "step %d", i)
			}
		})
	}
}
