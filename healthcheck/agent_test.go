package healthcheck

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// unsaid is what an agent says that says nothing, apart from what set says.
func unsaid(set func(*AgentReport)) AgentReport {
	r := AgentReport{Percent: Unsaid, MaxConns: Unsaid}
	if set != nil {
		set(&r)
	}
	return r
}

// Every word of the grammar, and what is near to one.
//
// Fails if a case is missing in AgentReport.word, if the first of two words
// counts, or if a number may have a sign, a space or no end.
func TestParseAgent(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]func(*AgentReport){
		"ready":                 func(r *AgentReport) { r.Admin = AdminReady },
		"drain":                 func(r *AgentReport) { r.Admin = AdminDrain },
		"maint":                 func(r *AgentReport) { r.Admin = AdminMaint },
		"up":                    func(r *AgentReport) { r.Health = HealthUp },
		"down":                  func(r *AgentReport) { r.Health = HealthDown },
		"fail":                  func(r *AgentReport) { r.Health = HealthDown },
		"stopped":               func(r *AgentReport) { r.Health = HealthDown },
		"0%":                    func(r *AgentReport) { r.Percent = 0 },
		"75%":                   func(r *AgentReport) { r.Percent = 75 },
		"0075%":                 func(r *AgentReport) { r.Percent = 75 },
		"250%":                  func(r *AgentReport) { r.Percent = 250 },
		"maxconn:0":             func(r *AgentReport) { r.MaxConns = 0 },
		"maxconn:30":            func(r *AgentReport) { r.MaxConns = 30 },
		"maxconn:1073741824":    func(r *AgentReport) { r.MaxConns = 1 << 30 },
		"UP Ready MAXCONN:5":    func(r *AgentReport) { r.Health, r.Admin, r.MaxConns = HealthUp, AdminReady, 5 },
		" \t, up,\tready , 7% ": func(r *AgentReport) { r.Health, r.Admin, r.Percent = HealthUp, AdminReady, 7 },
		"75%,maxconn:30,maint,down": func(r *AgentReport) {
			r.Percent, r.MaxConns, r.Admin, r.Health = 75, 30, AdminMaint, HealthDown
		},
		"up down":               func(r *AgentReport) { r.Health = HealthDown },
		"down up 5% 6%":         func(r *AgentReport) { r.Health, r.Percent = HealthUp, 6 },
		"down # up, ready 5%":   func(r *AgentReport) { r.Health = HealthDown },
		"down #":                func(r *AgentReport) { r.Health = HealthDown },
		"down#up":               func(r *AgentReport) { r.Health = HealthDown },
		"up weight:5 7":         func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "weight:5" },
		"up -5%":                func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "-5%" },
		"up %":                  func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "%" },
		"up 1.5%":               func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "1.5%" },
		"up 5%%":                func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "5%%" },
		"up 5 %":                func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "5" },
		"up maxconn:":           func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "maxconn:" },
		"up maxconn:-1":         func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "maxconn:-1" },
		"up maxconn:1073741825": func(r *AgentReport) { r.Health, r.Unknown = HealthUp, "maxconn:1073741825" },
		"up 99999999999999999999999999%": func(r *AgentReport) {
			r.Health, r.Unknown = HealthUp, "99999999999999999999999999%"
		},
	} {
		got, err := ParseAgent([]byte(line))
		require.NoError(t, err, line)
		require.Equal(t, strings.ReplaceAll(line, "\t", `\x09`), got.Words)
		got.Words = ""
		require.Equal(t, unsaid(want), got, line)
	}
}

// Fails if a line of no word is a word.
func TestParseAgentGarbage(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", " \t,", "#", "# up", "upp", "u", "75", "maxconn", "HTTP/1.1 200 OK", "220 mx.example.com ESMTP", "\x16\x03\x01", "up\x00", "up\x00up",
	} {
		_, err := ParseAgent([]byte(line))
		require.Error(t, err, "%q", line)
	}
}

// Whatever an agent says, what is told of it is printable and bounded, numbers are
// in bounds, and a line that a known word is added to is understood.
func FuzzParseAgent(f *testing.F) {
	for _, line := range []string{"up 75%,maxconn:30\tready # fine", "drain", "\xff%", "maxconn:99999999999", "##"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseAgent(line)
		for _, text := range []string{r.Words, r.Unknown} {
			require.LessOrEqual(t, len(text), 128)
			require.False(t, strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }))
		}
		for _, n := range []int{r.Percent, r.MaxConns} {
			require.True(t, n >= Unsaid && n <= maxAgentNumber)
		}
		if err != nil {
			require.Equal(t, []any{AdminUnsaid, HealthUnsaid, Unsaid, Unsaid}, []any{r.Admin, r.Health, r.Percent, r.MaxConns})
		}
		again, err := ParseAgent(append([]byte("maint "), line...))
		require.NoError(t, err)
		if r.Admin == AdminUnsaid {
			r.Admin = AdminMaint
		}
		r.Words, again.Words = "", ""
		require.Equal(t, r, again)
	})
}

// ask lets one probe ask an agent that writes parts, a second apart, and then
// closes, or stays silent if it holds. heard is what the probe has sent.
func ask(t *testing.T, send string, holds bool, parts ...string) (o outcome, heard string, took time.Duration) {
	t.Helper()
	client, server := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer server.Close()
		if send != "" {
			buf := make([]byte, 1024)
			n, _ := server.Read(buf)
			heard = string(buf[:n])
		}
		for i, part := range parts {
			if i > 0 {
				time.Sleep(time.Second)
			}
			if _, err := io.WriteString(server, part); err != nil {
				return
			}
		}
		if holds {
			_, _ = io.Copy(io.Discard, server)
		}
	})
	began := time.Now()
	o = examine(t.Context(), func(context.Context, string, string) (net.Conn, error) { return client, nil },
		Settings{Agent: true, Send: send, Timeout: 5 * time.Second})
	took = time.Since(began)
	wg.Wait()
	return o, heard, took
}

// A line is taken as a whole, however it comes, once it has ended, and what is
// none is nothing: not even the first half of a word.
//
// Fails if a line is taken before its end, if the end of the connection is taken
// for it although time has run out, or if the probe waits for more than a line.
func TestAskAgent(t *testing.T) {
	for _, c := range []struct {
		name  string
		holds bool
		parts []string
		want  string // the words, or why there are none
		took  time.Duration
	}{
		{"a line", true, []string{"up 75%\n"}, "up 75%", 0},
		{"CRLF", true, []string{"up\r\n"}, "up", 0},
		{"CR", true, []string{"up\r"}, "up", 0},
		{"the end of the connection", false, []string{"up"}, "up", 0},
		{"drip by drip", true, []string{"max", "conn:3", "0", "\n"}, "maxconn:30", 3 * time.Second},
		{"drip by drip, and the end", false, []string{"d", "own"}, "down", time.Second},
		{"more lines", true, []string{"up\ndown\nmaint\n"}, "up", 0},
		{"more behind", true, []string{"up\n" + strings.Repeat("x", 400)}, "up", 0},
		{"the most", true, []string{"up #" + strings.Repeat("x", 507) + "\n"}, "up #" + strings.Repeat("x", 121) + "...", 0},
		{"too long", true, []string{"up #" + strings.Repeat("x", 508) + "\n"}, "agent: no end of the line in 512 bytes", 0},
		{"endless", false, []string{strings.Repeat("up ", 1000)}, "agent: no end of the line in 512 bytes", 0},
		{"silence", true, nil, "no line from the agent in 5s", 5 * time.Second},
		{"no end", true, []string{"down"}, "no line from the agent in 5s", 5 * time.Second},
		{"too slow", true, strings.Split("down # slow\n", ""), "no line from the agent in 5s", 5 * time.Second},
		{"nothing", false, nil, `agent: the server has closed the connection`, 0},
		{"an empty line", true, []string{"\r\nup\r\n"}, `agent: no word of an agent in ""`, 0},
		{"garbage", true, []string{"220 mx ESMTP\r\n"}, `agent: no word of an agent in "220 mx ESMTP"`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, _, took := ask(t, "", c.holds, c.parts...)
				require.Equal(t, c.want, o.why)
				require.Equal(t, !strings.HasPrefix(c.want, "agent: ") && !strings.HasPrefix(c.want, "no line"), o.good)
				require.Empty(t, o.fault)
				require.Equal(t, c.took, took)
				if !o.good {
					require.Zero(t, o.agent.Health)
				}
			})
		})
	}
}

// What is configured is sent first, as a line.
func TestAskAgentSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, heard, _ := ask(t, "state of mail", true, "ready\n")
		require.True(t, o.good)
		require.Equal(t, "state of mail\n", heard)
		require.Equal(t, AdminReady, o.agent.Admin)
	})
}

// breaking is a connection that is reset behind some bytes.
type breaking struct {
	net.Conn
	words string
}

func (c *breaking) Read(b []byte) (int, error) {
	n := copy(b, c.words)
	if c.words = ""; n == 0 {
		return 0, &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	}
	return n, nil
}

// Half a line is nothing if the connection breaks, unlike if the agent closes it.
//
// Fails if any error is taken for the end of the line.
func TestAskAgentReset(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	o := examine(t.Context(), func(context.Context, string, string) (net.Conn, error) {
		return &breaking{client, "maxconn:3"}, nil
	}, Settings{Agent: true, Timeout: 5 * time.Second})
	require.False(t, o.good)
	require.Equal(t, "agent: connection reset by peer", o.why)
}

// An agent need not close: it has said its line, and the probe does not wait.
//
// Fails if an agent is parted from as a mail server is.
func TestAskAgentThatStays(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	parted := make(chan struct{})
	defer close(parted)
	wg.Go(func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.WriteString(conn, "up\n")
			<-parted
		}
	})
	began := time.Now()
	o := examine(t.Context(), (&net.Dialer{}).DialContext, Settings{
		Network: "tcp", Address: l.Addr().String(), Agent: true, Timeout: 10 * time.Second,
	})
	require.True(t, o.good)
	require.Less(t, time.Since(began), farewell)
}

// A server's agent and its probes have reports of their own, and an agent that
// refuses is told at the level of other failing probes, and asked on.
//
// Fails if the agent's interval grows when it does not answer.
func TestAgentTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		c := start(zap.New(core), func(_ context.Context, _, address string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				if address == "s:9000" {
					_, _ = io.WriteString(server, "drain\n")
				}
			}()
			return client, nil
		})
		defer c.Stop()
		var probes, agent, dead reporter
		question := func(address string, r Reporter) Target {
			return Target{
				Settings: Settings{Network: "tcp", Address: address, Agent: true, Timeout: time.Second},
				Upstream: "up", Name: address, Interval: 2 * time.Second, Reporter: r,
			}
		}
		c.Update([]Target{aim("s:25", &probes), question("s:9000", &agent), question("dead:9000", &dead)})
		pass(20 * time.Second)
		require.True(t, probes.last().Good)
		require.Equal(t, AdminDrain, agent.last().Agent.Admin)
		require.False(t, dead.last().Good)
		for _, r := range []*reporter{&agent, &dead} {
			require.InDelta(t, 10, r.count(), 3)
		}
		require.Equal(t, dead.count(), logs.FilterMessage("probe failed").Len())
		require.Equal(t, logs.Len(), logs.FilterMessage("probe failed").Len())
	})
}
