package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// Report is what came of a client's messages. The lists hold ids, sorted.
type Report struct {
	Sent     int // messages of the client, those that never got to MAIL too
	Accepted int // the client read 250 after the final dot
	Refused  int // the client read a refusal
	Broken   int // the connection broke first
	Stored   int // copies stored

	Lost        []string // accepted, and stored nowhere
	Duplicate   []string // stored more than once
	Corrupt     []string // stored with a body that was not sent
	Foreign     []string // stored, and sent by somebody else
	Unconfirmed []string // stored, though the client never read the 250

	// Copies names, for each id, the servers that stored it, one for each copy.
	Copies map[string][]string
}

// Reconcile compares what the client saw with what the stores hold. The client
// should be at rest; then the stores may be read at once, since a server stores
// no later than its 250 can be read.
func Reconcile(c *Client, stores ...Store) Report {
	history := c.History()
	r := Report{Copies: make(map[string][]string)}
	for _, s := range stores {
		for _, e := range s.Stored() {
			r.Stored++
			r.Copies[e.ID] = append(r.Copies[e.ID], e.Server)
			if e.Corrupt {
				r.Corrupt = append(r.Corrupt, e.ID)
			}
		}
	}
	ours := make(map[string]bool, len(history))
	for i := range history {
		for j := range history[i].Messages {
			m := &history[i].Messages[j]
			ours[m.ID] = true
			r.enter(m)
		}
	}
	for id, servers := range r.Copies {
		if len(servers) > 1 {
			r.Duplicate = append(r.Duplicate, id)
		}
		if !ours[id] {
			r.Foreign = append(r.Foreign, id)
		}
	}
	for _, ids := range [][]string{r.Lost, r.Duplicate, r.Corrupt, r.Foreign, r.Unconfirmed} {
		slices.Sort(ids)
	}
	return r
}

func (r *Report) enter(m *Message) {
	r.Sent++
	stored := len(r.Copies[m.ID]) > 0
	switch {
	case m.Accepted():
		r.Accepted++
		if !stored {
			r.Lost = append(r.Lost, m.ID)
		}
		return
	case m.Refused():
		r.Refused++
	default:
		r.Broken++
	}
	if stored {
		r.Unconfirmed = append(r.Unconfirmed, m.ID)
	}
}

// Err is nil unless a message is lost, duplicate, corrupt or foreign, which no
// fault of the network excuses. Unconfirmed ones are for the test to judge, and
// so is whether anything was accepted at all.
func (r Report) Err() error {
	if len(r.Lost)+len(r.Duplicate)+len(r.Corrupt)+len(r.Foreign) == 0 {
		return nil
	}
	return fmt.Errorf("ledger does not balance: %v", r)
}

func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d accepted, %d refused, %d broken, %d stored", r.Sent, r.Accepted, r.Refused, r.Broken, r.Stored)
	for _, l := range []struct {
		name string
		ids  []string
	}{
		{"lost", r.Lost},
		{"duplicate", r.Duplicate},
		{"corrupt", r.Corrupt},
		{"foreign", r.Foreign},
		{"unconfirmed", r.Unconfirmed},
	} {
		if len(l.ids) == 0 {
			continue
		}
		fmt.Fprintf(&b, "; %d %s:", len(l.ids), l.name)
		for _, id := range l.ids[:min(len(l.ids), 5)] {
			fmt.Fprintf(&b, " %s%v", id, r.Copies[id])
		}
		if len(l.ids) > 5 {
			b.WriteString(" …")
		}
	}
	return b.String()
}
