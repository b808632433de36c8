package nginx

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// said formats directives as a line each, with their places.
func said(directives []Directive) (lines []string) {
	for _, d := range directives {
		lines = append(lines, fmt.Sprintf("%d-%d %q", d.Line, d.End, append([]string{d.Name}, d.Args...)))
		lines = append(lines, said(d.Block)...)
	}
	return lines
}

// The words of a file, and what is wrong with it, as ngx_conf_read_token has
// them.
//
// Fails if any state of the lexer is left out.
func TestWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want, err string }{
		{"", "", ""},
		{"a;", `1-0 ["a"]`, ""},
		{"a b  c\t\r\nd\n;", `3-0 ["a" "b" "c" "d"]`, ""},
		{"a{b{}c;}", `1-1 ["a"] 1-1 ["b"] 1-0 ["c"]`, ""},
		{"a\n{\nb;\n}\n", `2-4 ["a"] 3-0 ["b"]`, ""},
		{"#a;\nb; #c;\nd#e f;", `2-0 ["b"] 3-0 ["d#e" "f"]`, ""},
		{`a "b c" 'd;e{}#';`, `1-0 ["a" "b c" "d;e{}#"]`, ""},
		{`a "" '';`, `1-0 ["a" "" ""]`, ""},
		{`a "b\"c" 'd\'e' f\"g;`, `1-0 ["a" "b\"c" "d'e" "f\"g"]`, ""},
		{`a \t\r\n\\ \x\; "\q";`, `1-0 ["a" "\t\r\n\\" "\\x\\;" "\\q"]`, ""},
		{`a b\ c;`, `1-0 ["a" "b\\ c"]`, ""},
		{`a ${b}c $d{e;}`, `1-1 ["a" "${b}c" "$d"] 1-0 ["e"]`, ""},
		{`a b$"c" d"e;`, `1-0 ["a" "b$\"c\"" "d\"e"]`, ""},
		{`a "b")c;`, `1-0 ["a" "b" ")c"]`, ""},
		{`a "b"{c;}`, `1-1 ["a" "b"] 1-0 ["c"]`, ""},
		{"a\\\nb;", `2-0 ["a\\\nb"]`, ""},
		{"a }b;", ``, `unexpected "}" in f:1`},
		{"a b}c;", `1-0 ["a" "b}c"]`, ``},
		{"a;\n}", `1-0 ["a"]`, `unexpected "}" in f:2`},
		{"a;;", `1-0 ["a"]`, `unexpected ";" in f:1`},
		{"a;{", `1-0 ["a"]`, `unexpected "{" in f:1`},
		{"a {\n b;\n", `1-0 ["a"] 2-0 ["b"]`, `unexpected end of file, expecting "}" in f:3`},
		{"a;\nb", `1-0 ["a"]`, `unexpected end of file, expecting ";" or "}" in f:2`},
		{"a 'b;\n", ``, `unexpected end of file, expecting ";" or "}" in f:2`},
		{"a 'b'c;", ``, `unexpected "c" in f:1`},
		{"include a b;", ``, `invalid number of arguments in "include" directive in f:1`},
		{"include a {}", ``, `directive "include" is not terminated by ";" in f:1`},
		{"include /none;", ``, `open() "/none" failed (2: No such file or directory) in f:1`},
		{"a " + strings.Repeat("b", maxWord-1) + ";", `1-0 ["a" "` + strings.Repeat("b", maxWord-1) + `"]`, ""},
		{"a;\n" + strings.Repeat("b", maxWord) + ";", `1-0 ["a"]`, `too long parameter "bbbbbbbbbb..." started in f:2`},
		{"a\n'" + strings.Repeat("b\n", maxWord) + "'", ``, `too long parameter, probably missing terminating "'" character in f:2`},
		{"\n#" + strings.Repeat("b", maxWord) + "\n", ``, `too long parameter "#bbbbbbbbb..." started in f:2`},
	} {
		tree, err := ParseText("f", c.text, Options{})
		require.Equal(t, c.want, strings.Join(said(tree.Directives), " "), "%.100q", c.text)
		if c.err == "" {
			require.Nil(t, err, "%.100q", c.text)
		} else {
			require.EqualError(t, err, c.err, "%.100q", c.text)
		}
	}
}

// Includes: relative to the directory of the main file, in the order of names,
// without hidden files, in the place of their directive, and each complete.
//
// Fails if an include is relative to the file it stands in, and if a block may
// be closed by another file.
func TestInclude(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("main", "a {\n include d/*;\n include d/none-*; include 'd/[b-';\n}\ninclude "+dir+"/d/1;z;")
	write("d/2", "\n c;")
	write("d/1", "b;")
	write("d/3.d/x", "never;")
	write("d/.4", "never;")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "d/3.d")))
	main := filepath.Join(dir, "main")
	tree, err := Parse(main, Options{})
	require.Nil(t, err)
	require.Equal(t, `1-4 ["a"] 1-0 ["b"] 2-0 ["c"] 1-0 ["b"] 5-0 ["z"]`, strings.Join(said(tree.Directives), " "))
	require.Equal(t, dir+"/d/2", tree.Directives[0].Block[1].File)
	require.Equal(t, []File{
		{main, "a {\n include d/*;\n include d/none-*; include 'd/[b-';\n}\ninclude " + dir + "/d/1;z;"},
		{dir + "/d/1", "b;"}, {dir + "/d/2", "\n c;"}, {dir + "/d/1", "b;"},
	}, tree.Files)

	write("main", "http { include none; a; } b { include "+dir+"/none; }")
	tree, err = Parse(main, Options{Opaque: []string{"http"}})
	require.EqualError(t, err, "open() \""+dir+"/none\" failed (2: No such file or directory) in "+main+":1")
	require.Equal(t, `1-1 ["http"] 1-0 ["b"]`, strings.Join(said(tree.Directives), " "))

	write("main", "a {\ninclude d/open;")
	write("d/open", "b;\n}")
	_, err = Parse(main, Options{})
	require.EqualError(t, err, `unexpected "}" in `+dir+`/d/open:2`)

	write("loop", "a;\ninclude d/loop;")
	write("d/loop", "\n\ninclude loop;")
	_, err = Parse(filepath.Join(dir, "loop"), Options{})
	require.EqualError(t, err, fmt.Sprintf(`"%s/loop" includes itself, directly or through another file in %[1]s/d/loop:3`, dir))

	for i := range maxInclude + 1 {
		write(fmt.Sprint(i), fmt.Sprintf("include %d;", i+1))
	}
	_, err = Parse(filepath.Join(dir, "0"), Options{})
	require.EqualError(t, err, fmt.Sprintf(`include "%s/9": files are nested too deep: more than 8 levels in %[1]s/8:1`, dir))
}

// What is no file with text.
//
// Fails, by hanging, if a pipe is opened to wait for its writer.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, big := filepath.Join(dir, "pipe"), filepath.Join(dir, "big")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.NoError(t, os.WriteFile(big, nil, 0o600))
	require.NoError(t, os.Truncate(big, 64<<20))
	for path, want := range map[string]string{
		dir:            fmt.Sprintf("pread() %q failed (21: Is a directory)", dir),
		dir + "/none":  fmt.Sprintf("open() %q failed (2: No such file or directory)", dir+"/none"),
		big + "/x":     fmt.Sprintf("open() %q failed (20: Not a directory)", big+"/x"),
		pipe:           fmt.Sprintf("%q is not a regular file; a configuration must be readable again at reload", pipe),
		big:            fmt.Sprintf("%q is too large: a configuration has at most 16 MiB in all its files", big),
		"/dev/null":    `"/dev/null" is not a regular file; a configuration must be readable again at reload`,
		"/proc/1/mem/": `open() "/proc/1/mem/" failed (20: Not a directory)`,
	} {
		_, err := Parse(path, Options{})
		require.EqualError(t, err, want)
	}
}

// Whatever a file holds, reading it ends within a second and is refused if it is
// too much. T25.
//
// Fails if any of the bounds in parser.go is lifted.
func TestBombs(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	for name, c := range map[string]struct{ text, want string }{
		"open braces":       {strings.Repeat("{", million), `unexpected "{" in f:1`},
		"nested blocks":     {strings.Repeat("a{", million), `blocks are nested too deep: more than 32 levels in f:1`},
		"nested and opaque": {strings.Repeat("http{", million), `blocks are nested too deep: more than 32 levels in f:1`},
		"closing braces":    {strings.Repeat("}", million), `unexpected "}" in f:1`},
		"directives":        {strings.Repeat("a;\n", 5*million), `too much for one configuration: more than 100000 words in f:100001`},
		"arguments":         {strings.Repeat("a ", 5*million), `too much for one configuration: more than 100000 words in f:1`},
		"a word":            {strings.Repeat("a", 5*million), `too long parameter "aaaaaaaaaa..." started in f:1`},
		"a quote":           {`"` + strings.Repeat(`\"`, 5*million), `too long parameter, probably missing terminating """ character in f:1`},
		"escapes":           {strings.Repeat(`a\n`, 5*million), `too long parameter "a\na\na\na..." started in f:1`},
		"empty lines":       {strings.Repeat("\n", 5*million), ``},
		"comments":          {strings.Repeat("#\n", 5*million), ``},
		"zeros":             {strings.Repeat("\x00", 5*million), `too long parameter "??????????..." started in f:1`},
		"17 MiB":            {strings.Repeat("#\n", 17<<19), `too large: a configuration has at most 16 MiB in all its files in f:1`},
	} {
		began := time.Now()
		_, err := ParseText("f", c.text, Options{Opaque: []string{"http"}})
		require.Less(t, time.Since(began), 10*time.Second, name) // a busy machine needs two
		if c.want == "" {
			require.Nil(t, err, name)
		} else {
			require.EqualError(t, err, c.want, name)
		}
	}
}

// bare is a tree without places.
func bare(directives []Directive) []Directive {
	var all []Directive
	for _, d := range directives {
		all = append(all, Directive{Name: d.Name, Args: d.Args, HasBlock: d.HasBlock, Block: bare(d.Block)})
	}
	return all
}

// FuzzParse: no text makes the parser panic, lose count of lines or read more
// than its bounds; and a tree that is written and read again is the same.
//
// Fails if Quote leaves out any of the bytes that part words.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a b{c 'd';}#e\n", `a "b\"\t\q" ${c}d "e")f;`, "a{}}", "include a;", "\\\n$ {", "'", "a\x00 \xff;", "http{a{}",
		`a ";" "{" "}" " " "\t" "\n" "\r" "#b" "(" ")" "$" "\\" "'" '"' "" "b;" "b{" "b}" "b#" "${";`,
	} {
		f.Add(seed)
	}
	files, err := filepath.Glob("../../integration/testdata/nginx/*/*.conf")
	require.NoError(f, err)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // it could name any file of this machine
		}
		tree, err := ParseText("f", text, Options{Opaque: []string{"http", "mail"}})
		if err != nil {
			require.NotEmpty(t, err.Message)
			require.LessOrEqual(t, err.Line, strings.Count(text, "\n")+1)
			return
		}
		again, err := ParseText("f", Format(tree.Directives), Options{})
		require.Nil(t, err)
		require.Equal(t, bare(tree.Directives), bare(again.Directives))
	})
}
