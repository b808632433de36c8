package smtptest

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

// client is a connection to a server under test.
type client struct {
	t *testing.T
	*net.TCPConn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) client {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return client{t, c.(*net.TCPConn), bufio.NewReader(c)}
}

// expect reads a line for each want and compares its beginning.
func (c client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		line, err := c.in.ReadString('\n')
		require.NoError(c.t, err, "want %q", w)
		require.True(c.t, strings.HasPrefix(line, w), "want %q, got %q", w, line)
	}
}

func (c client) say(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
}

// expectEnd reads what the connection ends with: io.EOF or an error.
func (c client) expectEnd(want error) {
	c.t.Helper()
	b, err := c.in.ReadByte()
	require.ErrorIs(c.t, err, want, "got byte %q", b)
}

func (c client) envelope() {
	c.t.Helper()
	c.say("EHLO me\r\n")
	c.expect("250-", "250-PIPELINING", "250 ")
	c.say("MAIL FROM:<a@example.com> SIZE=9\r\n")
	c.expect("250")
	c.say("RCPT TO:<b@example.com>\r\n")
	c.expect("250")
	c.say("DATA\r\n")
	c.expect("354")
}

func onlySession(t *testing.T, s *Server) Session {
	t.Helper()
	Eventually(t, patience, "the session ends", func() bool { return s.Accepted() == 1 && s.Open() == 0 })
	return s.Sessions()[0]
}

func TestServerTakesMail(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{Name: "mx1"})
	c := dial(t, s.Addr())
	c.expect("220 mx1 ESMTP")
	c.envelope()
	c.say("Subject: x\r\nX-A: b\r\n\r\n..dot\r\nline\n.\nbare\r\n.\r\n")
	c.expect("250")
	c.say("QUIT\r\n")
	c.expect("221")
	c.expectEnd(io.EOF)

	body := ".dot\r\nline\n.\nbare\r\n"
	require.Equal(t, []Message{{
		From:   "a@example.com",
		To:     []string{"b@example.com"},
		Header: "Subject: x\r\nX-A: b\r\n",
		Size:   int64(len(body)),
		Sum:    sha256.Sum256([]byte(body)),
	}}, s.Messages())

	got := onlySession(t, s)
	require.Equal(t, c.LocalAddr().String(), got.Client)
	require.Equal(t, []string{"EHLO me", "MAIL FROM:<a@example.com> SIZE=9", "RCPT TO:<b@example.com>", "DATA", "QUIT"}, got.Commands)
	require.Equal(t, 1, got.Stored)
	require.NoError(t, got.Err)
	require.EqualValues(t, 9+34+25+6+len("Subject: x\r\nX-A: b\r\n\r\n")+len(body)+1+3+6, got.Received)
}

// Fails when lines longer than the buffer, or a CR LF split over two fills of
// it, shift the beginning of a line.
func TestServerReadsLongLines(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{})
	for _, n := range []int{bufferSize - 2, bufferSize - 1, bufferSize, bufferSize + 1, 3 * bufferSize} {
		c := dial(t, s.Addr())
		c.expect("220")
		c.envelope()
		body := strings.Repeat("x", n) + "\r\n" + strings.Repeat(".", n) + "\r\n"
		stuffed := strings.Replace(body, "\r\n.", "\r\n..", 1)
		c.say("\r\n" + stuffed + ".\r\n")
		c.expect("250")
		m := s.Messages()
		require.Equal(t, sha256.Sum256([]byte(body)), m[len(m)-1].Sum, "n=%d", n)
	}
}

func TestServerAnswersPipelinedCommandsAfterHalfClose(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{})
	c := dial(t, s.Addr())
	c.say("EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\nhi\r\n.\r\nNOOP\r\nRSET\r\nWHAT\r\nDATA\r\nRCPT TO:<x>\r\nQUIT\r\n")
	require.NoError(t, c.CloseWrite())
	c.expect("220", "250-", "250-", "250 ", "250", "250", "354", "250", "250", "250", "500", "503", "503", "221")
	c.expectEnd(io.EOF)
}

// A server script × what the client must then see.
func TestGreetings(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		step Step
		want []string
		end  error
	}{
		"multi-line":        {Step{Reply: "220-wait\r\n220 go\r\n", Then: Close}, []string{"220-wait", "220 go"}, io.EOF},
		"421 closes":        {Step{Reply: "421 4.3.2 busy\r\n"}, []string{"421 4.3.2 busy"}, io.EOF},
		"garbage":           {Step{Reply: "SSH-2.0-x\r\n", Then: Close}, []string{"SSH-2.0-x"}, io.EOF},
		"close before":      {Step{Mute: true, Then: Close}, nil, io.EOF},
		"reset before":      {Step{Mute: true, Then: Reset}, nil, syscall.ECONNRESET},
		"reset after":       {Step{Then: Reset}, []string{"220"}, syscall.ECONNRESET},
		"half-close before": {Step{Mute: true, Then: HalfClose}, nil, io.EOF},
		"dribble":           {Step{Reply: "220 x\r\n", ByteGap: time.Millisecond, Then: Close}, []string{"220 x"}, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connected := make(chan struct{})
			row.step.Until = connected
			s := NewServer(t, Script{Connect: row.step})
			c := dial(t, s.Addr())
			close(connected)
			c.expect(row.want...)
			c.expectEnd(row.end)
		})
	}
}

func Test554GreetingWaitsForQuit(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{Connect: Step{Reply: "554 5.7.1 go away\r\n"}})
	c := dial(t, s.Addr())
	c.expect("554")
	c.say("EHLO me\r\n")
	c.expect("503")
	c.say("QUIT\r\n")
	c.expect("221")
	c.expectEnd(io.EOF)
}

func TestSilentServerCountsWhatComes(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{Connect: Step{Mute: true, Then: Linger}})
	c := dial(t, s.Addr())
	c.say("EHLO early\r\n")
	Eventually(t, patience, "the bytes are counted", func() bool {
		return s.Accepted() == 1 && s.Sessions()[0].Received == 12
	})
	require.Equal(t, 1, s.Open())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	c.expectEnd(os.ErrDeadlineExceeded)
	require.NoError(t, Abort(c.TCPConn))
	require.ErrorIs(t, onlySession(t, s).Err, syscall.ECONNRESET)
}

// Each wait has to be there: fails when play does not pause, or when the gap
// between bytes or lines is skipped.
func TestDelays(t *testing.T) {
	t.Parallel()
	const gap = 30 * time.Millisecond
	for name, row := range map[string]struct {
		step  Step
		first time.Duration // until the first byte, at least
		all   time.Duration // until the whole reply, at least
	}{
		"wait":     {Step{Wait: gap}, gap, gap},
		"teaser":   {Step{Reply: "220-a\r\n220 b\r\n", LineGap: gap}, 0, gap},
		"byte gap": {Step{Reply: "220 ab\r\n", ByteGap: gap / 3}, 0, 7 * gap / 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(t, Script{Connect: row.step})
			begun := time.Now()
			c := dial(t, s.Addr())
			_, err := c.in.Peek(1)
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Since(begun), row.first)
			for {
				line, err := c.in.ReadString('\n')
				require.NoError(t, err)
				if line[3] == ' ' {
					break
				}
			}
			require.GreaterOrEqual(t, time.Since(begun), row.all)
			if row.first == 0 {
				require.Less(t, row.first, row.all)
			}
		})
	}
}

// The gap between final dot and 250, under the test's own control.
func TestReplyHeldUntilTheTestSaysSo(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := NewServer(t, Script{Dot: Step{Until: release}})
	c := dial(t, s.Addr())
	c.expect("220")
	c.envelope()
	c.say("\r\nhi\r\n.\r\n")
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	c.expectEnd(os.ErrDeadlineExceeded)
	require.Empty(t, s.Messages(), "not stored before it is answered")
	close(release)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	c.expect("250")
	require.Len(t, s.Messages(), 1)
}

// Fails when a message is stored whose final reply refused it, came to nobody,
// or never was.
func TestOnlyAnsweredMessagesAreStored(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]Step{
		"refused":           {Reply: "451 4.3.0 try again\r\n"},
		"closed before 250": {Mute: true, Then: Close},
		"reset before 250":  {Mute: true, Then: Reset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(t, Script{Dot: step})
			c := dial(t, s.Addr())
			c.expect("220")
			c.envelope()
			c.say("\r\nhi\r\n.\r\n")
			_, _ = c.in.ReadString('\n')
			c.Close()
			require.Zero(t, onlySession(t, s).Stored)
			require.Empty(t, s.Messages())
		})
	}
	t.Run("client gone mid-data", func(t *testing.T) {
		t.Parallel()
		s := NewServer(t, Script{})
		c := dial(t, s.Addr())
		c.expect("220")
		c.envelope()
		c.say("\r\nhi\r\n")
		c.Close()
		require.ErrorIs(t, onlySession(t, s).Err, io.ErrUnexpectedEOF)
		require.Empty(t, s.Messages())
	})
}

func TestRefuseResumeKill(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{})
	addr := s.Addr()
	held := dial(t, addr)
	held.expect("220")

	s.Refuse()
	_, err := net.DialTimeout("tcp", addr, patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	held.say("NOOP\r\n")
	held.expect("250")
	_, err = net.Listen("tcp", addr)
	require.ErrorIs(t, err, syscall.EADDRINUSE, "the port stays ours")

	require.NoError(t, s.Resume())
	require.NoError(t, s.Resume(), "a second listener would survive Kill")
	c := dial(t, addr)
	c.expect("220")

	s.Kill()
	held.expectEnd(io.EOF)
	c.expectEnd(io.EOF)
	_, err = net.DialTimeout("tcp", addr, patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, s.Resume())
	dial(t, addr).expect("220")
}

// Fails when the filter is not attached (the dial succeeds) or not detached.
func TestBlackhole(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{})
	held := dial(t, s.Addr())
	held.expect("220")

	require.NoError(t, s.Blackhole(true))
	_, err := net.DialTimeout("tcp", s.Addr(), 50*time.Millisecond)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout(), "neither accepted nor refused: %v", err)
	held.say("NOOP\r\n")
	require.NoError(t, held.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	held.expectEnd(os.ErrDeadlineExceeded)

	require.NoError(t, s.Blackhole(false))
	require.NoError(t, held.SetReadDeadline(time.Now().Add(patience)))
	held.expect("250") // the kernel sent it again
	dial(t, s.Addr()).expect("220")
}

func TestSetScriptIsForLaterSessions(t *testing.T) {
	t.Parallel()
	s := NewServer(t, Script{Name: "one"})
	early := dial(t, s.Addr())
	early.expect("220 one")
	s.SetScript(Script{Name: "two", Noop: Step{Reply: "250 new\r\n"}})
	early.say("NOOP\r\n")
	early.expect("250 2.0.0 ok")
	late := dial(t, s.Addr())
	late.expect("220 two")
	late.say("NOOP\r\n")
	late.expect("250 new")
}

// Fails when Stop waits for a wait, or does not wait for the sessions.
func TestStopEndsEverySession(t *testing.T) {
	t.Parallel()
	forever := Step{Wait: time.Hour}
	for name, script := range map[string]Script{
		"waiting":  {Connect: forever},
		"until":    {Connect: Step{Until: make(chan struct{})}},
		"stalled":  {Connect: Step{Then: Stall}},
		"dribbles": {Connect: Step{ByteGap: time.Hour}},
		"idle":     {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := NewServer(t, script)
			var conns []client
			for range 10 {
				conns = append(conns, dial(t, s.Addr()))
			}
			Eventually(t, patience, "all are accepted", func() bool { return s.Accepted() == len(conns) })
			begun := time.Now()
			s.Stop()
			require.Less(t, time.Since(begun), patience)
			require.Zero(t, s.Open())
		})
	}
}

func TestServeOnUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "smtp.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := ServeSMTP(t, ln, Script{Name: "local"})
	c, err := net.Dial("unix", s.Addr())
	require.NoError(t, err)
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "220 local ESMTP smtptest\r\n", line)
	require.Panics(t, s.Refuse)
}

func TestServeStopsHandlers(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var ended sync.WaitGroup
	ended.Add(2)
	var s *Service
	s = Serve(t, ln, func(c net.Conn) {
		defer ended.Done()
		_, err := io.Copy(io.Discard, c)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("handler: %v", err)
		}
		<-s.Done()
	})
	dial(t, s.Addr())
	c := dial(t, s.Addr())
	require.NoError(t, c.CloseWrite())
	Eventually(t, patience, "both are served", func() bool {
		n := 0
		s.each(nil, func(net.Conn) { n++ })
		return n == 2
	})
	s.Stop()
	ended.Wait()
	_, err = net.Dial("tcp", ln.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}
