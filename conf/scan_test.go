package conf

import (
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/require"
)

var scanSeeds = []string{
	"",
	"a = 1\nb = 'x' # c\n",
	"[[upstream]]\nname = \"a\"\nservers = [\n { address = \"h:25\", weight = 5 }, # x\n \"h:26\",\n]\n",
	"[a.b]\nc = 1\n[a]\nd = 2\n[[a.e]]\nf = 1\n[[a.e]]\n[a.e.g]\nh = 1\n",
	"a.b.c = 1\na.b.\"d e\" = 2\n'f.g' = { h.i = 1, j = [[], [{}, {}]], }\n",
	"s = \"\"\"\n] # \\\" \"\" \"\"\"\"\"\nt = '''\n[x]\n'''''\nu = 1\n",
	"\"\\u0061\\t\" = 1\n\"\" = 2\n",
	"d = 1979-05-27 07:32:00\ne = 1e3\nf = inf\ng = -nan\nh = 0x1F\n",
	"s = \"a\\\\\"\nt = \"\\\"\"\r\nu = \"\"\n",
	"a = {\n b = 1, # x\n c = { d = 2 },\n}\n",
}

// FuzzScan compares the scanner with the TOML library: whatever the library
// accepts, the scanner finds the same structure in, unless a bound stops it,
// and every place it gives is where that key and that value stand.
//
// Fails if multiline forgets the two quotes that may end a string, or path the
// last element of an array of tables.
func FuzzScan(f *testing.F) {
	for _, seed := range scanSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if notText(text) >= 0 || len(text) > 1<<16 {
			return
		}
		nodes := maxNodes
		root, at, stuck := scan("f", text, &nodes)
		if stuck != nil {
			offsetOf(t, text, at)
		}
		var values map[string]any
		if _, err := toml.Decode(text, &values); err != nil {
			return
		}
		if stuck != nil {
			require.NotErrorIs(t, stuck, errNotTOML, "the library reads it")
			return
		}
		require.True(t, root.fill(values), "another structure than %v", values)
		requirePlaces(t, text, root, make(map[Position]bool))
	})
}

// requirePlaces checks the places of all that stands under n.
func requirePlaces(t *testing.T, text string, n *node, seen map[Position]bool) {
	t.Helper()
	for _, kid := range n.kids {
		if n.kind == table {
			key := text[offsetOf(t, text, kid.nameAt):]
			s := scanner{text: key, budget: new(int)}
			require.Equal(t, kid.name, s.key(), "at %s", kid.nameAt)
			require.False(t, seen[kid.nameAt], "two keys at %s", kid.nameAt)
			seen[kid.nameAt] = true
		}
		value := text[offsetOf(t, text, kid.at):]
		begin := "["
		switch kid.value.(type) {
		case string:
			begin = `"'`
		case int64:
			begin = "+-0123456789"
		case float64:
			begin = "+-0123456789in"
		case bool:
			begin = "tf"
		case time.Time:
			begin = "0123456789"
		}
		switch {
		case kid.kind == scalar || n.kind == array && kid.kind == array:
			require.Contains(t, begin, value[:1], "value of %q at %s", kid.name, kid.at)
			require.False(t, seen[kid.at], "two things at %s", kid.at)
			seen[kid.at] = true
		case n.kind == array:
			require.Contains(t, "[{", value[:1], "table in %q at %s", kid.name, kid.at)
		}
		requirePlaces(t, text, kid, seen)
	}
}

// offsetOf returns where in text a place is; the test fails if it is outside.
func offsetOf(t *testing.T, text string, at Position) int {
	t.Helper()
	lines := strings.SplitAfter(text, "\n")
	require.True(t, 1 <= at.Line && at.Line <= len(lines), "%s is outside the text", at)
	line := lines[at.Line-1]
	require.True(t, 1 <= at.Col && at.Col <= len(line)+1, "%s is outside its line %q", at, line)
	return len(strings.Join(lines[:at.Line-1], "")) + at.Col - 1
}
