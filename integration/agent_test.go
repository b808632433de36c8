package integration

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// scriptedAgent is the agent of a server, which says what the test wants.
type scriptedAgent struct {
	listener net.Listener
	done     chan struct{}

	mu    sync.Mutex // protects below
	words string     // written as they are
	asked int        // since words were set
}

// silent has an agent take a question and say nothing.
const silent = "silent"

func startAgent(t testing.TB, addr string) *scriptedAgent {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	a := &scriptedAgent{listener: l, done: make(chan struct{}), words: "up ready 100%\n"}
	go a.serve()
	t.Cleanup(a.stop)
	return a
}

func (a *scriptedAgent) serve() {
	defer close(a.done)
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		words := a.words
		a.asked++
		a.mu.Unlock()
		if words == silent {
			_, _ = io.Copy(io.Discard, conn)
		} else {
			_, _ = io.WriteString(conn, words)
		}
		conn.Close()
	}
}

// stop has the agent refuse from now on.
func (a *scriptedAgent) stop() {
	a.listener.Close()
	<-a.done
}

// say changes the agent's words, and waits until they have been heard: until it
// is asked again after that.
func (a *scriptedAgent) say(t testing.TB, words string) {
	t.Helper()
	a.mu.Lock()
	a.words, a.asked = words, 0
	a.mu.Unlock()
	smtptest.Eventually(t, patience, fmt.Sprintf("the agent was asked, and said %q", words), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.asked >= 2
	})
}

// agentPool starts servers with agents, each at an address of its own, and
// returns them with the lines of a group of them, whose directives are those.
func agentPool(t testing.TB, names string, directives ...string) (servers []*ledger.Server, agents []*scriptedAgent, group func(more ...string) string) {
	t.Helper()
	port := smtptest.FreePort(t)
	var lines []string
	for i, name := range names {
		host := fmt.Sprintf("127.0.0.%d", i+1)
		if i == 0 {
			servers = append(servers, mx(t, string(name))) // which may be told to refuse
		} else {
			l, err := net.Listen("tcp", host+":0")
			require.NoError(t, err)
			servers = append(servers, ledger.Serve(t, l, smtptest.Script{Name: string(name)}))
		}
		agents = append(agents, startAgent(t, fmt.Sprintf("%s:%d", host, port)))
		lines = append(lines, server(servers[i].Addr(), "slow_start = 0"))
	}
	agent := fmt.Sprintf("agent = { port = %d, interval = '100ms', timeout = '2s' }", port)
	return servers, agents, func(more ...string) string {
		return checkedUpstream("mail", strings.Join(append(append([]string{agent}, directives...), more...), "\n"), lines...)
	}
}

// sharesOf counts who greets n sessions.
func sharesOf(t testing.TB, addr string, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, who := range visits(t, addr, n) {
		counts[string(who)]++
	}
	return counts
}

// Load follows what servers say of themselves: percentages are shares within 2 %,
// by all methods that know weights, and back to equal ones.
//
// Fails if weights of 1 cannot have less, if random does not hear of it, or if a
// percentage is one of the last.
func TestAgentShares(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"round_robin", "random"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			_, agents, group := agentPool(t, "abc", "check = false", "method = '"+method+"'")
			addr := freeAddr(t)
			smtptest.Start(t, workers(2)+group()+proxy(addr, "mail"))
			n, near := 700.0, 0.02*700
			if method == "random" {
				n, near = 2500, 0.05*2500 // five deviations
			}
			for _, step := range []struct {
				words string
				want  [3]float64
			}{
				{"50%", [3]float64{1. / 5, 2. / 5, 2. / 5}},
				{"25%", [3]float64{1. / 9, 4. / 9, 4. / 9}},
				{"300%", [3]float64{3. / 5, 1. / 5, 1. / 5}},
				{"0%", [3]float64{0, 1. / 2, 1. / 2}},
				{"100%", [3]float64{1. / 3, 1. / 3, 1. / 3}},
			} {
				agents[0].say(t, step.words+"\n")
				counts := sharesOf(t, addr, int(n))
				for i, who := range []string{"a", "b", "c"} {
					require.InDelta(t, step.want[i]*n, counts[who], near, "%s: %v", step.words, counts)
				}
			}
		})
	}
}

// By least_load servers have sessions at a time, not only in turn, as they say.
//
// Fails if the sessions that last are not counted against the words.
func TestAgentLeastLoad(t *testing.T) {
	t.Parallel()
	_, agents, group := agentPool(t, "abc", "check = false", "method = 'least_load'")
	client := &ledger.Client{Addr: freeAddr(t)}
	smtptest.Start(t, workers(2)+group()+proxy(client.Addr, "mail"))
	for i, words := range []string{"25%\n", "75%\n", "150%\n"} {
		agents[i].say(t, words)
	}
	counts := map[string]int{}
	for _, h := range hold(t, client, 100) {
		counts[nameIn(h.Greeting())]++
	}
	require.Equal(t, map[string]int{"a": 10, "b": 30, "c": 60}, counts)
	agents[0].say(t, "175%\n") // and has them all until it has 70 of 160
	for _, h := range hold(t, client, 60) {
		counts[nameIn(h.Greeting())]++
	}
	require.Equal(t, map[string]int{"a": 70, "b": 30, "c": 60}, counts)
}

// A server that says drain, maint, down, fail or stopped gets no session from
// then on, those that it has live on and send their mail, and what ends each is
// its own word. Each change is one line of the log, in the agent's words.
//
// Fails if a drained server is picked, if its sessions are ended, or if any good
// word ends any bad one.
func TestAgentTakesServerOut(t *testing.T) {
	t.Parallel()
	servers, agents, group := agentPool(t, "ab", "check = { interval = '200ms' }")
	client := &ledger.Client{Addr: freeAddr(t)}
	p := smtptest.Start(t, workers(2)+verbose+group()+proxy(client.Addr, "mail"))
	peer := servers[0].Addr()
	for i, step := range []struct{ out, still, back, state string }{
		{"drain", "up", "ready", "drain"},
		{"maint # new kernel", "up 50%", "ready", "maint"},
		{"0%", "ready up", "100%", "drain"},
		{"down", "ready", "up", "unhealthy"},
		{"fail", "ready", "UP", "unhealthy"},
		{"Stopped # disk full", "90%", "up", "unhealthy"},
	} {
		before := len(changes(t, p, peer))
		held := hold(t, client, 2)
		require.ElementsMatch(t, []string{"a", "b"}, []string{nameIn(held[0].Greeting()), nameIn(held[1].Greeting())}, step.out)
		agents[0].say(t, step.out+"\r\n")
		require.Equal(t, "bbbb", visits(t, client.Addr, 4), step.out)
		agents[0].say(t, step.still+"\n")
		require.Equal(t, "bbbb", visits(t, client.Addr, 4), "%s, then %s", step.out, step.still)
		for _, h := range held {
			require.NoError(t, h.Finish(), step.out)
		}
		agents[0].say(t, step.back+" 100%")
		names := visits(t, client.Addr, 4)
		require.Equal(t, 2, strings.Count(names, "a"), "%s, then %s: %s", step.out, step.back, names)
		smtptest.Eventually(t, patience, "the log has both changes", func() bool { return len(changes(t, p, peer)) >= before+2 })
		require.Equal(t, []change{
			{Peer: peer, From: "up", To: step.state, Why: "agent: " + step.out},
			{Peer: peer, From: step.state, To: "up", Why: "agent: " + step.back + " 100%"},
		}, changes(t, p, peer)[before:], "step %d", i)
	}
	requireAll(t, client, servers[0], servers[1])
}

// A server is up if its agent and its probes say so. An agent's up brings no dead
// server back, and good probes none that says down.
//
// Fails if one opinion outweighs the other.
func TestAgentBesideCheck(t *testing.T) {
	t.Parallel()
	servers, agents, group := agentPool(t, "ab", "check = { interval = '200ms', down_interval = '200ms', rise = 1, fall = 1 }")
	addr := freeAddr(t)
	p := smtptest.Start(t, verbose+group()+proxy(addr, "mail"))
	peer := servers[0].Addr()
	servers[0].Refuse()
	awaitState(t, p, peer, "unhealthy")
	agents[0].say(t, "up ready 100%")
	require.Equal(t, "bbbb", visits(t, addr, 4))
	agents[0].say(t, "down")
	require.NoError(t, servers[0].Resume())
	agents[0].say(t, "ready")
	require.Equal(t, "bbbb", visits(t, addr, 4))
	agents[0].say(t, "up")
	awaitState(t, p, peer, "up")
	require.Contains(t, visits(t, addr, 2), "a")
}

// An agent's number of sessions is a limit like max_conns.
//
// Fails if it is not obeyed, or not taken back.
func TestAgentLimitsSessions(t *testing.T) {
	t.Parallel()
	_, agents, group := agentPool(t, "ab", "check = false")
	client := &ledger.Client{Addr: freeAddr(t)}
	smtptest.Start(t, group()+proxy(client.Addr, "mail"))
	agents[0].say(t, "maxconn:1")
	agents[1].say(t, "maxconn:2")
	held := hold(t, client, 3)
	require.Equal(t, "-", visits(t, client.Addr, 1))
	agents[1].say(t, "maxconn:3")
	require.Equal(t, "b", visits(t, client.Addr, 1))
	agents[0].say(t, "maxconn:0")
	require.Contains(t, visits(t, client.Addr, 4), "a")
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
}

// The last word stands when an agent is silent, says what nobody understands, or
// is gone, and through reloads, until the configuration has no agents.
//
// Fails if a question without an answer, or a reload, changes anything.
func TestAgentLastWordStands(t *testing.T) {
	t.Parallel()
	_, agents, group := agentPool(t, "ab", "check = false")
	addr := freeAddr(t)
	config := func(more string) string { return verbose + group() + proxy(addr, "mail", more) }
	p := smtptest.Start(t, config(""))
	agents[0].say(t, "drain\n")
	agents[1].say(t, "75%\n")
	const lines = 2 // one for each
	p.Await(`server (state|load) `, lines)
	for _, words := range []string{silent, "", "HTTP/1.1 200 OK\r\n", "\r\nready\r\n", "ready" + strings.Repeat("#", 600), strings.Repeat("up ready ", 1000), "\x00\xff"} {
		agents[0].say(t, words)
		require.Equal(t, "bbbb", visits(t, addr, 4), "%.20q", words)
	}
	p.Await("probe failed ", 1)
	agents[0].stop()
	p.Await(`probe failed .*connect: connection refused`, 2)
	reload(t, p, config("smtp_greeting_timeout = '19s'"))
	require.Equal(t, "bbbb", visits(t, addr, 4))
	require.Equal(t, lines, p.Count(`server (state|load) `))
	require.Regexp(t, regexp.MustCompile(`\] server .*"state": "drain"`), p.Log())

	without := regexp.MustCompile(`agent = .*`).ReplaceAllString(config(""), "")
	reload(t, p, without)
	require.Equal(t, 2, strings.Count(visits(t, addr, 4), "a"))
}
