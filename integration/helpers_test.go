package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// patience bounds what has to happen, and on a busy machine may take its time.
const patience = 20 * time.Second

// Parts of a configuration; a test joins those it needs.

// verbose makes the log hold a line for each session.
const verbose = "error_log = { path = 'stderr', level = 'info' }\n"

// workers says how many event loops there are.
func workers(n int) string { return fmt.Sprintf("worker_processes = %d\n", n) }

// upstream is a group of servers, see server, that nobody probes: they have the
// sessions of the test alone, and fail by these.
func upstream(name string, servers ...string) string {
	return checkedUpstream(name, "check = false", servers...)
}

// checkedUpstream is a group with a line for its check, or "" for the default.
func checkedUpstream(name, check string, servers ...string) string {
	return fmt.Sprintf("[[upstream]]\nname = %q\n%s\nservers = [\n  %s,\n]\n", name, check, strings.Join(servers, ",\n  "))
}

// server is one server of a group, with parameters such as "weight = 5".
func server(addr string, params ...string) string {
	return "{ " + strings.Join(append([]string{fmt.Sprintf("address = %q", addr)}, params...), ", ") + " }"
}

// proxy listens on an address, "host:port" or an inline table, for a group.
func proxy(listen, pass string, lines ...string) string {
	if !strings.HasPrefix(listen, "{") {
		listen = fmt.Sprintf("%q", listen)
	}
	return fmt.Sprintf("[[server]]\nlisten = %s\nproxy_pass = %q\n%s\n", listen, pass, strings.Join(lines, "\n"))
}

// freeAddr is an address to listen on.
func freeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", smtptest.FreePort(t))
}

// mx starts a scripted server that is called name in its greeting and in the
// ledger.
func mx(t testing.TB, name string) *ledger.Server {
	t.Helper()
	return ledger.NewServer(t, smtptest.Script{Name: name})
}

// visit opens a session, ends it by QUIT, and returns the name of the server
// that greeted: "-" if none did, and the connection was closed or the balancer
// said that there is none.
func visit(addr string) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	greeting, err := in.ReadString('\n')
	if err == io.EOF && greeting == "" || strings.HasPrefix(greeting, "421 4.3.2 ") {
		return "-", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the greeting: %w", err)
	}
	if _, err := io.WriteString(conn, "QUIT\r\n"); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", fmt.Errorf("wait for the end: %w", err)
	}
	return nameIn(strings.TrimPrefix(greeting, "220 ")), nil
}

// nameIn is the first word of a greeting.
func nameIn(greeting string) string {
	name, _, _ := strings.Cut(greeting, " ")
	return name
}

// visits makes n visits, one after the other, and returns the names of those
// who greeted.
func visits(t testing.TB, addr string, n int) string {
	t.Helper()
	var names strings.Builder
	for range n {
		name, err := visit(addr)
		require.NoError(t, err)
		names.WriteString(name)
	}
	return names.String()
}

// hold opens n sessions, one after the other, that stay open.
func hold(t testing.TB, c *ledger.Client, n int) []*ledger.Held {
	t.Helper()
	held := make([]*ledger.Held, n)
	for i := range held {
		h, err := c.Hold(t.Context())
		require.NoError(t, err)
		t.Cleanup(h.Abandon)
		held[i] = h
	}
	return held
}

// run lets a client send until stop is called, which waits for its sessions.
func run(t testing.TB, c *ledger.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		c.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ran
	}
	t.Cleanup(stop)
	return stop
}

// more waits until a running client has ended n more sessions.
func more(t testing.TB, c *ledger.Client, n int) {
	t.Helper()
	n += c.Ended()
	smtptest.Eventually(t, patience, fmt.Sprintf("%d sessions ended", n), func() bool { return c.Ended() >= n })
}

// requireAll asserts that all of a client's sessions went through, and that
// each of its messages is stored once.
func requireAll(t testing.TB, c *ledger.Client, stores ...ledger.Store) {
	t.Helper()
	tally, report := c.Tally(), ledger.Reconcile(c, stores...)
	require.NoError(t, report.Err())
	require.Positive(t, tally.Sent, "a client that sends nothing loses nothing")
	require.Equal(t, tally.Sent, tally.Accepted, "%v\n%v", tally, report)
	require.Equal(t, tally.Sessions, tally.OK, "%v", tally)
	require.Empty(t, report.Unconfirmed)
}

// requireInGap asserts that messages stored without the client's knowledge are
// those whose reply to the final dot was under way when the session broke: the
// only ones that a client which tries again sends twice (RFC 1047).
func requireInGap(t *testing.T, c *ledger.Client, report ledger.Report) {
	t.Helper()
	ended := map[string]ledger.Phase{}
	for _, session := range c.History() {
		for _, m := range session.Messages {
			ended[m.ID] = m.Phase
		}
	}
	for _, id := range report.Unconfirmed {
		require.Equal(t, ledger.Dot, ended[id], id)
	}
}

// of is what a store holds of one client, where others send to it, too.
type of struct {
	client *ledger.Client
	store  ledger.Store
}

func (o of) Stored() []ledger.Entry {
	sent := map[string]bool{}
	for _, session := range o.client.History() {
		for _, m := range session.Messages {
			sent[m.ID] = true
		}
	}
	return slices.DeleteFunc(o.store.Stored(), func(e ledger.Entry) bool { return !sent[e.ID] })
}

// reload gives the program another configuration and waits until it has it.
func reload(t testing.TB, p *smtptest.Process, config string) {
	t.Helper()
	p.Configure(config)
	hangUp(t, p)
}

// hangUp makes the program read its configuration again.
func hangUp(t testing.TB, p *smtptest.Process) {
	t.Helper()
	n := p.Count("reload done")
	p.Signal(syscall.SIGHUP)
	p.Await("reload done", n+1)
}

// settledFDs returns the descriptors of a program once they stay the same for a
// while: one that has just said that it is ready, or has reloaded, may be closing
// some.
func settledFDs(t testing.TB, p *smtptest.Process) (fds []string) {
	t.Helper()
	const enough = 10 // looks
	same := 0
	smtptest.Eventually(t, patience, "the descriptors stay the same", func() bool {
		before := fds
		fds = smtptest.FDs(t, p.Pid())
		if same++; !slices.Equal(before, fds) {
			same = 0
		}
		return same == enough
	})
	return fds
}

// requireRefused asserts that connections to a TCP address are refused.
func requireRefused(t testing.TB, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// ending is the log's line of a session that has ended.
type ending struct {
	Client     string `json:"client"`
	Peer       string `json:"peer"`
	FromClient int64  `json:"from_client"`
	ToServer   int64  `json:"to_server"`
	FromServer int64  `json:"from_server"`
	ToClient   int64  `json:"to_client"`
	End        string `json:"end"`
}

var endingLine = regexp.MustCompile(`session ended (\{.*\})`)

// endings reads the lines of ended sessions; the log must be verbose.
func endings(t testing.TB, p *smtptest.Process) []ending {
	t.Helper()
	lines := endingLine.FindAllStringSubmatch(p.Log(), -1)
	all := make([]ending, len(lines))
	for i, line := range lines {
		require.NoError(t, json.Unmarshal([]byte(line[1]), &all[i]))
	}
	return all
}
