package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"smtplb/internal/smtptest"
)

// Tally sums up what a client saw.
type Tally struct {
	Sessions int // that have ended
	OK       int // of these, went through with all messages accepted
	Greeted  int // got a 220

	Sent     int           // messages, attempted ones too
	Accepted int           // 250 after the final dot
	Refused  map[Phase]int // messages refused by a reply
	Broken   map[Phase]int // messages whose connection broke; and at Quit, sessions
	Codes    map[int]int   // the codes of refusals

	Banner  smtptest.Latency // from connecting to the greeting
	Command smtptest.Latency // from a command to its reply, the final dot too
}

func (t *Tally) add(s *Session) {
	if s.OK() {
		t.OK++
	}
	if s.Phase > Banner {
		t.Greeted++
	}
	if s.Phase == Quit {
		t.Broken[Quit]++
	}
	for i := range s.Messages {
		m := &s.Messages[i]
		t.Sent++
		switch {
		case m.Accepted():
			t.Accepted++
		case m.Refused():
			t.Refused[m.Phase]++
			t.Codes[m.Code]++
		default:
			t.Broken[m.Phase]++
		}
	}
}

func (t Tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sessions, %d ok, %d greeted; %d messages, %d accepted", t.Sessions, t.OK, t.Greeted, t.Sent, t.Accepted)
	for _, p := range slices.Sorted(maps.Keys(t.Refused)) {
		fmt.Fprintf(&b, ", %d refused at %v", t.Refused[p], p)
	}
	for _, p := range slices.Sorted(maps.Keys(t.Broken)) {
		fmt.Fprintf(&b, ", %d broken at %v", t.Broken[p], p)
	}
	for _, code := range slices.Sorted(maps.Keys(t.Codes)) {
		fmt.Fprintf(&b, ", %d × %d", t.Codes[code], code)
	}
	fmt.Fprintf(&b, "; greeting %v; command %v", t.Banner, t.Command)
	return b.String()
}
