package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReference compares docs/reference.md with the tables of directives: both
// have the same keys in the same order with the same defaults, and every
// example loads.
//
// Fails if a line of a table has no section, or another default than it says.
func TestReference(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/reference.md")
	require.NoError(t, err)
	sections := make(map[string]string)
	for _, s := range strings.Split(string(doc), "\n## ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		sections[title] = body
	}
	inUpstream := func(example string) string {
		return sound + "[[upstream]]\n" + complete(example, "name = 'other'", "servers = 'h:1'")
	}
	inServer := func(example string) string {
		return sound + "[[log_format]]\nname = 'mail'\nformat = '$status'\n[[limit_conn_zone]]\nname = 'client'\nkey = '$remote_addr'\n" +
			"[[server]]\n" + complete(example, "listen = 1", "proxy_pass|return|pass = 'sound'")
	}
	inTable := func(name string, needed ...string) func(string) string {
		return func(example string) string { return sound + "[[" + name + "]]\n" + complete(example, needed...) }
	}
	inMain := func(example string) string { return example + sound }
	checkSection(t, sections["Main file"], mainTable, inMain)
	checkSection(t, sections["Keys of error_log"], errorLogTable, inMain)
	checkSection(t, sections["Keys of log_format"], logFormatTable, inTable("log_format", "name = 'mail'", "format = ''"))
	checkSection(t, sections["Keys of map"], mapTable, inTable("map", "source = ''", "variable = 'a'"))
	checkSection(t, sections["Keys of geo"], geoTable, inTable("geo", "variable = 'a'"))
	checkSection(t, sections["Keys of split_clients"], splitTable, inTable("split_clients", "source = ''", "variable = 'a'", "parts = []"))
	checkSection(t, sections["Keys of limit_conn_zone"], limitZoneTable, inTable("limit_conn_zone", "name = 'client'", "key = ''"))
	checkSection(t, sections["upstream"], upstreamTable, inUpstream)
	checkSection(t, sections["Keys of check"], checkTable, inUpstream)
	checkSection(t, sections["Keys of agent"], agentTable, inUpstream)
	checkSection(t, sections["Keys of queue"], queueTable, inUpstream)
	checkSection(t, sections["Keys of method"], methodTable, inUpstream)
	checkSection(t, sections["Servers of an upstream"], upstreamServerTable, inUpstream)
	checkSection(t, sections["server"], serverTable, inServer)
	checkSection(t, sections["Keys of listen"], listenTable, inServer)
	checkSection(t, sections["Keys of access_log"], accessLogTable, inServer)
	checkSection(t, sections["Keys of limit_conn"], limitTable, inServer)
	checkSection(t, sections["Keys of smtp_replies"], smtpRepliesTable, inServer)

	bounds := fmt.Sprintf("at most %d MiB and %d lines in %d files, %d keys and values, %d servers and %d listening addresses, %d log formats and %d zones",
		maxBytes>>20, maxLines, maxFiles, maxNodes, maxServers, maxListens, maxLogFormats, maxZones)
	require.Contains(t, strings.ReplaceAll(sections["The file"], "\n", " "), bounds)
}

// TestNginxReference compares docs/nginx.md with the tables of directives: each is
// named, as what it is.
//
// Fails if a directive is in no section, or in that of another kind.
func TestNginxReference(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/nginx.md")
	require.NoError(t, err)
	for section, tables := range map[string][][]ngxDirective{
		"Obeyed":         {ngxProcess, ngxGroups, ngxSessions},
		"Our own":        {ngxOurs},
		"Without effect": {ngxIdle},
		"Refused":        {ngxRefused},
	} {
		_, text, ok := strings.Cut(string(doc), "\n## "+section+"\n")
		require.True(t, ok, section)
		text, _, _ = strings.Cut(text, "\n## ")
		for _, d := range slices.Concat(tables...) {
			require.Contains(t, text, "`"+d.name+"`", section)
		}
	}
}

// complete adds to an example what its table needs besides: lines, whose key may
// have others that do as well.
func complete(example string, needed ...string) string {
	for _, line := range needed {
		keys, value, _ := strings.Cut(line, " ")
		if !regexp.MustCompile(`(?m)^(` + keys + `) `).MatchString(example) {
			key, _, _ := strings.Cut(keys, "|")
			example += key + " " + value + "\n"
		}
	}
	return example
}

var sectionOf = regexp.MustCompile("(?s)^(\\w+)\n([^\n]+)\n(.*?)```toml\n(.*?)```\n$")

func checkSection[T any](t *testing.T, section string, table directives[T], inContext func(string) string) {
	t.Helper()
	var names []string
	for _, entry := range strings.Split(section, "\n### ")[1:] {
		m := sectionOf.FindStringSubmatch(strings.TrimRight(entry, "\n") + "\n")
		require.NotNil(t, m, "no name, kind or example: %s", entry)
		name, kind, example := m[1], m[2], m[4]
		names = append(names, name)
		for _, d := range table.rows {
			if d.name == name {
				require.True(t, strings.HasSuffix(kind, " · "+documented(d.value)), "%s: %s, want %s", name, kind, documented(d.value))
			}
		}
		require.Contains(t, example, name)
		_, err := Parse("example of "+name, []byte(inContext(example)))
		require.NoError(t, err)
	}
	require.Equal(t, table.names(), names)
}

// documented is how the reference writes a default.
func documented(value any) string {
	switch value.(type) {
	case absence:
		if value == required {
			return "required"
		}
		return "default none"
	case string:
		return fmt.Sprintf("default `%q`", value)
	}
	return fmt.Sprintf("default `%v`", value)
}

// The names of other tables' keys never hide one of nginx's that is refused.
func TestNotYetIsNotKnown(t *testing.T) {
	t.Parallel()
	for name := range homes() {
		require.False(t, isNotYet(name), name)
	}
	for name := range instead {
		require.True(t, isNotYet(name), name)
	}
}

func TestExamples(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../examples/*.toml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	paths = append(paths, "../examples/nginx.conf", "../examples/logging.conf")
	for _, path := range paths {
		c, err := Load(path)
		require.NoError(t, err)
		require.Empty(t, c.Warnings, path)
	}
}
