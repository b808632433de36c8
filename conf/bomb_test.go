package conf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever a file holds, it is refused within a second of processor time and
// without more than 64 MiB allocated in all, garbage included. Part of T25.
//
// Fails if any of the bounds in scan.go and source.go is lifted.
func TestBombs(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const million = 1_000_000
	for _, c := range []struct{ name, text, want string }{
		{"open brackets", "a = " + strings.Repeat("[", million),
			"bomb.toml:1:13: nested too deep: more than 8 levels"},
		{"open braces", "a = " + strings.Repeat("{", million),
			"bomb.toml:1:6: TOML syntax: expected '.' or '=', but got '{' instead"},
		{"nested tables", "a = " + strings.Repeat("{a=", million),
			"bomb.toml:1:27: nested too deep: more than 8 levels"},
		{"dotted key", strings.Repeat("a.", million) + "a = 1",
			"bomb.toml:1:17: nested too deep: more than 8 levels"},
		{"dotted header", "[" + strings.Repeat("a.", million) + "a]",
			"bomb.toml:1:18: nested too deep: more than 8 levels"},
		{"a million servers", "[[upstream]]\nname='a'\nservers=[\n" + many(million, "'h:%d',") + "]",
			"bomb.toml:4:988851: too much for one configuration: more than 100000 keys and values"},
		{"upstreams without end", strings.Repeat("[[upstream]]\n", 400_000),
			"bomb.toml:50001:3: too much for one configuration: more than 100000 keys and values"},
		{"keys without end", many(400_000, "k%d=1\n"),
			"bomb.toml:100001:1: too much for one configuration: more than 100000 keys and values"},
		{"too many servers", sound + "[[upstream]]\nname='a'\nservers=[\n" + many(10_000, "'h:%d',\n") + "]",
			`bomb.toml:11:1: address: "h:0": bad port "0"; want a number from 1 to 65535
bomb.toml:10010:1: too many servers; a configuration has at most 10000`},
		{"too many ports", sound + "[[server]]\nproxy_pass='h:1'\nlisten=[\n" + many(20_000, "'127.0.0.%d:1-65535',\n") + "]",
			"bomb.toml:11:1: listen: too many addresses; a configuration has at most 10000"},
		{"too many lines", strings.Repeat("\n", million) + "x",
			"bomb.toml: too long: a configuration has at most 500000 lines in all its files"},
		{"long string", "a = '" + strings.Repeat("x", 5*million) + "'",
			"bomb.toml:1:5: too long: a value has at most 24578 bytes"},
		{"long word", "a = " + strings.Repeat("x", 5*million),
			"bomb.toml:1:5: too long: a value has at most 24578 bytes"},
		{"long key", strings.Repeat("x", 5*million) + " = 1",
			"bomb.toml:1:1: key is longer than 64 bytes"},
		{"binary", "\x7fELF\x02\x01\x01\x00" + strings.Repeat("\xff", million),
			"bomb.toml:1:8: not a text file; a configuration is UTF-8 text without zero bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bomb.toml")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			err := requireCheap(t, path)
			want := strings.ReplaceAll(c.want, "bomb.toml", path)
			require.EqualError(t, err, want)
		})
	}
	t.Run("64 MiB", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bomb.toml")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Truncate(path, 64<<20))
		require.EqualError(t, requireCheap(t, path),
			path+": too large: a configuration has at most 16 MiB in all its files")
	})
	t.Run("a thousand problems", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bomb.toml")
		require.NoError(t, os.WriteFile(path, []byte(many(20_000, "proxy_connect_timeout_%d=1\n")), 0o600))
		var problems Problems
		require.ErrorAs(t, requireCheap(t, path), &problems)
		require.Len(t, problems, maxProblems+1)
		require.EqualError(t, problems[maxProblems], path+":1000:1: too many problems; the rest is not shown")
	})
	t.Run("includes of includes", func(t *testing.T) {
		dir := t.TempDir()
		for i := range 8 {
			line := fmt.Sprintf("include = [%s]\n", strings.Repeat(fmt.Sprintf("'%d.toml',", i+1), 100))
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.toml", i)), []byte(line), 0o600))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "8.toml"), nil, 0o600))
		err := requireCheap(t, filepath.Join(dir, "0.toml"))
		require.ErrorContains(t, err, "too many files; a configuration has at most 1024")
	})
	t.Run("one include in each of many", func(t *testing.T) {
		dir := writeTree(t, map[string]string{
			"main.toml": "include = [" + strings.Repeat("'a.toml',", 1000) + "]\n",
			"a.toml":    "include = 'b.toml'\n",
			"b.toml":    "",
		})
		err := requireCheap(t, filepath.Join(dir, "main.toml"))
		require.ErrorContains(t, err, "too many files in one configuration: more than 1024")
	})
}

// The bounds leave room for the largest configuration they are meant to allow:
// 10,000 servers, each with every parameter.
func TestLargest(t *testing.T) {
	var b strings.Builder
	b.WriteString(sound + "[[upstream]]\nname = 'a'\nservers = [\n")
	for i := range maxServers - 1 {
		fmt.Fprintf(&b, "{ address = '10.0.%d.%d:25', weight = 2, max_conns = 3, max_fails = 4, "+
			"fail_timeout = '5s', backup = false, down = false },\n", i/256, i%256)
	}
	b.WriteString("]\n")
	c, err := Parse("t.toml", []byte(b.String()))
	require.NoError(t, err)
	require.Len(t, c.Upstreams[1].Servers, maxServers-1)
}

// requireCheap loads path, which must fail within the limits, and returns the
// error. It measures, so it cannot run beside other tests.
func requireCheap(t *testing.T, path string) error {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := processorTime(t)
	cfg, err := Load(path)
	took := processorTime(t) - start
	runtime.ReadMemStats(&after)
	require.Nil(t, cfg)
	require.True(t, errors.As(err, new(Problems)), "%v", err)
	require.LessOrEqual(t, took, time.Second)
	require.LessOrEqual(t, (after.TotalAlloc-before.TotalAlloc)>>20, uint64(64), "MiB allocated")
	return err
}

// processorTime is what this process has used, which tells more than a clock on
// a busy machine.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
