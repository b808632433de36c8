package healthcheck

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Results: + good, s soft, h hard. States after each: u up, b busy, d down.
func TestRiseAndFall(t *testing.T) {
	tests := []struct {
		name            string
		rise, fall      int
		down            bool
		results, states string
	}{
		{"stays up", 2, 3, false, "++++", "uuuu"},
		{"falls at the third", 2, 3, false, "hhhh", "uudd"},
		{"last one soft", 2, 3, false, "hhsh", "uubd"},
		{"last one hard", 2, 3, false, "sshs", "uudb"},
		{"good ones forgive", 2, 3, false, "hh+hh+hhh", "uuuuuuuud"},
		{"rises at the second", 2, 3, false, "hhh++", "uuddu"},
		{"bad ones forbid", 2, 3, false, "hhh+h+s+", "uuddddbb"},
		{"rises from busy", 1, 1, false, "s+h+", "budu"},
		{"falls anew after it rose", 2, 2, false, "hh++hh", "udduud"},
		{"begins down", 2, 3, true, "+h++h", "ddduu"},
		// T11. Fails if count does not set the other counter back.
		{"alternating while up", 2, 3, false, "h+h+h+h+h+s+s+s+", "uuuuuuuuuuuuuuuu"},
		{"alternating while down", 2, 3, true, "+h+h+h+h+h", "dddddddddd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tg := &target{Target: Target{Rise: tt.rise, Fall: tt.fall}}
			if tt.down {
				tg.state = Down
			}
			states := ""
			for _, c := range tt.results {
				r := tg.count(outcome{good: c == '+', soft: c == 's', why: "why"})
				require.Equal(t, c == '+', r.Good)
				require.Equal(t, c == 's', r.Soft)
				require.Equal(t, "why", r.Why)
				states += r.State.String()[:1]
			}
			require.Equal(t, tt.states, states)
		})
	}
}
