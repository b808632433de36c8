package stream

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smtplb/internal/proxyproto"
)

// What the servers and clients of these tests say.
const (
	goodGreeting = "220 good.example ESMTP\r\n"
	goodAnswer   = "250 good.example\r\n"
	goodbye      = "221 bye\r\n"
	early        = "EHLO early.example\r\n"
	quit         = "QUIT\r\n"

	unavailableReply = "421 4.3.2 lb.example nobody\r\n"
	limitReply       = "421 4.3.2 lb.example full\r\n"
	shutdownReply    = "421 4.3.2 lb.example stopping\r\n"
	pregreetReply    = "554 5.5.0 lb.example wait\r\n"
	deniedReply      = "554 5.7.1 lb.example denied\r\n"
)

// gated puts the gate before a rig's servers. No time runs out, on however slow
// a machine.
func gated(p *plan) {
	p.ConnectTimeout = patience
	p.NextTimeout = 2 * patience
	p.Gate = &Gate{
		Timeout: patience,
		Replies: Replies{
			ReplyUnavailable: []byte(unavailableReply),
			ReplyLimit:       []byte(limitReply),
			ReplyShutdown:    []byte(shutdownReply),
			ReplyPregreet:    []byte(pregreetReply),
			ReplyDenied:      []byte(deniedReply),
		},
	}
}

// hasty puts the gate before a rig's servers of which some let their time run
// out: each has little.
func hasty(p *plan) {
	gated(p)
	p.ConnectTimeout, p.Gate.Timeout, p.NextTimeout = gateTimeout, gateTimeout, patience
}

const gateTimeout = 300 * time.Millisecond

// tell has servers told who the client is.
func tell(v HeaderVersion) func(*plan) {
	return func(p *plan) {
		p.Header = v
	}
}

func pregreet(what Pregreet) func(*plan) { return func(p *plan) { p.Gate.Pregreet = what } }

// backups makes all servers but the first into backups, and has none of them
// taken out: every session begins with the first.
func backups(p *plan) {
	for i := range p.servers {
		p.servers[i].MaxFails = 0
		p.servers[i].Backup = i > 0
	}
}

// headerOf is the header that a server must get for a client.
func headerOf(v HeaderVersion, client, local netip.AddrPort) string {
	switch v {
	case HeaderV1:
		return string(proxyproto.AppendV1(nil, client, local))
	case HeaderV2:
		return string(proxyproto.AppendV2(nil, client, local))
	}
	return ""
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// witness is a mail server that does something odd with a new connection and
// then takes mail, and remembers every byte it got.
type witness struct {
	addr string

	mu     sync.Mutex // protects below
	visits []*visit
}

// visit is one connection of a witness.
type visit struct {
	net.Conn
	witness  *witness
	received []byte    // guarded by the witness, as is the next
	spoke    time.Time // when it began to greet
	ended    chan struct{}
}

// act is what a witness does first; false ends the connection.
type act func(*visit) bool

func newWitness(t testing.TB, first act) *witness {
	w := &witness{}
	w.addr = serve(t, func(c net.Conn) {
		v := &visit{Conn: c, witness: w, ended: make(chan struct{})}
		w.mu.Lock()
		w.visits = append(w.visits, v)
		w.mu.Unlock()
		defer close(v.ended)
		if first(v) {
			v.mail()
		}
	})
	return w
}

// seen returns the visits so far.
func (w *witness) seen() []*visit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.visits)
}

// visit returns the visit of that number when it has ended.
func (w *witness) visit(n int) (*visit, error) {
	if !soon(func() bool { return len(w.seen()) > n }) {
		return nil, fmt.Errorf("the server got %d sessions, want %d", len(w.seen()), n+1)
	}
	v := w.seen()[n]
	select {
	case <-v.ended:
		return v, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("session %d of a server does not end", n)
	}
}

// got is what has been received so far.
func (v *visit) got() string {
	v.witness.mu.Lock()
	defer v.witness.mu.Unlock()
	return string(v.received)
}

// receive waits for more and remembers it.
func (v *visit) receive() error {
	b := make([]byte, 4<<10)
	n, err := v.Read(b)
	v.witness.mu.Lock()
	defer v.witness.mu.Unlock()
	v.received = append(v.received, b[:n]...)
	return err
}

// await receives until f holds of everything.
func (v *visit) await(f func(got string) bool) bool {
	for !f(v.got()) {
		if v.receive() != nil {
			return f(v.got())
		}
	}
	return true
}

// say writes and notes when.
func (v *visit) say(s string) bool {
	v.witness.mu.Lock()
	v.spoke = time.Now()
	v.witness.mu.Unlock()
	_, err := io.WriteString(v, s)
	return err == nil
}

// mail answers what comes from here on, until QUIT or the end.
func (v *visit) mail() {
	answered := strings.Contains(v.got(), early)
	for {
		got := v.got()
		if !answered && strings.Contains(got, early) {
			answered = true
			_, _ = io.WriteString(v, goodAnswer)
		}
		if strings.HasSuffix(got, quit) {
			_, _ = io.WriteString(v, goodbye)
			return
		}
		if v.receive() != nil {
			return
		}
	}
}

// greet is a server that says this and goes on.
func greet(s string) act { return func(v *visit) bool { return v.say(s) } }

func good(v *visit) bool { return v.say(goodGreeting) }

func silent(v *visit) bool { return v.await(func(string) bool { return false }) }

// after puts a condition before an act.
func after(what func(*visit) bool, do act) act {
	return func(v *visit) bool { return what(v) && do(v) }
}

// hasSpoken waits for the words of an early talker.
func hasSpoken(v *visit) bool {
	return v.await(func(got string) bool { return strings.HasSuffix(got, early) })
}
