package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What is accepted; what is refused, and with which words, is compared with
// nginx itself in integration/cli_test.go.
//
// Fails if letters cannot be joined, or a value begin at its letter.
func TestParseCommand(t *testing.T) {
	t.Parallel()
	ours, theirs := personaOf("/usr/bin/smtplb"), personaOf("./nginx")
	require.Equal(t, "smtplb", ours.name)
	require.Equal(t, "nginx", theirs.name)
	moved := func(p persona, prefix string) persona { p.prefix = prefix; return p }
	for _, test := range []struct {
		argv []string
		want command
	}{
		{[]string{""}, command{persona: ours}},
		{[]string{"x/nginx"}, command{persona: theirs}},
		{[]string{"smtplb", "-"}, command{persona: ours}},
		{[]string{"smtplb", "-tqc", "a", "-gx;"}, command{persona: ours, test: true, quiet: true, file: "a", global: "x;"}},
		{[]string{"smtplb", "-Tca", "-e", "-t"}, command{persona: ours, test: true, dump: true, file: "a", errorLog: "-t"}},
		{[]string{"smtplb", "-ca", "-cb", "-estderr"}, command{persona: ours, file: "b"}},
		{[]string{"nginx", "-sreload", "-p/a"}, command{persona: moved(theirs, "/a/"), signal: "reload"}},
		{[]string{"nginx", "-p", ""}, command{persona: moved(theirs, "")}},
		{[]string{"smtplb", "-hvV?d"}, command{persona: ours, printHelp: true, printVersion: true, printBuild: true, printDefault: true}},
		{[]string{"smtplb", "--help", "--version"}, command{persona: ours, printHelp: true, printVersion: true}},
	} {
		got, err := parseCommand(test.argv)
		require.NoError(t, err, test.argv)
		require.Equal(t, test.want, got, test.argv)
	}
}
