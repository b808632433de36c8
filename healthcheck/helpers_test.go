package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// strict is a mail server that watches its client's manners. It speaks over one
// end of a net.Pipe in a synctest bubble, where "has not written for 100 ms" is
// exact and takes no time.
type strict struct {
	// replies has the replies to a verb, the next one for each time it comes
	// and the last one again after that; "" is the greeting. shut closes
	// instead of replying, silence never does, and a 220 to STARTTLS is followed
	// by TLS.
	replies map[string][]string
	tls     *tls.Config
	gap     time.Duration // between the lines of a reply; 0 is 100 ms
	stays   bool          // do not close after 421
	atOnce  bool          // write a reply as a whole

	implicit bool // speak TLS from the beginning

	conn     net.Conn
	commands []string
	faults   []string // of manners
	closed   bool     // the server has closed the connection before the client did
}

const (
	shut    = "close"
	silence = "silence"
)

const hello = "250-mx.example.com\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n"

var usual = map[string][]string{
	"":         {"220-wait\r\n220-a moment\r\n220 mx.example.com ESMTP\r\n"},
	"EHLO":     {hello},
	"LHLO":     {hello},
	"HELO":     {"250 mx.example.com\r\n"},
	"STARTTLS": {"220 2.0.0 go ahead\r\n"},
	"MAIL":     {"250 2.1.0 ok\r\n"},
	"RCPT":     {"250-2.1.5 well\r\n250 2.1.5 ok\r\n"},
	"RSET":     {"250 2.0.0 ok\r\n"},
	"QUIT":     {"221 2.0.0 bye\r\n"},
}

// serve holds one session.
func (s *strict) serve(conn net.Conn) {
	s.conn = conn
	defer func() { s.conn.Close() }()
	if s.implicit {
		s.conn = tls.Server(s.conn, s.tls)
	}
	seen := map[string]int{}
	verb := ""
	for {
		list := s.replies[verb]
		if list == nil {
			list = usual[verb]
		}
		if list == nil {
			s.faults = append(s.faults, "unexpected "+verb)
			list = []string{"500 what\r\n"}
		}
		reply := list[min(seen[verb], len(list)-1)]
		seen[verb]++
		if !s.say(reply) {
			return
		}
		if verb == "QUIT" || strings.HasPrefix(reply, "421") && !s.stays {
			s.quiet("the close after " + verb)
			s.closed = true
			return
		}
		if verb == "STARTTLS" && reply[0] == '2' {
			s.conn = tls.Server(s.conn, s.tls)
		}
		line, err := s.line()
		if err != nil {
			s.faults = append(s.faults, fmt.Sprintf("after the reply to %q: %v", verb, err))
			return
		}
		s.commands = append(s.commands, line)
		verb, _, _ = strings.Cut(line, " ")
	}
}

// say sends a reply line by line, and notes what the client does meanwhile. It
// is false if the session has ended.
func (s *strict) say(reply string) bool {
	switch reply {
	case shut:
		s.closed = true
		return false
	case silence:
		io.Copy(io.Discard, s.conn)
		return false
	}
	lines := strings.SplitAfter(reply, "\n")
	if s.atOnce {
		lines = []string{reply}
	}
	for _, line := range lines {
		if line == "" {
			break
		}
		if !s.quiet(fmt.Sprintf("%q", line)) {
			return false
		}
		if _, err := s.conn.Write([]byte(line)); err != nil {
			s.faults = append(s.faults, fmt.Sprintf("write %q: %v", line, err))
			return false
		}
	}
	return true
}

// quiet waits, during which the client must neither write nor close.
func (s *strict) quiet(before string) bool {
	gap := s.gap
	if gap == 0 {
		gap = 100 * time.Millisecond
	}
	s.conn.SetReadDeadline(time.Now().Add(gap))
	defer s.conn.SetReadDeadline(time.Time{})
	var b [1]byte
	n, err := s.conn.Read(b[:])
	switch {
	case n > 0:
		s.faults = append(s.faults, "the client speaks before "+before)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		s.faults = append(s.faults, "the client closes before "+before)
	}
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// line reads a command. There must be nothing behind it.
func (s *strict) line() (string, error) {
	buf := make([]byte, 1024)
	n, err := s.conn.Read(buf)
	if err != nil {
		return "", err
	}
	line, ok := strings.CutSuffix(string(buf[:n]), "\r\n")
	if !ok || strings.Contains(line, "\n") {
		s.faults = append(s.faults, fmt.Sprintf("not one command: %q", buf[:n]))
	}
	return line, nil
}

// visit lets one probe visit s in the current bubble, and returns when both
// ends are done. Timeout and Helo have defaults.
func (s *strict) visit(t *testing.T, settings Settings) outcome {
	t.Helper()
	if settings.Timeout == 0 {
		settings.Timeout = 10 * time.Second
	}
	settings.SMTP, settings.Helo = true, "lb.example.com"
	client, server := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(server) })
	o := examine(t.Context(), func(context.Context, string, string) (net.Conn, error) { return client, nil }, settings)
	if _, err := client.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the probe has not closed its connection: %v", err)
	}
	wg.Wait()
	return o
}

// reporter is a Reporter that keeps what it is told.
type reporter struct {
	mu      sync.Mutex
	results []Result
	times   []time.Time
	waiting bool
}

func (r *reporter) Probed(result Result) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, result)
	r.times = append(r.times, time.Now())
	if r.waiting {
		return time.Second
	}
	return 0
}

func (r *reporter) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.results)
}

func (r *reporter) last() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[len(r.results)-1]
}

func (r *reporter) wait(waiting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = waiting
}

// field is a network of servers that take a connection for some time, and are
// connected to or not.
type field struct {
	mu     sync.Mutex
	took   time.Duration
	lag    time.Duration    // of a probe that is cut
	err    map[string]error // by address
	begun  map[string][]time.Time
	open   int
	peak   int
	during time.Duration // sum over all probes
}

func newField(took time.Duration) *field {
	return &field{took: took, err: map[string]error{}, begun: map[string][]time.Time{}}
}

func (f *field) fail(address string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err[address] = err
}

func (f *field) visits(address string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.begun[address])
}

func (f *field) dial(ctx context.Context, _, address string) (net.Conn, error) {
	f.mu.Lock()
	began := time.Now()
	f.begun[address] = append(f.begun[address], began)
	f.open++
	f.peak = max(f.peak, f.open)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open--
		f.during += time.Since(began)
	}()
	select {
	case <-time.After(f.took):
	case <-ctx.Done():
		time.Sleep(f.lag)
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.err[address]; err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	server.Close()
	return client, nil
}

func newChecker(t *testing.T, dial dialFunc) *Checker {
	t.Helper()
	c := start(zap.NewNop(), dial)
	t.Cleanup(c.Stop)
	return c
}

// aim is a target of type tcp with usual values.
func aim(address string, r Reporter) Target {
	return Target{
		Settings: Settings{Network: "tcp", Address: address, Timeout: 5 * time.Second},
		Upstream: "up", Name: address,
		Interval: 10 * time.Second, DownInterval: 30 * time.Second,
		Rise: 2, Fall: 3,
		Reporter: r,
	}
}
