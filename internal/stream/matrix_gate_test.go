package stream

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// row is one way in which a server begins; see TestGreetingMatrix.
type row struct {
	name  string
	act   act    // nil: it is never connected
	says  string // what of it a client sees that is committed to it
	moved bool   // a quiet client is moved on to the next server
	fails bool   // and that is a failure
	// about says that it may be about the client: if that is known, a refusal
	// is relayed, and a broken connection counts only if others have met it.
	about  bool
	polite bool // it has greeted, and so is left by QUIT
}

// slowly says a text byte by byte.
func slowly(s string) act {
	return func(v *visit) bool {
		for _, c := range s {
			if !v.say(string(c)) {
				return false
			}
			time.Sleep(5 * time.Millisecond)
		}
		return true
	}
}

const (
	teaser     = "220-teaser\r\n"
	teaserRest = 250 * time.Millisecond // between the teaser and the rest of the greeting
)

var rows = []row{
	{name: "refused", moved: true, fails: true},
	{name: "SYN dropped", moved: true, fails: true},
	{name: "RST", moved: true, fails: true, about: true, act: func(v *visit) bool {
		_ = smtptest.Abort(v.Conn)
		return false
	}},
	{name: "FIN", moved: true, fails: true, about: true, act: func(v *visit) bool {
		_ = smtptest.CloseWrite(v.Conn)
		return true
	}},
	{name: "silent", moved: true, fails: true, act: silent},
	{name: "421 4.3.2", moved: true, fails: true, polite: true, says: "421 4.3.2 busy\r\n", act: greet("421 4.3.2 busy\r\n")},
	{name: "421 4.7.0", moved: true, about: true, polite: true, says: "421 4.7.0 not you\r\n", act: greet("421 4.7.0 not you\r\n")},
	{name: "554", moved: true, about: true, polite: true, says: "554 5.7.1 not you\r\n", act: greet("554 5.7.1 not you\r\n")},
	{name: "garbage", moved: true, fails: true, says: "SSH-2.0-OpenSSH\r\n", act: greet("SSH-2.0-OpenSSH\r\n")},
	{name: "220 byte by byte", says: "220 slow\r\n", act: slowly("220 slow\r\n")},
	{name: "220- teaser", says: teaser + "220 done\r\n", act: func(v *visit) bool {
		if !v.say(teaser) {
			return false
		}
		time.Sleep(teaserRest)
		_, err := io.WriteString(v, "220 done\r\n")
		return err == nil
	}},
}

// greetingCell is a row met by one kind of client, with one kind of header.
type greetingCell struct {
	row
	column string
	header HeaderVersion

	*rig
	local       netip.AddrPort
	first, next *witness
	hold        chan struct{} // closed when the first server may act

	round  int
	teased []time.Duration // how long each teaser took
}

const (
	quiet      = "quiet client"
	talker     = "early talker"
	leaver     = "client leaves"
	cellRounds = 10
)

// TestGreetingMatrix is T7: every way in which a server may begin, before a
// quiet client, one that speaks first and one that leaves, with every kind of
// PROXY header. Behind the odd server is a good one.
//
// Whoever gets a byte of the client is the server that the client sees, and no
// other; every server that was connected got the right header first, and once.
//
// It fails if the gate opens at the connect, or only after a whole greeting
// (the teaser); if the header is sent behind the greeting or only with the
// first attempt; if an early talker is held back, or sent to a second server;
// if abandon leaves QUIT out or says it to everybody; if a refusal is relayed
// whoever knows the client, or never; if the outcome of any row is given
// another verdict; if a client's leaving goes unnoticed or is counted.
func TestGreetingMatrix(t *testing.T) {
	var cells []*greetingCell
	for _, r := range rows {
		for _, column := range []string{quiet, talker, leaver} {
			for _, v := range []HeaderVersion{NoHeader, HeaderV1, HeaderV2} {
				cells = append(cells, newGreetingCell(t, r, column, v))
			}
		}
	}
	parallel(t, len(cells), 33, func(i int) error {
		c := cells[i]
		if err := c.run(); err != nil {
			return fmt.Errorf("%s, %s, PROXY v%d: %w", c.name, c.column, c.header, err)
		}
		return nil
	})
}

func newGreetingCell(t *testing.T, r row, column string, v HeaderVersion) *greetingCell {
	c := &greetingCell{row: r, column: column, header: v, hold: make(chan struct{})}
	var addr string
	switch r.name {
	case "refused":
		addr = smtptest.Refused(t)
	case "SYN dropped":
		s := smtptest.NewServer(t, smtptest.Script{})
		require.NoError(t, s.Blackhole(true))
		addr = s.Addr()
	default:
		first := r.act
		switch column {
		case talker:
			first = after(hasSpoken, first)
		case leaver:
			first = after(func(*visit) bool { <-c.hold; return true }, first)
		}
		c.first = newWitness(t, first)
		addr = c.first.addr
	}
	c.next = newWitness(t, good)
	c.rig = newRig(t, []string{addr, c.next.addr}, gated, tell(v), backups, func(p *plan) {
		// No time is to run out but where that is what the greetingCell is about.
		if r.name == "SYN dropped" && column != leaver {
			p.ConnectTimeout = gateTimeout
		}
		if r.name == "silent" && column == quiet {
			p.Gate.Timeout = gateTimeout
		}
	})
	c.local = netip.MustParseAddrPort(c.port.name)
	return c
}

func (c *greetingCell) run() error {
	defer func() {
		select {
		case <-c.hold:
		default:
			close(c.hold)
		}
	}()
	for c.round = range cellRounds {
		var err error
		if c.column == leaver {
			err = c.leave()
		} else {
			err = c.session()
		}
		if err != nil {
			return err
		}
	}
	if c.column == leaver {
		close(c.hold)
	}
	if !soon(func() bool { return c.Sessions() == 0 }) {
		return fmt.Errorf("%d sessions are left", c.Sessions())
	}
	if len(c.teased) > 0 {
		// Of a busy machine the fastest tells.
		if took := smtptest.Summarize(c.teased); c.teased[0] > 50*time.Millisecond || took.P50 >= teaserRest {
			return fmt.Errorf("teaser relayed after %v at the least, %v", c.teased[0], took)
		}
	}
	return c.checkFails()
}

// checkFails compares the failures in the books with those there should be.
func (c *greetingCell) checkFails() error {
	want := 0
	visible := c.header != NoHeader
	switch {
	case c.first == nil && c.column == leaver && c.name == "refused":
		return nil // it may be refused before the client has left
	case c.column == leaver, c.column == talker && c.first != nil:
	case c.fails && (!c.about || !visible):
		want = cellRounds
	}
	for i, s := range c.group.Snapshot(c.Seconds()) {
		if i > 0 {
			want = 0
		}
		if s.Fails != want || s.Conns != 0 {
			return fmt.Errorf("server %d: want %d failures, got %d; %d sessions", i, want, s.Fails, s.Conns)
		}
	}
	return nil
}

// committed reports whether the first server's words are what the client sees.
func (c *greetingCell) committed() bool {
	if c.column == talker {
		return c.first != nil
	}
	return !c.moved || c.about && c.says != "" && c.header != NoHeader
}

// session is a client that stays to the end.
func (c *greetingCell) session() error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	began := time.Now()
	talks := c.column == talker
	if talks {
		if _, err := io.WriteString(conn, early); err != nil {
			return err
		}
	}
	want := goodGreeting
	if talks {
		want += goodAnswer
	}
	sent := ""
	if talks {
		sent = early
	}
	if c.committed() {
		want = c.says
	}
	saw, at, err := readUntil(conn, want, c.committed() && c.says == "")
	if err != nil || saw != want {
		return fmt.Errorf("want %q, got %q (%w)", want, saw, err)
	}
	if took := time.Since(began); took > patience {
		return fmt.Errorf("greeted after %v", took)
	}
	if want != "" {
		if _, err := io.WriteString(conn, quit); err != nil {
			return err
		}
		sent += quit
		rest, err := io.ReadAll(conn)
		if err != nil || string(rest) != goodbye {
			return fmt.Errorf("want %q and the end, got %q (%w)", goodbye, rest, err)
		}
	}
	conn.Close()
	return c.checkVisits(addrPort(conn.LocalAddr()), sent, at)
}

// readUntil reads until it has what is wanted, and returns also when the first
// byte came. If nothing is wanted, it waits for a moment, or for the end.
func readUntil(c net.Conn, want string, nothing bool) (saw string, first time.Time, err error) {
	b := make([]byte, 4<<10)
	if nothing {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ := c.Read(b)
		return string(b[:n]), first, nil
	}
	for len(saw) < len(want) {
		n, err := c.Read(b)
		if saw == "" {
			first = time.Now()
		}
		saw += string(b[:n])
		if err != nil {
			return saw, first, err
		}
	}
	return saw, first, nil
}

// checkVisits compares what both servers got from the latest session with what
// its client sent.
func (c *greetingCell) checkVisits(client netip.AddrPort, sent string, first time.Time) error {
	header := headerOf(c.header, client, c.local)
	chosen := c.next
	if c.committed() {
		chosen = c.first
		if n := len(c.next.seen()); n > 0 {
			return fmt.Errorf("the other server got %d sessions", n)
		}
	} else if c.first != nil {
		left := ""
		if c.polite {
			left = quit
		}
		v, err := c.first.visit(c.round)
		if err != nil {
			return err
		}
		if got := v.got(); got != header+left && c.name != "RST" {
			return fmt.Errorf("the server that was left got %q, want %q", got, header+left)
		}
	}
	v, err := chosen.visit(c.round)
	if err != nil {
		return err
	}
	if got := v.got(); got != header+sent {
		return fmt.Errorf("the server got %q, want %q", got, header+sent)
	}
	if strings.HasPrefix(c.says, teaser) && c.column == quiet {
		c.teased = append(c.teased, first.Sub(v.spoke))
	}
	return nil
}

func last(v []*visit) *visit { return v[len(v)-1] }

// leave is a client that goes away before its server has greeted.
func (c *greetingCell) leave() error {
	visits := 0
	if c.first != nil {
		visits = len(c.first.seen())
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	switch {
	case c.first != nil:
		if !c.comes(of(conn, func(s *session) bool { return s.state == stateGreeting })) {
			return fmt.Errorf("the session never waited for the greeting")
		}
	case c.name == "SYN dropped":
		if !c.comes(of(conn, connecting)) {
			return fmt.Errorf("the session never waited for the connection")
		}
	}
	ended := c.ended()
	conn.Close()
	began := time.Now()
	if !soon(func() bool { return c.ended() > ended || c.name == "refused" }) || time.Since(began) > shortly {
		return fmt.Errorf("the session ended after %v", time.Since(began))
	}
	if c.first == nil {
		return nil
	}
	if !soon(func() bool { return len(c.first.seen()) > visits }) {
		return fmt.Errorf("the server was never connected")
	}
	if n := len(c.next.seen()); n > 0 {
		return fmt.Errorf("another server was asked for a client that had left")
	}
	return nil
}

// ended is how many sessions have ended.
func (c *greetingCell) ended() int { return int(c.Stats().Ended) }
