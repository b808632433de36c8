package conf

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeTree makes files below a new directory and returns it.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// requireLoads loads main.toml of dir and compares all that is wrong with want,
// where $ stands for dir.
func requireProblems(t *testing.T, dir, want string) {
	t.Helper()
	_, err := Load(filepath.Join(dir, "main.toml"))
	require.EqualError(t, err, strings.ReplaceAll(want, "$", dir))
}

func TestInclude(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{
		"main.toml":       "include = ['pools/*.toml', 'empty/*', 'servers.toml']\n",
		"pools/a.toml":    "[[upstream]]\nname = 'a'\nservers = ['h:1']\n",
		"pools/b.toml":    "include = '../more[1]/x*'\n[[upstream]]\nname = 'b'\nservers = ['h:2']\n",
		"pools/.#a.toml":  "left by an editor",
		"pools/README":    "not matched",
		"more1/x.toml":    "[[upstream]]\nname = 'c'\nservers = ['h:3']\n",
		"servers.toml":    "[[server]]\nlisten = 1\nproxy_pass = 'c'\n[[server]]\nlisten = 2\nproxy_pass = 'b'\n",
		"ignored/me.toml": "}",
	})
	c, err := Load(filepath.Join(dir, "main.toml"))
	require.NoError(t, err)
	var names, files []string
	for _, u := range c.Upstreams {
		names = append(names, u.Name)
	}
	for _, f := range c.Files {
		files = append(files, strings.TrimPrefix(f, dir))
	}
	require.Equal(t, []string{"a", "b", "c"}, names)
	require.Equal(t, []string{"/main.toml", "/pools/a.toml", "/pools/b.toml", "/servers.toml", "/more1/x.toml"}, files)
	require.Len(t, c.Servers, 2)
	require.Equal(t, Position{dir + "/servers.toml", 4, 1}, c.Servers[1].Position)
}

// A directory with characters of patterns in its name is no pattern.
func TestIncludeFromOddDirectory(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{
		"a[b]*/main.toml":   "include = 'x/*.toml'\n" + sound,
		"a[b]*/x/a.toml":    "[[upstream]]\nname = 'a'\nservers = ['h:1']\n",
		"a[b]other/x/c.xml": "",
	})
	c, err := Load(filepath.Join(dir, "a[b]*", "main.toml"))
	require.NoError(t, err)
	require.Len(t, c.Files, 2)
}

func TestIncludeProblems(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{
		"main.toml": `include = [
  "gone.toml", "dir", "[", 5, "",
  "b*.toml",
]
` + sound,
		"bad.toml":     "[[upstream]\n",
		"bad2.toml":    "pid = 'x'\n[[server]]\nlisten = 0\nproxy_pass = 'elsewhere'\n",
		"dir/sub.toml": "",
	})
	requireProblems(t, dir, `$/main.toml:2:3: include $/gone.toml: no such file; check the path
$/main.toml:2:16: include $/dir: is a directory; name the files in it, as in "conf.d/*.toml"
$/main.toml:2:23: include [: a bracket in the pattern is not closed
$/main.toml:2:28: include: want a string, got 5
$/main.toml:2:31: include: want a string, got ""
$/bad.toml:1:11: TOML syntax: expected end of table array name delimiter ']', but got '\n' instead
$/bad2.toml:1:1: "pid" belongs to the main file, above the first [[upstream]] or [[server]], not to an included file
$/bad2.toml:3:10: address: 0: bad port "0"; want a number from 1 to 65535`)
}

// Fails if the reader does not look at the files it came through.
func TestIncludeCycle(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{
		"main.toml": "include = 'a.toml'\n" + sound,
		"a.toml":    "include = 'b.toml'\n",
		"b.toml":    "\ninclude = 'link.toml'\n",
	})
	require.NoError(t, os.Symlink("a.toml", filepath.Join(dir, "link.toml")))
	requireProblems(t, dir, `$/b.toml:2:11: include $/link.toml: includes itself, directly or through another file`)
}

func TestIncludeDepth(t *testing.T) {
	t.Parallel()
	files := map[string]string{"main.toml": "include = '1.toml'\n" + sound}
	for i := 1; i < maxInclude; i++ {
		files[fmt.Sprint(i, ".toml")] = fmt.Sprintf("include = '%d.toml'\n", i+1)
	}
	files["8.toml"] = ""
	dir := writeTree(t, files)
	_, err := Load(filepath.Join(dir, "main.toml"))
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "8.toml"), []byte("include = '9.toml'"), 0o600))
	requireProblems(t, dir, `$/8.toml:1:11: include 9.toml: nested too deep; files may include each other 8 deep`)
}

// All files together have one bound.
func TestIncludeTotalSize(t *testing.T) {
	t.Parallel()
	comment := "#" + strings.Repeat("x", 9<<20) + "\n"
	dir := writeTree(t, map[string]string{
		"main.toml": "include = 'a.toml'\n" + sound + comment,
		"a.toml":    comment,
	})
	requireProblems(t, dir, `$/main.toml:1:11: include $/a.toml: too large: a configuration has at most 16 MiB in all its files`)
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	dir := writeTree(t, map[string]string{"text.toml": "a\xffb", "dir.toml/x": ""})
	load := func(name string) error {
		c, err := Load(filepath.Join(dir, name))
		require.Nil(t, c)
		return err
	}
	require.EqualError(t, load("gone.toml"), dir+"/gone.toml: no such file; check the path")
	require.EqualError(t, load("text.toml/x.toml"), dir+"/text.toml/x.toml: not a directory")
	require.EqualError(t, load("dir.toml"), dir+`/dir.toml: is a directory; name the files in it, as in "conf.d/*.toml"`)
	require.EqualError(t, load("text.toml"), dir+"/text.toml:1:2: not a text file; a configuration is UTF-8 text without zero bytes")

	// Fails, by hanging, if a pipe is opened to wait for its writer.
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe.toml"), 0o600))
	require.EqualError(t, load("pipe.toml"), dir+"/pipe.toml: is not a regular file; a configuration must be readable again at reload")

	require.ErrorContains(t, advise(&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}),
		fmt.Sprintf("permission denied; let user id %d read the file", os.Geteuid()))
}
