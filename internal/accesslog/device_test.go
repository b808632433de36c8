package accesslog

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/sink"
)

// unzip reads a whole file as zcat does, and fails as it does.
func unzip(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := gzip.NewReader(f)
	require.NoError(t, err)
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(p)
}

// The file is complete after each flush, also when it was appended to by
// another run, and at each level.
//
// Fails if the end of a member is not written with its lines.
func TestGzip(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.gz")
	want := ""
	for level := 1; level <= 9; level++ {
		s, _ := newSet(t)
		l := mustOpen(t, s, Target{Path: path, Gzip: level})
		for i := range 3 {
			line := fmt.Sprintf("%d/%d %s", level, i, strings.Repeat("abc", 1000))
			l.Write([]byte(line))
			want += line + "\n"
			require.True(t, l.current.Load().Sync(patience))
			require.Equal(t, want, unzip(t, path))
		}
		require.NoError(t, s.Close(patience))
	}
	require.Less(t, len(content(t, path)), len(want)/10)
}

// Fails if the lines of a gzipped log do not go out by themselves.
func TestGzipFlush(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	path := filepath.Join(t.TempDir(), "log.gz")
	mustOpen(t, s, Target{Path: path, Gzip: 1, Flush: time.Millisecond}).Write([]byte("line"))
	require.Eventually(t, func() bool { return content(t, path) != "" && unzip(t, path) == "line\n" }, patience, time.Millisecond)
}

// disk takes room bytes and then gives ENOSPC.
type disk struct {
	sink.Device
	bytes.Buffer
	room int
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A disk that fills up in a member and gets room again leaves a file that can be
// read to its end.
//
// Fails if the rest of a member is forgotten, or if one that was not begun is
// kept although its lines were told lost.
func TestGzipTorn(t *testing.T) {
	t.Parallel()
	d := &disk{room: 10}
	c := &compressor{Device: writeOnly{d}, zip: gzip.NewWriter(nil)}
	for _, test := range []struct {
		room int
		line string
		want int
	}{{10, "torn\n", 0}, {5, "lost\n", 0}, {0, "lost\n", 0}, {1000, "one\n", 4}, {0, "lost\n", 0}, {1000, "two\n", 4}} {
		d.room = test.room
		n, err := c.Write([]byte(test.line))
		require.Equal(t, test.want, n)
		require.Equal(t, test.want == 0, err != nil)
	}
	r, err := gzip.NewReader(&d.Buffer)
	require.NoError(t, err)
	p, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "torn\none\ntwo\n", string(p))
}

type writeOnly struct{ io.Writer }

func (writeOnly) Close() error                     { return nil }
func (writeOnly) SetWriteDeadline(time.Time) error { return nil }
func (writeOnly) Name() string                     { return "disk" }

func receive(t *testing.T, c net.PacketConn) string {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	p := make([]byte, 128<<10)
	n, _, err := c.ReadFrom(p)
	require.NoError(t, err)
	return string(p[:n])
}

// Each line is one datagram in nginx's format, up to the longest one.
//
// Fails if lines that were queued together are sent together, if the severity
// or the facility is not the path's, or if a line's end is sent.
func TestSyslogUDP(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	host, err := os.Hostname()
	require.NoError(t, err)
	to := "syslog:server=" + server.LocalAddr().String()
	for _, test := range []struct{ parameters, want string }{
		{"", "<190>STAMP HOST accesslog: "}, // local7, info
		{",facility=mail,severity=crit,tag=lb", "<18>STAMP HOST lb: "},
		{",nohostname,tag=lb", "<190>STAMP lb: "},
	} {
		want := regexp.QuoteMeta(test.want)
		want = strings.NewReplacer("STAMP", `[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d`, "HOST", regexp.QuoteMeta(strings.ToLower(host))).Replace(want)
		l := mustOpen(t, s, Target{Path: to + test.parameters})
		for i := range 20 {
			l.Write(fmt.Appendf(nil, "line %d", i))
		}
		for i := range 20 {
			require.Regexp(t, fmt.Sprintf("^%sline %d$", want, i), receive(t, server))
		}
		l.Write(bytes.Repeat([]byte("x"), 2*MaxLine))
		require.Regexp(t, "^"+want+"x+$", receive(t, server))
		require.Zero(t, l.Dropped())
	}
}

// A daemon that is not there loses lines; one that comes back gets the next.
//
// Fails if the old connection is kept.
func TestSyslogRestart(t *testing.T) {
	t.Parallel()
	s, reports := newSet(t)
	path := filepath.Join(t.TempDir(), "s")
	l := mustOpen(t, s, Target{Path: "syslog:server=unix:" + path + ",nohostname,tag=lb"})
	lost := uint64(0)
	for run := range 3 {
		l.Write([]byte("nobody hears this"))
		require.True(t, l.current.Load().Sync(patience))
		lost++
		require.Equal(t, lost, l.Dropped())

		server, err := net.ListenPacket("unixgram", path)
		require.NoError(t, err)
		l.Write(fmt.Appendf(nil, "run %d", run))
		require.Regexp(t, fmt.Sprintf(`^<190>.{15} lb: run %d$`, run), receive(t, server))
		require.NoError(t, server.Close())
		require.NoError(t, os.RemoveAll(path))
	}
	require.NoError(t, s.Close(patience))
	require.NotZero(t, reports.Len())
}

// Over UDP, too, where only the network's answer to the line before tells that
// nobody listened.
//
// Fails if that answer costs the line for which the daemon is back.
func TestSyslogRestartUDP(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	address := server.LocalAddr().String()
	l := mustOpen(t, s, Target{Path: "syslog:server=" + address})
	l.Write([]byte("first"))
	require.Contains(t, receive(t, server), ": first")
	require.NoError(t, server.Close())
	l.Write([]byte("nobody hears this"))
	require.True(t, l.current.Load().Sync(patience))
	server, err = net.ListenPacket("udp", address)
	require.NoError(t, err)
	defer server.Close()
	l.Write([]byte("back"))
	require.Contains(t, receive(t, server), ": back")
}

// A daemon that hears nothing blocks neither writers nor, for longer than it is
// given, the exit.
//
// Fails if a datagram under way does not end with the log.
func TestSyslogBlocked(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	path := filepath.Join(t.TempDir(), "s")
	server, err := net.ListenPacket("unixgram", path)
	require.NoError(t, err)
	defer server.Close()
	l := mustOpen(t, s, Target{Path: "syslog:server=unix:" + path})
	for i := 0; l.Dropped() == 0; i++ {
		require.Less(t, i, 1<<20)
		l.Write(make([]byte, 1000))
	}
	q := l.current.Load()
	_ = s.Close(100 * time.Millisecond)
	require.True(t, q.Wait(patience))
}

// Each line goes to its own path, in order, and few files are open at a time.
//
// Fails if a run of lines for one path takes one for another with it, if the
// files are not bounded, or if one that was closed is not appended to.
func TestVariablePath(t *testing.T) {
	t.Parallel()
	s, _ := newSet(t)
	dir := t.TempDir()
	l := mustOpen(t, s, Target{Path: dir + "/$server", Variable: true})
	const paths = 3*maxFiles + 1
	want := make(map[string]string)
	for i := range 5000 {
		path := fmt.Sprintf("%s/%d", dir, i*i/3%paths)
		line := fmt.Sprintf("line %d \x00 of %s", i, path)
		l.WriteTo([]byte(path), []byte(line))
		want[path] += line + "\n"
	}
	require.True(t, l.current.Load().Sync(patience))
	require.Equal(t, maxFiles, descriptors(t, dir))
	require.Greater(t, len(want), maxFiles)
	for path, text := range want {
		require.Equal(t, text, content(t, path))
	}

	path := dir + "/0"
	l.WriteTo([]byte(path), []byte("before"))
	require.True(t, l.current.Load().Sync(patience))
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, s.Reopen())
	require.Zero(t, descriptors(t, dir))
	l.WriteTo([]byte(path), []byte("after"))
	require.NoError(t, s.Close(patience))
	require.Equal(t, "after\n", content(t, path))
	require.Zero(t, l.Dropped())
}

// Fails if a file stays open for longer, so that a rotation without a signal
// never ends, or if the one in use the least is not the one to go.
func TestVariablePathFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFiles("v", func(uint64, error) { t.Error("lost") })
	write := func(name string) {
		_, err := f.Write([]byte(dir + "/" + name + "\x00line\n"))
		require.NoError(t, err)
	}
	for i := range maxFiles {
		write(fmt.Sprint(i))
	}
	write("0")
	write("another")
	require.Len(t, f.open, maxFiles)
	require.Contains(t, f.open, dir+"/0")
	require.NotContains(t, f.open, dir+"/1")

	require.NoError(t, os.Rename(dir+"/0", dir+"/old"))
	write("0")
	require.NoFileExists(t, dir+"/0")
	f.open[dir+"/0"].opened = time.Now().Add(-fileValid)
	write("0")
	require.Equal(t, "line\n", content(t, dir+"/0"))
	require.NoError(t, f.Close())
	require.Zero(t, descriptors(t, dir))
}

// A path that cannot be, or must not, loses its own lines and no others.
//
// Fails if checkPath lets one through, if a file that cannot be opened ends the
// batch, or if its lines are not counted.
func TestVariablePathRefused(t *testing.T) {
	t.Parallel()
	s, reports := newSet(t)
	dir := t.TempDir()
	l := mustOpen(t, s, Target{Path: dir + "/$server", Variable: true})
	bad := []string{"", "relative", dir + "/../x", dir + "/..", "/..", dir + "/", dir + "/a\x00b", dir + "/a\nb", dir + "/\x7f",
		"/" + strings.Repeat("x/", 3000) + "x", dir + "/no/such", dir, dir + "/" + strings.Repeat("x", 300)}
	for _, path := range bad {
		l.WriteTo([]byte(path), []byte("bad"))
		l.WriteTo([]byte(dir+"/good"), []byte("good"))
	}
	for _, path := range []string{"/...", "/..a/b", "/a..", "/a/.b", "/\xff"} {
		require.NoError(t, checkPath([]byte(path)), path)
	}
	require.NoError(t, s.Close(patience))
	require.EqualValues(t, len(bad), l.Dropped())
	require.Equal(t, strings.Repeat("good\n", len(bad)), content(t, dir+"/good"))
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NotZero(t, reports.Len())
}
