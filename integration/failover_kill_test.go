package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
	"smtplb/internal/smtptest/tunpump"
)

// T6: three servers, each a process on a host of its own, and every two seconds
// one of them is killed, stopped, or cut off the network, for most of that time.
// A client whose server had not greeted yet notices nothing, whatever happens. A
// killed server ends the sessions that were live on it, at once, and no
// other; those on a server that only stands still wait for it. No mail is lost.
//
// Fails with proxy_next_upstream = false, and where a server is stopped with
// smtp = false: the kernel goes on accepting for it.
func TestServersFailUnderLoad(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name         string
		begin, end   func(*host, *testing.T)
		endsSessions bool
	}{
		{"killed", (*host).killed, (*host).start, true},
		{"stopped", signalled(syscall.SIGSTOP), signalled(syscall.SIGCONT), false},
		{"unreachable", cut(true), cut(false), false},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			const (
				cycles  = 5
				down    = 1500 * time.Millisecond // in each
				up      = 500 * time.Millisecond
				longest = 5 * time.Second // wait for a greeting: a server that is silent is left after a second
			)
			hosts := []*host{newHost(t, "a"), newHost(t, "b"), newHost(t, "c")}
			seen := &lives{ended: map[string][]life{}}
			client := &ledger.Client{Addr: freeAddr(t), Rate: 60, Mails: 4, Dial: seen.dial}
			p := smtptest.Start(t, workers(2)+verbose+
				checkedUpstream("mail", "", hosts[0].entry(), hosts[1].entry(), hosts[2].entry())+
				proxy(client.Addr, "mail", "proxy_connect_timeout = '1s'", "smtp_greeting_timeout = '1s'"))

			stop := run(t, client)
			more(t, client, 50)
			for i := range cycles {
				h := hosts[i%len(hosts)]
				fault.begin(h, t)
				time.Sleep(down)
				fault.end(h, t)
				time.Sleep(up)
			}
			stop()
			p.Signal(syscall.SIGTERM)
			require.Zero(t, p.Exit(patience))

			report := ledger.Reconcile(client, hosts[0], hosts[1], hosts[2])
			t.Logf("%v\n%v", client.Tally(), report)
			require.NoError(t, report.Err())
			requireInGap(t, client, report)
			require.Less(t, client.Tally().Banner.Max, longest)
			for _, e := range endings(t, p) {
				require.Positive(t, e.ToClient, "a client heard nothing: %+v", e)
			}
			for _, h := range hosts {
				require.Positive(t, len(h.Stored()), "mails of "+h.name)
			}
			if !fault.endsSessions {
				requireAll(t, client, hosts[0], hosts[1], hosts[2])
				return
			}
			requireCutByDeath(t, client, seen, hosts)
		})
	}
}

// requireCutByDeath asserts that each session of a client that did not go
// through was live on a host when its server was killed, and ended with it.
func requireCutByDeath(t *testing.T, c *ledger.Client, seen *lives, hosts []*host) {
	t.Helper()
	const within = 5 * time.Second // nothing else ends them for minutes
	live, cut, early := 0, 0, 0
	for _, s := range c.History() {
		require.Zero(t, s.Code, "%+v", s)
		if s.Local == "" && errors.Is(s.Err, syscall.ECONNRESET) {
			// It was greeted, as the program's log shows of all sessions, and
			// reset with its server before the client knew its own address.
			early++
			continue
		}
		require.Greater(t, s.Phase, ledger.Banner, "a client that was not greeted: %+v", s)
		at := seen.next(s.Local)
		i := slices.IndexFunc(hosts, func(h *host) bool { return h.name == nameIn(s.Greeting) })
		require.NotEqual(t, -1, i, "%+v", s)
		died := slices.IndexFunc(hosts[i].deaths, func(d death) bool {
			return at.begun.Before(d.gone) && at.ended.After(d.killed)
		})
		if died != -1 {
			live++
		}
		if s.OK() {
			continue
		}
		cut++
		require.NotEqual(t, -1, died, "a session was cut that had a living server: %+v, from %v to %v; it died %v", s, at.begun, at.ended, hosts[i].deaths)
		require.Less(t, at.ended.Sub(hosts[i].deaths[died].gone), within)
	}
	t.Logf("of %d sessions, %d were live on a server when it was killed, of which %d were cut; %d more before they knew it",
		c.Ended(), live, cut, early)
	require.Positive(t, cut, "a server was killed while it had sessions")
}

// lives are the times of a client's sessions, by its address, which may come
// again; then they are in the order in which they ended.
type lives struct {
	mu    sync.Mutex // protects below
	ended map[string][]life
}

type life struct{ begun, ended time.Time }

// dial is a ledger.Client's Dial.
func (l *lives) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	begun := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lifeline{Conn: conn, lives: l, begun: begun}, nil
}

// next removes and returns the first one from an address.
func (l *lives) next(client string) (first life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, l.ended[client] = l.ended[client][0], l.ended[client][1:]
	return first
}

// lifeline notes when its connection ended: at the first error, end of file
// among them. It is one goroutine's.
type lifeline struct {
	net.Conn
	lives *lives
	begun time.Time
	over  bool
}

func (c *lifeline) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(err)
	return n, err
}

func (c *lifeline) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(err)
	return n, err
}

func (c *lifeline) note(err error) {
	if err == nil || c.over {
		return
	}
	c.over = true
	c.lives.mu.Lock()
	defer c.lives.mu.Unlock()
	client := c.LocalAddr().String()
	c.lives.ended[client] = append(c.lives.ended[client], life{c.begun, time.Now()})
}

// host is a mail server as a process of its own, in a network of its own. It is
// a ledger.Store. Its methods are for the test's goroutine.
type host struct {
	name, addr string
	link       *tunpump.Link
	book       string // file of the messages that it took
	cmd        *exec.Cmd
	deaths     []death
}

// death is when a server was killed, and when there was nothing left of it.
type death struct{ killed, gone time.Time }

func newHost(t *testing.T, name string) *host {
	t.Helper()
	link := tunpump.New(t, tunpump.Config{})
	h := &host{
		name: name,
		addr: netip.AddrPortFrom(link.Far(), 25).String(),
		link: link,
		book: filepath.Join(t.TempDir(), "book"),
	}
	h.start(t)
	t.Cleanup(func() { h.killed(t) })
	return h
}

// entry is the server in a group. What fails is left alone for as long as it
// takes to come back.
func (h *host) entry() string { return server(h.addr, "max_fails = 1", "fail_timeout = '1s'") }

// hostEnv in the environment makes this test binary a host's server: it is the
// address to listen on, its name and its book.
const hostEnv = "SMTPLB_TEST_HOST"

// start runs the server and waits until it listens.
func (h *host) start(t *testing.T) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	h.cmd = exec.Command(program, "-test.run=^TestHostProcess$")
	h.cmd.Env = append(os.Environ(), hostEnv+"="+strings.Join([]string{h.addr, h.name, h.book}, " "), "TMPDIR="+filepath.Dir(h.book))
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of the far thread, which the link keeps
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, h.link.Do(h.cmd.Start))
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == listening {
			break
		}
	}
	require.Equal(t, listening, lines.Text(), "the server of %s", h.name)
}

func (h *host) killed(*testing.T) {
	now := time.Now()
	_ = h.cmd.Process.Kill() // it may be dead, and then stays so
	_ = h.cmd.Wait()
	h.deaths = append(h.deaths, death{now, time.Now()})
}

func signalled(sig syscall.Signal) func(*host, *testing.T) {
	return func(h *host, t *testing.T) {
		t.Helper()
		require.NoError(t, h.cmd.Process.Signal(sig))
	}
}

func cut(off bool) func(*host, *testing.T) {
	return func(h *host, _ *testing.T) { h.link.Cut(off) }
}

func (h *host) Stored() []ledger.Entry {
	text, err := os.ReadFile(h.book)
	if err != nil {
		return nil // it has taken nothing yet
	}
	var entries []ledger.Entry
	for line := range strings.Lines(string(text)) {
		id, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		entries = append(entries, ledger.Entry{ID: id, Server: h.name, Corrupt: state != intact})
	}
	return entries
}

const (
	listening = "listening"
	intact    = "intact"
)

// TestHostProcess is no test but the server of a host, in the process that start
// makes, until it is killed.
func TestHostProcess(t *testing.T) {
	args := strings.Fields(os.Getenv(hostEnv))
	if len(args) == 0 {
		return
	}
	addr, name, path := args[0], args[1], args[2]
	book, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	ln, err := net.Listen("tcp4", addr)
	require.NoError(t, err)
	fmt.Println(listening)
	for {
		conn, err := ln.Accept()
		require.NoError(t, err)
		go func() {
			defer conn.Close()
			takeMail(conn, name, book)
		}()
	}
}

// takeMail serves a session. It writes a message into the book before it says
// that it has it, so that the book holds every mail it is answerable for,
// however it ends.
func takeMail(conn net.Conn, name string, book io.Writer) {
	const work = 20 * time.Millisecond // with a message
	c := textproto.NewConn(conn)
	_ = c.PrintfLine("220 %s ESMTP", name)
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		switch line {
		case "DATA":
			_ = c.PrintfLine("354 end with a dot")
			entry, err := readMail(&c.Reader)
			if err != nil {
				return
			}
			time.Sleep(work)
			if _, err := io.WriteString(book, entry); err != nil {
				return
			}
			_ = c.PrintfLine("250 stored")
		case "QUIT":
			_ = c.PrintfLine("221 bye")
			return
		default:
			_ = c.PrintfLine("250 ok")
		}
	}
}

// readMail reads a message and makes its line of the book.
func readMail(r *textproto.Reader) (string, error) {
	lines, err := r.ReadDotLines()
	if err != nil {
		return "", err
	}
	blank := max(0, slices.Index(lines, ""))
	var id, want string
	for _, field := range lines[:blank] {
		switch name, value, _ := strings.Cut(field, ": "); name {
		case "X-Ledger-Id":
			id = value
		case "X-Ledger-Sum":
			want = value
		}
	}
	sum := sha256.New()
	for _, line := range lines[min(blank+1, len(lines)):] {
		_, _ = io.WriteString(sum, line+"\r\n")
	}
	state := intact
	if hex.EncodeToString(sum.Sum(nil)) != want {
		state = "corrupt"
	}
	return id + " " + state + "\n", nil
}
