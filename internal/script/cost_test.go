package script

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const tenVariables = `$remote_addr:$remote_port [$time_local] $status $bytes_sent $bytes_received $session_time "$upstream_addr" $upstream_connect_time $connection`

// defined has a variable of each kind.
func defined(t testing.TB) *Scope {
	return built(t, func(s *Scope) {
		require.NoError(t, s.Map(Map{Variable: "$pool", Source: "$remote_addr", Hostnames: true, Entries: []Entry{
			{"default", "mx-$part"}, {"10.0.0.1", "a"}, {"*.example.org", "b"}, {"~^192[.]168[.]", "c"}}}))
		_, err := s.Geo(Geo{Variable: "$net", Entries: []Entry{{"default", "far"}, {"192.0.2.0/24", "near"}}})
		require.NoError(t, err)
		_, err = s.Geo(Geo{Variable: "$range", Source: "$remote_addr", Ranges: true, Entries: []Entry{{"192.0.2.0-192.0.2.9", "near"}}})
		require.NoError(t, err)
		require.NoError(t, s.Split(Split{Variable: "$part", Source: "$binary_remote_addr", Parts: []Entry{{"50%", "1"}, {"*", "2"}}}))
		require.NoError(t, s.Set("$mine"))
	})
}

// eachSession returns what is done for a session that is logged in the format.
func eachSession(t testing.TB, escape Escape, text string) func() {
	scope := defined(t)
	format, err := scope.Format(escape, text)
	require.NoError(t, err)
	mine, err := scope.Assign("$mine", "$pool.$net")
	require.NoError(t, err)
	constant := compiled(t, scope, "127.0.0.1:25")
	s := &Session{}
	var line []byte
	return func() {
		s.Begin(scope)
		someFacts(&s.Facts)
		mine.Run(s)
		line = constant.Append(format.Append(line[:0], s), s)
	}
}

// Neither a log line nor any kind of variable costs an allocation. Fails if a
// constant is copied, or a slot or the held memory made anew.
func TestNoAllocation(t *testing.T) {
	for _, escape := range []Escape{EscapeDefault, EscapeJSON, EscapeNone} {
		f := eachSession(t, escape, tenVariables+" $pool $net $range $part $mine $proxy_protocol_addr $msec")
		f()
		require.Zero(t, testing.AllocsPerRun(100, f))
	}
}

func BenchmarkFormat(b *testing.B) {
	for _, test := range []struct{ name, text string }{
		{"ten", tenVariables},
		{"map-geo-split", "$pool $net $range $part"},
	} {
		b.Run(test.name, func(b *testing.B) {
			f := eachSession(b, EscapeDefault, test.text)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	b.Run("facts-only", func(b *testing.B) { // to be subtracted
		f := eachSession(b, EscapeDefault, "-")
		b.ReportAllocs()
		for b.Loop() {
			f()
		}
	})
}
