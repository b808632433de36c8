package ledger

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

const patience = 20 * time.Second

// Each fault of a proxy, on one message of 60, is found and put into the list
// it belongs to. The proxies are the saboteurs; with an honest one all balances.
func TestReconcileFindsEachFault(t *testing.T) {
	t.Parallel()
	const messages = 60
	for name, row := range map[string]struct {
		fault    fault
		balances bool
		want     Report // counts only
		list     func(*Report) []string
	}{
		"honest":  {honest, true, Report{Sent: 60, Accepted: 60, Stored: 60}, nil},
		"loses":   {lose, false, Report{Sent: 60, Accepted: 60, Stored: 59}, func(r *Report) []string { return r.Lost }},
		"doubles": {duplicate, false, Report{Sent: 60, Accepted: 60, Stored: 61}, func(r *Report) []string { return r.Duplicate }},
		"garbles": {corrupt, false, Report{Sent: 60, Accepted: 60, Stored: 60}, func(r *Report) []string { return r.Corrupt }},
		"forges":  {forge, false, Report{Sent: 60, Accepted: 60, Stored: 60}, func(r *Report) []string { return r.Foreign }},
		"hides":   {hideReply, true, Report{Sent: 60, Accepted: 59, Broken: 1, Stored: 60}, func(r *Report) []string { return r.Unconfirmed }},
		"cuts":    {withhold, true, Report{Sent: 60, Accepted: 59, Broken: 1, Stored: 59}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(t, smtptest.Script{Name: "store"})
			c := &Client{
				Addr:        badProxy(t, s.Addr(), row.fault, 30),
				Sessions:    messages,
				Concurrency: 8,
				Timeout:     patience,
			}
			c.Run(t.Context())
			r := Reconcile(c, s)
			require.Equal(t, row.balances, r.Err() == nil, "%v", r)
			got := Report{Sent: r.Sent, Accepted: r.Accepted, Refused: r.Refused, Broken: r.Broken, Stored: r.Stored}
			require.Equal(t, row.want, got, "%v", r)
			require.GreaterOrEqual(t, c.Tally().OK, messages-1, "%v", c.Tally())
			if row.list == nil {
				require.Empty(t, r.Unconfirmed)
				return
			}
			require.Len(t, row.list(&r), 1)
			if row.fault == forge { // what was forged is also lost
				require.Len(t, r.Lost, 1)
				r.Lost = nil
			}
			total := len(r.Lost) + len(r.Duplicate) + len(r.Corrupt) + len(r.Foreign) + len(r.Unconfirmed)
			require.Equal(t, 1, total, "in one list only: %v", r)
			require.Contains(t, r.String(), row.list(&r)[0])
		})
	}
}

func TestReconcileOverSeveralStores(t *testing.T) {
	t.Parallel()
	a := NewServer(t, smtptest.Script{Name: "a"})
	b := NewServer(t, smtptest.Script{Name: "b"})
	var turn bool
	c := &Client{
		Sessions: 10,
		Mails:    3,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			to := a.Addr()
			if turn = !turn; turn {
				to = b.Addr()
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	}
	c.Run(t.Context())
	r := Reconcile(c, a, b)
	require.NoError(t, r.Err())
	require.Equal(t, 30, r.Stored)
	require.Len(t, a.Stored(), 15)
	require.Len(t, Reconcile(c, a).Lost, 15, "without the other store")
	twice := Reconcile(c, a, b, List("postfix", []string{a.Stored()[0].ID}))
	require.Equal(t, []string{a.Stored()[0].ID}, twice.Duplicate)
	require.Equal(t, []string{"a", "postfix"}, twice.Copies[twice.Duplicate[0]])

	// A list stands for a server that cannot be asked, once each.
	var ids []string
	for _, e := range a.Stored() {
		ids = append(ids, e.ID)
	}
	require.NoError(t, Reconcile(c, List("postfix", ids), b).Err())
}

// What the client sees of each way to fail, phase by phase.
func TestPhases(t *testing.T) {
	t.Parallel()
	gone := smtptest.Step{Mute: true, Then: smtptest.Close}
	full := smtptest.Step{Reply: "452 4.3.1 full\r\n"}
	busy := smtptest.Step{Reply: "421 4.3.2 busy\r\n"}
	for name, row := range map[string]struct {
		script smtptest.Script
		phase  Phase // of the message
		code   int
		ends   Phase // of the session
		err    error // of the session
	}{
		"all well":          {smtptest.Script{}, Done, 250, Done, nil},
		"banner closed":     {smtptest.Script{Connect: gone}, Banner, 0, Banner, io.ErrUnexpectedEOF},
		"banner 421":        {smtptest.Script{Connect: busy}, Banner, 421, Banner, nil},
		"banner 554":        {smtptest.Script{Connect: smtptest.Step{Reply: "554 no\r\n"}}, Banner, 554, Banner, nil},
		"ehlo closed":       {smtptest.Script{Ehlo: gone}, Ehlo, 0, Ehlo, io.ErrUnexpectedEOF},
		"mail closed":       {smtptest.Script{Mail: gone}, Mail, 0, Mail, io.ErrUnexpectedEOF},
		"mail refused":      {smtptest.Script{Mail: full}, Mail, 452, Done, nil},
		"mail 421":          {smtptest.Script{Mail: busy}, Mail, 421, Mail, nil},
		"rcpt closed":       {smtptest.Script{Rcpt: gone}, Rcpt, 0, Rcpt, io.ErrUnexpectedEOF},
		"rcpt refused":      {smtptest.Script{Rcpt: full}, Rcpt, 452, Done, nil},
		"data closed":       {smtptest.Script{Data: gone}, Data, 0, Data, io.ErrUnexpectedEOF},
		"data refused":      {smtptest.Script{Data: full}, Data, 452, Done, nil},
		"dot closed":        {smtptest.Script{Dot: gone}, Dot, 0, Dot, io.ErrUnexpectedEOF},
		"dot reset":         {smtptest.Script{Dot: smtptest.Step{Mute: true, Then: smtptest.Reset}}, Dot, 0, Dot, syscall.ECONNRESET},
		"dot refused":       {smtptest.Script{Dot: full}, Dot, 452, Done, nil},
		"quit closed":       {smtptest.Script{Quit: gone}, Done, 250, Quit, io.ErrUnexpectedEOF},
		"no end after quit": {smtptest.Script{Quit: smtptest.Step{Then: smtptest.Reset}}, Done, 250, Quit, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(t, row.script)
			c := &Client{Addr: s.Addr(), Sessions: 1, Timeout: patience}
			c.Run(t.Context())
			require.Len(t, c.History(), 1)
			got := c.History()[0]
			require.Len(t, got.Messages, 1)
			m := got.Messages[0]
			require.Equal(t, row.phase, m.Phase)
			require.Equal(t, row.code, m.Code)
			require.Equal(t, row.phase == Done, m.Accepted())
			require.Equal(t, row.ends, got.Phase)
			require.ErrorIs(t, got.Err, row.err)
			require.Equal(t, row.phase == Done && row.ends == Done, got.OK())
			require.NoError(t, Reconcile(c, s).Err())
		})
	}
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	c := &Client{Addr: smtptest.Refused(t), Sessions: 3}
	c.Run(t.Context())
	for _, s := range c.History() {
		require.Equal(t, Connect, s.Phase)
		require.ErrorIs(t, s.Err, syscall.ECONNREFUSED)
	}
	r := Reconcile(c)
	require.NoError(t, r.Err())
	require.Equal(t, 3, r.Broken)
	require.Zero(t, c.Tally().Greeted)
	require.Contains(t, c.Tally().String(), "3 broken at connect")
}

// A 421 that is followed by a reset could have been lost on its way; the client
// must tell that from one that is followed by end of file.
func TestResetAfter421IsSeen(t *testing.T) {
	t.Parallel()
	s := NewServer(t, smtptest.Script{Ehlo: smtptest.Step{Reply: "421 4.3.2 busy\r\n", Then: smtptest.Reset}})
	c := &Client{Addr: s.Addr(), Sessions: 1}
	c.Run(t.Context())
	got := c.History()[0]
	require.Error(t, got.Err)
	require.ErrorIs(t, got.Err, syscall.ECONNRESET)
}

// A server that refuses in the middle of a message and closes: its reply is
// read though writing failed first, or it is seen as broken in Data, never Dot.
func TestRefusalInTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := smtptest.Serve(t, ln, func(c net.Conn) {
		buf := make([]byte, 4096)
		for _, reply := range []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"} {
			io.WriteString(c, reply)
			c.Read(buf)
		}
		io.WriteString(c, "552 5.3.4 too big\r\n") // and close with unread input: RST
	})
	c := &Client{Addr: s.Addr(), Sessions: 1, Size: 32 << 20, Timeout: patience}
	c.Run(t.Context())
	m := c.History()[0].Messages[0]
	require.Equal(t, Data, m.Phase)
	require.Error(t, m.Err)
	require.False(t, m.Accepted())
}

func TestReplySyntax(t *testing.T) {
	t.Parallel()
	for reply, phase := range map[string]Phase{
		"220 ok\r\n":              Ehlo, // the next reply does not come
		"220\r\n":                 Ehlo,
		"220-a\r\n220-b\r\n220\n": Ehlo,
		"22 ok\r\n":               Banner,
		"220ok\r\n":               Banner,
		"SSH-2.0\r\n":             Banner,
		"220-a\r\n250 b\r\n":      Banner,
		"999 ok\r\n":              Banner,
		"\r\n":                    Banner,
	} {
		s := NewServer(t, smtptest.Script{
			Connect: smtptest.Step{Reply: reply},
			Ehlo:    smtptest.Step{Mute: true, Then: smtptest.Close},
		})
		c := &Client{Addr: s.Addr(), Sessions: 1, Timeout: patience}
		c.Run(t.Context())
		require.Equal(t, phase, c.History()[0].Phase, "%q: %v", reply, c.History()[0].Err)
	}
}

func TestTimeoutIsOfEachReply(t *testing.T) {
	t.Parallel()
	s := NewServer(t, smtptest.Script{Rcpt: smtptest.Step{Wait: time.Hour}})
	c := &Client{Addr: s.Addr(), Sessions: 1, Timeout: time.Second}
	c.Run(t.Context())
	m := c.History()[0].Messages[0]
	require.Equal(t, Rcpt, m.Phase)
	var timeout net.Error
	require.ErrorAs(t, m.Err, &timeout)
	require.True(t, timeout.Timeout())
}

// Fails when latencies are taken at the wrong moment. All bounds hold however
// slow the machine is: a session takes its greeting's time and two dots' at
// least.
func TestTallyMeasures(t *testing.T) {
	t.Parallel()
	const greeting, dot = 20 * time.Millisecond, 60 * time.Millisecond
	s := NewServer(t, smtptest.Script{Connect: smtptest.Step{Wait: greeting}, Dot: smtptest.Step{Wait: dot}})
	c := &Client{Addr: s.Addr(), Sessions: 5, Concurrency: 5, Mails: 2}
	begun := time.Now()
	c.Run(t.Context())
	all := time.Since(begun)
	got := c.Tally()
	require.Equal(t, 5, got.Sessions)
	require.Equal(t, 5, got.OK)
	require.Equal(t, 10, got.Accepted)
	require.Equal(t, 5, got.Banner.N)
	require.GreaterOrEqual(t, got.Banner.P50, greeting)
	require.LessOrEqual(t, got.Banner.Max, all-2*dot)
	require.Equal(t, 5*(2+2*4), got.Command.N)
	require.GreaterOrEqual(t, got.Command.Max, dot)
	require.LessOrEqual(t, got.Command.Max, all-greeting-dot)
	require.Contains(t, got.String(), "5 sessions, 5 ok, 5 greeted; 10 messages, 10 accepted; greeting p50")
}

func TestConcurrencyIsReachedAndKept(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := NewServer(t, smtptest.Script{Dot: smtptest.Step{Until: release}})
	c := &Client{Addr: s.Addr(), Sessions: 50, Concurrency: 20}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(context.Background())
	}()
	smtptest.Eventually(t, patience, "20 sessions wait", func() bool { return s.Open() == 20 })
	require.Equal(t, 20, s.Accepted())
	close(release)
	<-done
	require.Equal(t, 50, c.Tally().OK)
}

// Fails when pace does not wait (the sessions are through at once) or when a
// session that waits holds up others.
func TestRateIsKeptWhateverTheServerDoes(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := NewServer(t, smtptest.Script{Connect: smtptest.Step{Until: release}})
	c := &Client{Addr: s.Addr(), Sessions: 31, Rate: 100}
	begun := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(context.Background())
	}()
	smtptest.Eventually(t, patience, "all have begun", func() bool { return s.Accepted() == 31 })
	require.GreaterOrEqual(t, time.Since(begun), 300*time.Millisecond)
	require.Zero(t, c.Ended())
	close(release)
	<-done
	require.Equal(t, 31, c.Tally().OK)
}

func TestRunUntilContextIsDone(t *testing.T) {
	t.Parallel()
	s := NewServer(t, smtptest.Script{})
	c := &Client{Addr: s.Addr(), Concurrency: 4}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	smtptest.Eventually(t, patience, "some sessions have ended", func() bool { return c.Ended() > 100 })
	cancel()
	<-done
	got := c.Tally()
	require.Equal(t, got.Sessions, got.OK, "%v", got)
	require.NoError(t, Reconcile(c, s).Err())
}

func TestUnixSocketAndCloseFirst(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "smtp.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := Serve(t, ln, smtptest.Script{Quit: smtptest.Step{Then: smtptest.Linger}})
	c := &Client{Addr: "unix:" + path, Sessions: 3, CloseFirst: true}
	c.Run(t.Context())
	require.Equal(t, 3, c.Tally().OK)
	require.NoError(t, Reconcile(c, s).Err())
}

func TestHeldSession(t *testing.T) {
	t.Parallel()
	s := NewServer(t, smtptest.Script{Name: "mx7"})
	c := &Client{Addr: s.Addr()}
	h, err := c.Hold(t.Context())
	require.NoError(t, err)
	require.Equal(t, "mx7 ESMTP smtptest", h.Greeting())
	require.NoError(t, h.Noop())
	require.Equal(t, h.Local(), s.Sessions()[0].Client)
	require.Zero(t, c.Ended())
	require.NoError(t, h.Finish())
	h.Abandon()
	require.Error(t, h.Finish())
	require.Equal(t, 1, c.Tally().OK)
	r := Reconcile(c, s)
	require.NoError(t, r.Err())
	require.Equal(t, 1, r.Stored)
}

// A held session that was cut must not pass for one that is alive.
func TestHeldSessionThatWasCut(t *testing.T) {
	t.Parallel()
	s := NewServer(t, smtptest.Script{})
	c := &Client{Addr: s.Addr()}
	cut, err := c.Hold(t.Context())
	require.NoError(t, err)
	idle, err := c.Hold(t.Context())
	require.NoError(t, err)
	s.Kill()
	require.Error(t, cut.Noop())
	require.Error(t, cut.Finish())
	idle.Abandon()
	_, err = c.Hold(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	got := c.Tally()
	require.Equal(t, 3, got.Sessions)
	require.Zero(t, got.OK)
	require.Equal(t, map[Phase]int{Connect: 1, Ehlo: 1, Mail: 1}, got.Broken)

	refusing := NewServer(t, smtptest.Script{Noop: smtptest.Step{Reply: "421 no\r\n"}, Rcpt: smtptest.Step{Reply: "550 no\r\n"}})
	c = &Client{Addr: refusing.Addr()}
	h, err := c.Hold(t.Context())
	require.NoError(t, err)
	require.ErrorContains(t, h.Finish(), "refused with 550 at rcpt")
	h, err = c.Hold(t.Context())
	require.NoError(t, err)
	defer h.Abandon()
	require.ErrorContains(t, h.Noop(), "got 421")
}

// Ids and bodies differ, so that mixing two messages up cannot go unseen.
func TestMessagesDiffer(t *testing.T) {
	t.Parallel()
	a, b := &Client{Size: 1000}, &Client{Size: 1000}
	a.prepare()
	b.prepare()
	ids, bodies := make(map[string]bool), make(map[string]bool)
	for range 50 {
		for _, c := range []*Client{a, b} {
			id := c.newID()
			ids[id] = true
			bodies[headerValue(c.compose(id), headerSum)] = true
			require.Equal(t, id, headerValue(c.compose(id), "x-ledger-ID"))
		}
	}
	require.Len(t, ids, 100)
	require.Greater(t, len(bodies), 10)
	require.Empty(t, headerValue("A: b\r\n", "C"))
}

// BenchmarkSession is the cost of client and server together: the harness must
// not be what a test of the balancer measures.
func BenchmarkSession(b *testing.B) {
	s := NewServer(b, smtptest.Script{})
	c := &Client{Addr: s.Addr(), Sessions: b.N, Concurrency: 50}
	b.ReportAllocs()
	c.Run(b.Context())
	if got := c.Tally(); got.OK != b.N {
		b.Fatal(got)
	}
	if err := Reconcile(c, s).Err(); err != nil {
		b.Fatal(err)
	}
}
