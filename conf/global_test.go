package conf

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Directives of the command line join those of the file, which may not repeat
// them; the texts of what nginx rejects, too, are nginx's.
//
// Fails if a directive of the command line gives way to the file's, or to the
// default.
func TestGlobal(t *testing.T) {
	t.Parallel()
	load := func(global, text string) (*Config, error) {
		return ParseWith("t.toml", []byte(text+sound), global)
	}
	c, err := load(`daemon on; master_process off; pid "/run/a b.pid";user smtplb mail; error_log /var/log/x warn; error_log y;
		worker_processes 3; worker_shutdown_timeout 5s; env TZ; env A=b;`, "stop_timeout = 1\nenv = 'C'\nerror_log = { path = 'z', format = 'nginx' }\n")
	require.NoError(t, err)
	require.True(t, c.Daemon)
	require.Equal(t, "/run/a b.pid", c.Pid)
	require.Equal(t, []string{"smtplb", "mail"}, []string{c.User, c.Group})
	said := Position{File: "command line"}
	require.Equal(t, []ErrorLog{{Position{"t.toml", 3, 13}, "z", "notice"}, {said, "/var/log/x", "warn"}, {said, "y", "notice"}}, c.ErrorLogs)
	require.Equal(t, "nginx", c.ErrorLogFormat)
	require.Equal(t, 3, c.WorkerProcesses)
	require.Equal(t, 5*time.Second, c.WorkerShutdownTimeout)
	require.ElementsMatch(t, []string{"TZ", "A=b", "C"}, c.Env)
	c, err = load("worker_processes auto;", "")
	require.NoError(t, err)
	require.Zero(t, c.WorkerProcesses)

	for _, test := range []struct{ global, want string }{
		{"daemon on", `unexpected end of parameter, expecting ";" in command line`},
		{"daemon on; pid", `unexpected end of parameter, expecting ";" in command line`},
		{"daemon maybe;", `invalid value "maybe" in "daemon" directive, it must be "on" or "off" in command line`},
		{"daemon on on;", `invalid number of arguments in "daemon" directive in command line`},
		{"daemon;", `invalid number of arguments in "daemon" directive in command line`},
		{"daemon on; daemon on;", `"daemon" directive is duplicate in command line`},
		{"bogus on;", `unknown directive "bogus" in command line`},
		{"events {}", `block directives are not supported in -g option in command line`},
		{"}", `unexpected "}" in command line`},
		{";", `unexpected ";" in command line`},
		{`pid "x;`, `unexpected end of parameter, expecting ";" in command line`},
		{"error_log x loud;", `level: want one of debug, info, notice, warn, error, crit, alert, emerg, got "loud" in command line`},
		{"pid x;", `t.toml:1:1: "pid" directive is duplicate: -g has it already`},
	} {
		_, err := load(test.global, "pid = 'y'\n")
		require.EqualError(t, err, test.want, test.global)
	}
}
