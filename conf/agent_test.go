package conf

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is said of agents, in both syntaxes, is the same, and is written again.
//
// Fails if a value goes into the wrong field, or a default is another.
func TestAgent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		toml, nginx string
		want        Agent
	}{
		{"{ port = 9000 }", "port=9000", Agent{On: true, Port: 9000, Interval: 2 * time.Second, Timeout: time.Second}},
		{
			`{ port = 9, interval = "100ms", timeout = "10ms", send = 'a "b"\c' }`,
			`port=9 interval=100 timeout=10 'send=a "b"\\c'`,
			Agent{On: true, Port: 9, Interval: 100 * time.Millisecond, Timeout: 10 * time.Millisecond, Send: `a "b"\c`},
		},
	} {
		toml, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\nservers = 'h:25'\nmethod = 'least_load'\nagent = "+c.toml+"\n"+one("1", "")))
		require.NoError(t, err)
		require.Equal(t, Position{"t.toml", 5, 9}, toml.Upstreams[0].Agent.Position)
		ngx := mustParseNginx(t, inGroup("least_load; agent "+c.nginx+";"))
		for _, cfg := range []*Config{toml, ngx} {
			requireSame(t, cfg)
			u := cfg.Upstreams[0]
			require.Equal(t, "least_load", u.Method.Type)
			require.Equal(t, c.want, u.Agent)
		}
	}
}

// Fails if any of these passes, or is said elsewhere.
func TestAgentProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"servers = 'h:1'\nagent = {}\n", `t.toml:4:9: agent needs "port"`},
		{"servers = 'h:1'\nagent = true\n", `t.toml:4:9: agent: want a table, got true`},
		{"servers = 'h:1'\nagent = { port = 0, interval = '99ms', timeout = 0, send = \"a\\nb\", rise = 1 }\n",
			`t.toml:4:18: port: want a number from 1 to 65535, got 0
t.toml:4:32: interval: want at least 100ms, got "99ms"
t.toml:4:50: timeout: want at least 10ms, got 0
t.toml:4:60: send: want a string without control characters, got "a\nb"
t.toml:4:68: "rise" belongs to check, not to agent`},
		{"servers = ['h:1', 'unix:/run/a', 'unix:/run/b']\ncheck = false\nagent = { port = 1 }\n",
			`t.toml:5:9: agent: it is asked over TCP; unix:/run/a of upstream "a" has no address for that`},
		{"servers = 'h:1'\nmethod = 'least_load'\n",
			`t.toml:4:10: method: type "least_load" goes by what agents say; add agent to upstream "a", or use "least_conn"`},
	} {
		_, err := Parse("t.toml", []byte("[[upstream]]\nname = 'a'\n"+c.text+one("1", "")))
		require.EqualError(t, err, c.want)
	}
	for line, want := range map[string]string{
		"agent interval=100;":         `"agent" directive needs a port, as in "agent port=9000;" in n.conf:3`,
		"agent port=65536;":           `invalid parameter "port=65536" in n.conf:3`,
		"agent port=1 interval=99;":   `invalid parameter "interval=99" in n.conf:3`,
		"agent port=1 interval=1s;":   `invalid parameter "interval=1s" in n.conf:3`,
		"agent port=1 timeout=9;":     `invalid parameter "timeout=9" in n.conf:3`,
		"agent port=1 send=;":         `invalid parameter "send=" in n.conf:3`,
		"agent port=1 rise=2;":        `invalid parameter "rise=2" in n.conf:3`,
		"agent port=1; agent port=1;": `"agent" directive is duplicate in n.conf:3`,
		"least_load x; agent port=1;": `invalid number of arguments in "least_load" directive in n.conf:3`,
	} {
		_, err := parseNginx(inGroup(line))
		require.ErrorContains(t, err, want, line)
	}
}
