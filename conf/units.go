package conf

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// maxTime keeps a time added to any clock reading far from overflow.
const maxTime = 100 * 365 * day

// grain is the finest unit that a time may have.
type grain int

const (
	millis  grain = iota // nginx's msec directives: ms, but neither months nor years
	seconds              // nginx's sec directives: months and years, but no ms
)

// timeUnits are nginx's, from large to small (ngx_parse_time).
var timeUnits = []struct {
	name string
	span time.Duration
}{
	{"y", 365 * day},
	{"M", 30 * day},
	{"w", 7 * day},
	{"d", day},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// parseTime reads a time as ngx_parse_time does: numbers with units that go from
// large to small, with spaces between them or not ("1h 30m", "1m30s", "500ms").
// The last number may go without a unit and counts seconds.
func parseTime(text string, g grain) (time.Duration, error) {
	total, smaller, rest := time.Duration(0), 0, text
	for first := true; first || rest != ""; first = false {
		var digits, name string
		digits, rest = leading(rest, isDigit)
		name, rest = leading(rest, isLetter)
		rest = strings.TrimLeft(rest, " ")
		if digits == "" {
			return 0, errors.New(`want a time such as "10s", "1m30s" or "2h"`)
		}
		bare := name == "" && rest == ""
		if bare {
			name = "s"
		}
		i := unitIndex(name)
		switch {
		case i < 0 && name == "":
			return 0, fmt.Errorf("a unit is missing after %s", digits)
		case i < 0:
			return 0, fmt.Errorf("unknown unit %q; want y, M, w, d, h, m, s or ms", name)
		case g == millis && timeUnits[i].span >= 30*day:
			return 0, fmt.Errorf("unit %q is too coarse here; use d, h, m, s or ms", name)
		case g == seconds && timeUnits[i].span < time.Second:
			return 0, fmt.Errorf("unit %q is too fine here; use whole seconds", name)
		case i < smaller && !bare:
			return 0, errors.New(`units must go from large to small, each once, as in "1h 30m"`)
		}
		n, ok := atoi(digits, uint64((maxTime-total)/timeUnits[i].span))
		if !ok {
			return 0, errors.New("too long; 100 years is the most")
		}
		total += time.Duration(n) * timeUnits[i].span
		smaller = i + 1
	}
	return total, nil
}

func unitIndex(name string) int {
	for i, u := range timeUnits {
		if u.name == name {
			return i
		}
	}
	return -1
}

// parseSize reads a number of bytes as nginx writes it: "4096", "16k", "1m"
// (ngx_parse_size; it knows no g).
func parseSize(text string) (int64, error) {
	digits, unit := leading(text, isDigit)
	shift := 0
	switch unit {
	case "":
	case "k", "K":
		shift = 10
	case "m", "M":
		shift = 20
	default:
		return 0, errors.New(`want a size such as "16k", "1m" or a number of bytes`)
	}
	if digits == "" {
		return 0, errors.New(`want a size such as "16k", "1m" or a number of bytes`)
	}
	n, ok := atoi(digits, math.MaxInt64>>shift)
	if !ok {
		return 0, errors.New("too large")
	}
	return int64(n) << shift, nil
}

// atoi reads a decimal number up to most. Anything else is not ok.
func atoi(text string, most uint64) (n uint64, ok bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n <= most
}

// leading splits s behind its first bytes that are in set.
func leading(s string, set func(byte) bool) (head, tail string) {
	i := 0
	for i < len(s) && set(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
