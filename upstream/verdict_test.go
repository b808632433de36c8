package upstream_test

import (
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
	} {
		t.Run(outcome.String(), func(t *testing.T) {
			t.Parallel()
			a := with(server("a"), func(s *upstream.Server) { s.MaxFails = 3 })
			g := upstream.NewGroup(config(a, server("b")))
			for range 2 {
				turn, p := pick(g, 100)
				require.False(t, p.Release(turn, upstream.OutcomeRefused, 100))
			}

			turn, p := pick(g, 111)
			require.Equal(t, "a", name(p))
			require.Equal(t, want == fail, p.Release(turn, outcome, 111))
			require.Equal(t, 1, turn.Left())

			s := status(t, g, "a", 111)
			require.Equal(t, want, s.Fails)
			require.Equal(t, 0, s.Conns)
			require.Equal(t, want == fail, s.State == upstream.StateUnavail)
		})
	}
}
