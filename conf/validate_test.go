package conf

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Fails if a queue loses its size or its time-out, or if one that nobody will
// ever wait in goes without a word.
func TestQueue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Queue{
		"":                                     {},
		"queue = 500":                          {Position{"t.toml", 2, 9}, 500, time.Minute},
		"queue = { size = 1, timeout = '4m' }": {Position{"t.toml", 2, 9}, 1, 4 * time.Minute},
	} {
		for _, bounded := range []bool{false, true} {
			maxConns := 0
			if bounded {
				maxConns = 10
			}
			c, err := Parse("t.toml", fmt.Appendf(nil, "[[upstream]]\n%s\nname = 'a'\nservers = [{ address = 'h:1', max_conns = %d }]\n%s", text, maxConns, sound))
			require.NoError(t, err)
			require.Equal(t, want, c.Upstreams[0].Queue)
			warned := slices.ContainsFunc(c.Warnings, func(w string) bool {
				return w == `t.toml:2:9: queue: nobody will ever wait, since no server of upstream "a" has max_conns`
			})
			require.Equal(t, want.Size > 0 && !bounded, warned, "%q", c.Warnings)
		}
	}
}
