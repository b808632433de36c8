package reactor

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWheelAgainstList compares the wheel with a plain list over random
// arming, disarming and passing of time: a timer never fires early, fires at
// the latest one tick after its time (or after the clock has moved, if that is
// later), Due says beforehand whether one does, and Next is never later than the
// earliest timer. It fails if Next starts its search at the present bucket (full
// turns are missed), if Advance does not clip a jump of the clock, or if Due
// compares ticks alone.
func TestWheelAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Wheel
		now := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		w.Advance(now, nil)
		type want struct {
			at  int64 // what was asked for, the earliest wins
			rim bool  // further than the wheel reaches: it may fire early
		}
		due := map[uint32]want{}
		arm := func(i uint32, at int64) {
			w.Arm(i, at)
			at = max(at, now)
			if old, ok := due[i]; !ok || at < old.at {
				due[i] = want{at, at-w.tick*Tick > (buckets-3)*Tick}
			}
		}
		fire := func(i uint32) {
			timer, ok := due[i]
			if !ok {
				t.Fatalf("timer %d fired, but is not armed", i)
			}
			if timer.at > now && !timer.rim {
				t.Fatalf("timer %d fired %d ms early", i, timer.at-now)
			}
			delete(due, i)
			if timer.at > now {
				arm(i, timer.at)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"arm": func(t *rapid.T) {
				i := uint32(rapid.IntRange(0, 40).Draw(t, "timer"))
				at := now + rapid.Int64Range(-500, 3*buckets*Tick).Draw(t, "in")
				arm(i, at)
			},
			"disarm": func(t *rapid.T) {
				i := uint32(rapid.IntRange(0, 40).Draw(t, "timer"))
				w.Disarm(i)
				delete(due, i)
			},
			"advance": func(t *rapid.T) {
				now += rapid.OneOf(rapid.Int64Range(0, 3*Tick), rapid.Int64Range(0, 5*buckets*Tick)).Draw(t, "by")
				expected, fired := w.Due(now), false
				w.Advance(now, func(i uint32) {
					fired = true
					fire(i)
				})
				if fired != expected {
					t.Fatalf("a timer fired: %v, which Due did not say", fired)
				}
			},
			"": func(t *rapid.T) {
				if len(due) == 0 {
					if next := w.Next(); next != -1 {
						t.Fatalf("no timer armed, Next says %d", next)
					}
					return
				}
				earliest := int64(1 << 62)
				for i, timer := range due {
					earliest = min(earliest, timer.at)
					if timer.at <= now-2*Tick {
						t.Fatalf("timer %d is %d ms late", i, now-timer.at)
					}
				}
				next := w.Next()
				if next < 0 || next > max(earliest, now)+2*Tick {
					t.Fatalf("Next says %d, the earliest timer is at %d, now is %d", next, earliest, now)
				}
			},
		})
	})
}

func TestSlabTellsTenantsApart(t *testing.T) {
	var s Slab[int]
	v, index, generation := s.Get()
	*v = 7
	token := MakeToken(KindUser, index, generation, 3)
	require.Same(t, v, s.Lookup(token))
	require.Equal(t, KindUser, token.Kind())
	require.Equal(t, uint8(3), token.Attempt())

	s.Put(index)
	require.Nil(t, s.Lookup(token), "freed")
	again, same, next := s.Get()
	require.Equal(t, index, same, "the hottest slot is used first")
	require.NotEqual(t, generation, next)
	require.Zero(t, *again)
	require.Nil(t, s.Lookup(token), "the event of an earlier tenant")
	require.Panics(t, func() { s.Put(index); s.Put(index) })
}

func TestSlabAddressesStay(t *testing.T) {
	var s Slab[int]
	var first []*int
	for i := range 3 * chunkSize {
		v, _, _ := s.Get()
		*v = i
		first = append(first, v)
	}
	require.Equal(t, 3*chunkSize, s.Len())
	seen := 0
	s.Each(func(_ uint32, v *int) {
		seen++
		require.True(t, slices.Contains(first, v))
	})
	require.Equal(t, 3*chunkSize, seen)
}

func TestTokenPacksEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Kind(rapid.IntRange(0, 3).Draw(t, "kind"))
		i := uint32(rapid.IntRange(0, maxIndex).Draw(t, "index"))
		g := uint32(rapid.IntRange(0, 1<<generationBits-1).Draw(t, "generation"))
		a := rapid.Uint8().Draw(t, "attempt")
		token := MakeToken(k, i, g, a)
		if token.Kind() != k || token.Index() != i || token.Generation() != g || token.Attempt() != a {
			t.Fatalf("%x: %d %d %d %d", uint64(token), token.Kind(), token.Index(), token.Generation(), token.Attempt())
		}
	})
}
