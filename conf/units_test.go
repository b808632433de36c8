package conf

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nginx 1.22 accepts and refuses the same texts, but for those above maxTime,
// which it accepts as proxy_timeout or as fail_timeout.
func TestParseTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		grain grain
		want  time.Duration
		err   string
	}{
		{"0", millis, 0, ""},
		{"10", millis, 10 * time.Second, ""},
		{"10", seconds, 10 * time.Second, ""},
		{"10s", millis, 10 * time.Second, ""},
		{"500ms", millis, 500 * time.Millisecond, ""},
		{"1m30s", millis, 90 * time.Second, ""},
		{"1m30", millis, 90 * time.Second, ""},
		{"1h 30m", millis, 90 * time.Minute, ""},
		{"1h  30m ", millis, 90 * time.Minute, ""},
		{"1h 5 ", millis, time.Hour + 5*time.Second, ""},
		{"1w2d3h4m5s6ms", millis, 9*day + 3*time.Hour + 4*time.Minute + 5*time.Second + 6*time.Millisecond, ""},
		{"1s500ms", millis, 1500 * time.Millisecond, ""},
		{"1s30", millis, 31 * time.Second, ""},
		{"1ms 1", millis, 1001 * time.Millisecond, ""},
		{"1y1M1w", seconds, 402 * day, ""},
		{"007s", millis, 7 * time.Second, ""},
		{"100y", seconds, maxTime, ""},
		{"3153600000", millis, maxTime, ""},

		{"", millis, 0, "want a time"},
		{" ", millis, 0, "want a time"},
		{" 10s", millis, 0, "want a time"},
		{"10 s", millis, 0, "a unit is missing after 10"},
		{"s", millis, 0, "want a time"},
		{"-1", millis, 0, "want a time"},
		{"+1", millis, 0, "want a time"},
		{"1.5s", millis, 0, "a unit is missing after 1"},
		{"1 0s", millis, 0, "a unit is missing after 1"},
		{"10x", millis, 0, `unknown unit "x"`},
		{"10S", millis, 0, `unknown unit "S"`},
		{"10sec", millis, 0, `unknown unit "sec"`},
		{"10µs", millis, 0, "a unit is missing after 10"},
		{"1m1h", millis, 0, "from large to small"},
		{"1s1s", millis, 0, "from large to small"},
		{"1y", millis, 0, `unit "y" is too coarse`},
		{"1M", millis, 0, `unit "M" is too coarse`},
		{"1ms", seconds, 0, `unit "ms" is too fine`},
		{"101y", seconds, 0, "too long"},
		{"100y1s", seconds, 0, "too long"},
		{"3153600001", millis, 0, "too long"},
		{"9223372036854775807", millis, 0, "too long"},
		{"18446744073709551617", millis, 0, "too long"},
		{strings.Repeat("9", 4000) + "s", millis, 0, "too long"},
	} {
		got, err := parseTime(c.text, c.grain)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%q", c.text)
			continue
		}
		require.NoError(t, err, "%q", c.text)
		require.Equal(t, c.want, got, "%q", c.text)
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want int64
		err  string
	}{
		{"0", 0, ""},
		{"4096", 4096, ""},
		{"64k", 65536, ""},
		{"64K", 65536, ""},
		{"1m", 1 << 20, ""},
		{"1M", 1 << 20, ""},
		{"8796093022207m", 8796093022207 << 20, ""},

		{"", 0, "want a size"},
		{"k", 0, "want a size"},
		{"1g", 0, "want a size"},
		{"1kb", 0, "want a size"},
		{"1 k", 0, "want a size"},
		{"-1", 0, "want a size"},
		{"1.5k", 0, "want a size"},
		{"8796093022208m", 0, "too large"},
		{"9223372036854775808", 0, "too large"},
		{strings.Repeat("9", 4000), 0, "too large"},
	} {
		got, err := parseSize(c.text)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, "%q", c.text)
			continue
		}
		require.NoError(t, err, "%q", c.text)
		require.Equal(t, c.want, got, "%q", c.text)
	}
}

// FuzzUnits holds that no text makes a time or a size out of its bounds.
func FuzzUnits(f *testing.F) {
	for _, seed := range []string{"1h 30m", "100y", "500ms", "64k", "99999999999999999999", "1w2d3h4m5s6ms"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range []grain{millis, seconds} {
			d, err := parseTime(text, g)
			require.True(t, 0 <= d && d <= maxTime, "%v", d)
			if err == nil && g == seconds {
				require.Zero(t, d%time.Second)
			}
		}
		n, _ := parseSize(text)
		require.GreaterOrEqual(t, n, int64(0))
	})
}

// A slip of one key is found among many; what resembles nothing is not.
func TestClosest(t *testing.T) {
	t.Parallel()
	names := serverTable.names()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range names {
		i := rng.IntN(len(name) - 1)
		require.Equal(t, name, closest(name[:i]+name[i+1:], names), "a letter missing")
		require.Equal(t, name, closest(name[:i]+"z"+name[i:], names), "a letter too many")
		require.Equal(t, name, closest(name[:i]+"z"+name[i+1:], names), "another letter")
		require.Equal(t, name, closest(name[:i]+name[i+1:i+2]+name[i:i+1]+name[i+2:], names), "two letters swapped")
	}
	require.Equal(t, "weight", closest("wieght", upstreamServerTable.names()))
	require.Equal(t, 1, distance("wieght", "weight"))
	require.Equal(t, 3, distance("kitten", "sitting"))
	require.Empty(t, closest("", names))
	require.Empty(t, closest("x", []string{"y"}))
	require.Empty(t, closest("gzip", names))
}
