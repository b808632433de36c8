package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// alike asserts that what is observed at nginx is what is wanted, and that at
// smtplb it is the same.
func alike(t *testing.T, sides []side, want string, observe func(side) string) {
	t.Helper()
	apart(t, sides, want, want, observe)
}

// apart is alike where smtplb is known to differ, and says how.
func apart(t *testing.T, sides []side, theirs, ours string, observe func(side) string) {
	t.Helper()
	for i, want := range [...]string{theirs, ours} {
		require.Equal(t, want, observe(sides[i]), sides[i].name)
	}
}

// serveRaw serves connections on a port of 127.0.0.1.
func serveRaw(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	return smtptest.Serve(t, ln, handle).Addr()
}

// open connects a client that says something, if it is not empty.
func open(t *testing.T, network, addr, first string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	require.NoError(t, err)
	return begin(t, c, first)
}

// openFrom is open with an address of its own.
func openFrom(t *testing.T, from, addr, first string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	require.NoError(t, err)
	return begin(t, c, first)
}

func begin(t *testing.T, c net.Conn, first string) net.Conn {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	if first != "" {
		_, err := io.WriteString(c, first)
		require.NoError(t, err)
	}
	return c
}

// toEnd reads what there is, and how it ends.
func toEnd(r io.Reader) string {
	text, err := io.ReadAll(r)
	switch {
	case err == nil:
		return string(text) + "EOF"
	case errors.Is(err, syscall.ECONNRESET):
		return string(text) + "reset"
	}
	return string(text) + err.Error()
}

// namesAt calls at the addresses, one after the other, and tells who greeted.
func namesAt(t *testing.T, addrs ...string) (names string) {
	t.Helper()
	for _, addr := range addrs {
		network := "tcp"
		if path, ok := strings.CutPrefix(addr, "unix:"); ok {
			network, addr = "unix", path
		}
		v, err := arrive(network, addr)
		require.NoError(t, err)
		require.NoError(t, v.quit())
		names += v.name
	}
	return names
}

// since tells whether at least a time has passed, and not much more.
func since(begun time.Time, least time.Duration) string {
	const (
		early = 50 * time.Millisecond // nginx counts from when it last looked at the clock
		late  = 8 * time.Second       // a busy machine, not another time
	)
	switch took := time.Since(begun); {
	case took < least-early:
		return "too early"
	case took > least+late:
		return "too late"
	}
	return "in time"
}

// What one end of a session does to the other, and who gets a server, is the
// same through smtplb as through nginx, but for what is said at a case.
//
// Each case fails without what it is named for; "backup-to-the-end" if a session
// looks at the primaries again; "access" if the last match decides, the lists
// of all servers hold beside a server's own, or the real address is not asked.
func TestSessionsAsNginx(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"client-ends-first":   testClientEndsFirst,
		"server-ends-first":   testServerEndsFirst,
		"client-speaks-first": testClientSpeaksFirst,
		"reset":               testReset,
		"proxy_timeout":       testProxyTimeout,
		"connect-timeout":     testConnectTimeout,
		"backup-to-the-end":   testBackupToTheEnd,
		"no-live-upstreams":   testNoLiveUpstreams,
		"listen":              testListen,
		"include":             testInclude,
		"proxy_protocol-out":  testProxyProtocolOut,
		"proxy_protocol-in":   testProxyProtocolIn,
		"proxy_bind":          testProxyBind,
		"access":              testAccess,
		"rates":               testRates,
		"values-of-bind":      testValuesOfBind,
		"values-of-pass":      testValuesOfPass,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// halfCloses is two servers, the first with proxy_half_close off.
func halfCloses(t *testing.T, pass string) (sides []side, ports [2]int) {
	t.Helper()
	ports = [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	return beside(t, ports[0], fmt.Sprintf(`
server { listen $host:%[1]d; proxy_pass %[3]s; }
server { listen $host:%[2]d; proxy_pass %[3]s; proxy_half_close on; }`, ports[0], ports[1], pass)), ports
}

func testClientEndsFirst(t *testing.T) {
	heard := make(chan string, 1)
	sides, ports := halfCloses(t, serveRaw(t, func(c net.Conn) {
		text := toEnd(c)
		heard <- text
		_, _ = io.WriteString(c, "221 bye\r\n")
	}))
	alike(t, sides, "QUIT\r\nEOF, EOF; QUIT\r\nEOF, 221 bye\r\nEOF", func(s side) string {
		var seen [2]string
		for i, port := range ports {
			c := open(t, "tcp", s.at(port), "QUIT\r\n")
			require.NoError(t, smtptest.CloseWrite(c))
			end := toEnd(c)
			seen[i] = <-heard + ", " + end
		}
		return strings.Join(seen[:], "; ")
	})
}

func testServerEndsFirst(t *testing.T) {
	heard := make(chan string, 1)
	sides, ports := halfCloses(t, serveRaw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "421 bye\r\n")
		_ = smtptest.CloseWrite(c)
		heard <- toEnd(c)
	}))
	alike(t, sides, "421 bye\r\nEOF, EOF; 421 bye\r\nEOF, QUIT\r\nEOF", func(s side) string {
		var seen [2]string
		for i, port := range ports {
			c := open(t, "tcp", s.at(port), "")
			end := toEnd(c)
			_, _ = io.WriteString(c, "QUIT\r\n") // may be too late
			_ = smtptest.CloseWrite(c)
			seen[i] = end + ", " + <-heard
		}
		return strings.Join(seen[:], "; ")
	})
}

func testClientSpeaksFirst(t *testing.T) {
	server := serveRaw(t, smtptest.Echo)
	port := smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf("server { listen $host:%d; proxy_pass %s; proxy_half_close on; }", port, server))
	alike(t, sides, "EHLO me\r\nEOF", func(s side) string {
		c := open(t, "tcp", s.at(port), "EHLO me\r\n")
		require.NoError(t, smtptest.CloseWrite(c))
		return toEnd(c)
	})
}

// Unlike nginx, smtplb does not make an orderly end of a reset: who has not got
// all of a message must not take it for whole.
func testReset(t *testing.T) {
	heard := make(chan string, 1)
	aborts := serveRaw(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = smtptest.Abort(c)
	})
	listens := serveRaw(t, func(c net.Conn) {
		_, _ = io.CopyN(c, c, 1)
		heard <- toEnd(c)
	})
	ports := [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	sides := beside(t, ports[0], fmt.Sprintf(`
server { listen $host:%d; proxy_pass %s; }
server { listen $host:%d; proxy_pass %s; }`, ports[0], aborts, ports[1], listens))
	apart(t, sides, "EOF, EOF", "reset, reset", func(s side) string {
		client := toEnd(open(t, "tcp", s.at(ports[0]), "x"))
		c := open(t, "tcp", s.at(ports[1]), "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, smtptest.Abort(c))
		return client + ", " + <-heard
	})
}

// The time begins anew with each byte, in whichever direction.
func testProxyTimeout(t *testing.T) {
	const pause, timeout = 400 * time.Millisecond, 2500 * time.Millisecond
	ended := make(chan string, 1)
	server := serveRaw(t, func(c net.Conn) {
		for range 6 {
			_, _ = io.WriteString(c, ".")
			time.Sleep(pause)
		}
		ended <- toEnd(c)
	})
	port := smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf("server { listen $host:%d; proxy_pass %s; proxy_timeout 2500ms; }", port, server))
	alike(t, sides, "......EOF in time, xEOF", func(s side) string {
		c := open(t, "tcp", s.at(port), "")
		heard := make([]byte, 6)
		_, err := io.ReadFull(c, heard)
		require.NoError(t, err)
		time.Sleep(pause)
		last := time.Now()
		_, err = io.WriteString(c, "x")
		require.NoError(t, err)
		return string(heard) + toEnd(c) + " " + since(last, timeout) + ", " + <-ended
	})
}

func testConnectTimeout(t *testing.T) {
	gone, goneToo, there := mx(t, "gone"), mx(t, "gone"), mx(t, "a")
	require.NoError(t, gone.Blackhole(true))
	require.NoError(t, goneToo.Blackhole(true))
	const timeout = 500 * time.Millisecond
	tests := []struct {
		servers, lines, want string
		times                int // that the session waits for a connection
	}{
		{"gone there", "", "a", 1},
		{"gone goneToo there", "", "a", 2},
		{"gone goneToo", "", "-", 2},
		{"gone", "", "-", 1},
		{"gone there", "proxy_next_upstream off;", "-", 1},
		{"gone goneToo there", "proxy_next_upstream_tries 2;", "-", 2},
		{"gone there", "proxy_next_upstream_timeout 300ms;", "-", 1},
	}
	addrs := strings.NewReplacer("goneToo", goneToo.Addr(), "gone", gone.Addr(), "there", there.Addr())
	var stream strings.Builder
	ports := make([]int, len(tests))
	for i, test := range tests {
		ports[i] = smtptest.FreePort(t)
		servers := strings.ReplaceAll(addrs.Replace(test.servers), " ", "; server ")
		fmt.Fprintf(&stream, "upstream u%[1]d { server %[2]s; }\nserver { listen $host:%[3]d; proxy_pass u%[1]d; proxy_connect_timeout 500ms; %[4]s }\n",
			i, servers, ports[i], test.lines)
	}
	sides := beside(t, ports[0], stream.String())
	for i, test := range tests {
		t.Run(test.servers+" "+test.lines, func(t *testing.T) {
			t.Parallel()
			alike(t, sides, test.want+" in time", func(s side) string {
				begun := time.Now()
				name := namesAt(t, s.at(ports[i]))
				return name + " " + since(begun, time.Duration(test.times)*timeout)
			})
		})
	}
}

// A session that has gone over to the backups stays with them, even if a
// primary has room again.
func testBackupToTheEnd(t *testing.T) {
	a, gone, b := mx(t, "a"), mx(t, "gone"), mx(t, "b")
	require.NoError(t, gone.Blackhole(true))
	port := smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf(`
upstream u { server %s max_conns=1; server %s backup; server %s backup; }
server { listen $host:%d; proxy_pass u; proxy_connect_timeout 2s; }`, a.Addr(), gone.Addr(), b.Addr(), port))
	alike(t, sides, "aba", func(s side) string {
		first, err := arrive("tcp", s.at(port))
		require.NoError(t, err)
		second := make(chan string, 1)
		go func() {
			v, err := arrive("tcp", s.at(port))
			if err == nil {
				err = v.quit()
			}
			if err != nil {
				second <- err.Error()
				return
			}
			second <- v.name
		}()
		smtptest.Eventually(t, patience, "the backup is tried", func() bool { return connecting(t, gone.Addr()) > 0 })
		require.NoError(t, first.quit())
		third := namesAt(t, s.at(port))
		return first.name + <-second + third
	})
}

func testNoLiveUpstreams(t *testing.T) {
	dead, port := smtptest.Refused(t), smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf(`
upstream u { server %s; server %s backup; }
server { listen $host:%d; proxy_pass u; }`, dead, dead, port))
	const said = "no live upstreams"
	alike(t, sides, "----- 4 times", func(s side) string {
		names := namesAt(t, s.at(port), s.at(port), s.at(port), s.at(port), s.at(port))
		smtptest.Eventually(t, patience, "4 lines in the log", func() bool { return strings.Count(s.log(), said) >= 4 })
		return fmt.Sprintf("%s %d times", names, strings.Count(s.log(), said))
	})
}

// Ports, a range of them and a unix socket share the servers of a group, of
// which one is on a unix socket, too.
func testListen(t *testing.T) {
	dir := openDir(t)
	smtptest.ServeSMTP(t, openSocket(t, filepath.Join(dir, "b")), smtptest.Script{Name: "b"})
	port := freeRange(t, 5)
	sides := beside(t, port, fmt.Sprintf(`
upstream u { server %s; server unix:%s/b weight=2; server %s; }
server { listen $host:%d-%d; listen unix:$dir/in; proxy_pass u; }
server { listen $host:%d; proxy_pass u; }`, mx(t, "a").Addr(), dir, mx(t, "c").Addr(), port, port+2, port+4))
	alike(t, sides, "bacbbacb refused", func(s side) string {
		names := namesAt(t, s.at(port), s.at(port+1), s.at(port+2), "unix:"+s.dir+"/in",
			s.at(port+4), s.at(port+2), s.at(port), "unix:"+s.dir+"/in")
		if _, err := net.Dial("tcp", s.at(port+3)); errors.Is(err, syscall.ECONNREFUSED) {
			names += " refused"
		}
		return names
	})
}

func testInclude(t *testing.T) {
	dir, port := openDir(t), smtptest.FreePort(t)
	for name, text := range map[string]string{
		"1-upstream.conf": fmt.Sprintf("upstream u { include %s/*.servers; }\n", dir),
		"a.servers":       fmt.Sprintf("server %s; # the first\n", mx(t, "a").Addr()),
		"b.servers":       fmt.Sprintf("server %s;\n", mx(t, "b").Addr()),
		"session.inc":     "proxy_pass u;",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	sides := beside(t, port, fmt.Sprintf(`
include %[1]s/*.conf;
server { listen $host:%[2]d; include %[1]s/session.inc; }
include %[1]s/none-*;`, dir, port))
	alike(t, sides, "abab", func(s side) string {
		return namesAt(t, s.at(port), s.at(port), s.at(port), s.at(port))
	})
}
