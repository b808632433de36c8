package conf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// logTexts are logs as "path level line".
func logTexts(logs []ErrorLog) (texts []string) {
	for _, l := range logs {
		texts = append(texts, fmt.Sprint(l.Path, " ", l.Level, " ", l.Position.Line))
	}
	return texts
}

// A block that has any error_log does without those around it, wherever in the
// file they stand; main keeps its own.
//
// Fails if logs of two levels add up, if a server below takes those of the one
// above, or if main takes that of the stream block.
func TestNginxErrorLogs(t *testing.T) {
	t.Parallel()
	c := mustParseNginx(t, `error_log a;
stream {
	server { listen 1; return a; }
	server { listen 2; return a; error_log d debug_event debug_core; error_log d emerg;
	}
	server { listen 3; return a; }
	error_log b info;
	error_log syslog:server=h;
}
error_log c crit;
`)
	require.Equal(t, []string{"a error 1", "c crit 10"}, logTexts(c.ErrorLogs))
	inherited := []string{"b info 7", "syslog:server=h error 8"}
	require.Equal(t, inherited, logTexts(c.Servers[0].ErrorLogs))
	require.Equal(t, []string{"d debug 4", "d emerg 4"}, logTexts(c.Servers[1].ErrorLogs))
	require.Equal(t, inherited, logTexts(c.Servers[2].ErrorLogs))
	requireSame(t, c)

	c = mustParseNginx(t, "stream { error_log b info; server { listen 1; return a; } }")
	require.Equal(t, []string{"stderr error 0"}, logTexts(c.ErrorLogs))
	require.Equal(t, "nginx", c.ErrorLogFormat)
}

// The forms that error_log may have in TOML; the format is said once for all.
//
// Fails if the default stays beside what a file says, or if the format of one
// target is taken for that of another that names none.
func TestErrorLogs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                                    {"stderr notice 0"},
		"error_log = 'a'\n":                   {"a notice 1"},
		"error_log = ['a', { path = 'b' }]\n": {"a notice 1", "b notice 1"},
		"error_log = [{ level = 'info' },\n{ path = 'b', level = 'crit' }]\n":    {"stderr info 1", "b crit 2"},
		"[[error_log]]\npath = 'a'\n[[error_log]]\npath = 'b'\nlevel = 'warn'\n": {"a notice 1", "b warn 3"},
	} {
		c, err := Parse("t.toml", []byte(text+sound))
		require.NoError(t, err)
		require.Equal(t, want, logTexts(c.ErrorLogs), text)
		require.Equal(t, "smtplb", c.ErrorLogFormat)
		require.Nil(t, c.Servers[0].ErrorLogs)
		requireSame(t, c)
	}
	c, err := Parse("t.toml", []byte("error_log = ['a', { path = 'b', format = 'nginx' }, 'c']\n"+sound+
		"error_log = ['d', { path = 'e', level = 'info' }]\n"))
	require.NoError(t, err)
	require.Equal(t, "nginx", c.ErrorLogFormat)
	require.Equal(t, []string{"d notice 9", "e info 9"}, logTexts(c.Servers[0].ErrorLogs))
	requireSame(t, c)

	for text, want := range map[string]string{
		"error_log = [{ format = 'nginx' },\n{ format = 'smtplb' }]\n" + sound:       `t.toml:2:12: format: the process has one for all its logs, and it is "nginx" at t.toml:1:25`,
		sound + "error_log = { format = 'nginx' }\n":                                 `t.toml:8:15: "format" belongs to [[log_format]] or access_log or error_log, not to error_log of [[server]]`,
		sound + "error_log = []\n":                                                   `t.toml:8:13: error_log: want at least one target`,
		sound + "error_log = 'memory:1m'\n":                                          `t.toml:8:13: error_log: "memory:" is not supported by this version; name a file or a syslog server`,
		"error_log = [" + strings.Repeat("'a', ", maxErrorLogs) + "\n'b']\n" + sound: `t.toml:2:1: error_log: too many targets; a log has at most 64`,
	} {
		_, err := Parse("t.toml", []byte(text))
		require.EqualError(t, err, want)
	}
}
