package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// broken is a configuration that cannot be put into force.
type broken struct {
	name string
	text string // a § marks where the problem is to be seen
	want string // what is said of it, a regular expression
	// The problem shows only when sockets and files are opened: -t finds none.
	hidden bool
}

// nobody is the user as whom a program may do next to nothing.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// Some thirty kinds of configuration that cannot be put into force, by HUP under
// load, T4: each is refused with all it holds, good parts too; the error says
// where it is and what to do; -t says the same, as far as it can without
// opening anything; and no session fails.
//
// Fails if what a refused configuration has opened stays open, if a part of it
// is put into force before the whole is known to be good, and if -t binds.
func TestBrokenConfigurations(t *testing.T) {
	t.Parallel()
	a, b := mx(t, "a"), mx(t, "b")
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chown(dir, int(nobody.Uid), int(nobody.Gid)))
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 2}
	_, port, err := net.SplitHostPort(client.Addr)
	require.NoError(t, err)
	six, fresh, taken := smtptest.FreePort(t), freeAddr(t), smtptest.NewServer(t, smtptest.Script{}).Addr()
	pid, otherPid := filepath.Join(dir, "pid"), filepath.Join(dir, "other-pid")

	// What runs; and what could be run instead, if nothing were wrong with it.
	own, v6 := proxy(client.Addr, "mail"), proxy(fmt.Sprintf("[::]:%d", six), "mail")
	good := fmt.Sprintf("pid = %q\n", pid) + upstream("mail", server(a.Addr())) + own + v6
	head, tail := fmt.Sprintf("pid = %q\n", otherPid), upstream("mail", server(b.Addr()))+proxy(fresh, "mail")
	before := func(text string) string { return head + text + tail + own + v6 }
	after := func(text string) string { return head + tail + own + v6 + text }
	inServer := func(line string) string {
		return after("[[server]]\nlisten = 2626\nproxy_pass = 'mail'\n" + line + "\n")
	}
	inUpstream := func(servers string) string {
		return after("[[upstream]]\nname = §'x'\nservers = [" + servers + "]\n")
	}
	ofServer := func(parameter string) string {
		return strings.Replace(inUpstream("{ address = '192.0.2.1:25', "+parameter+" }"), "name = §", "name = ", 1)
	}

	tests := []broken{
		{"syntax", after("[[server§\n"), "TOML syntax: ", false},
		{"unquoted time", inServer("proxy_timeout = 10§s"), "TOML syntax: .*need quotes", false},
		{"not text", after("\n§\x00\x01\x02"), "not a text file", false},
		{"unknown key", inServer("§proxy_timout = '1h'"), `did you mean "proxy_timeout"\?`, false},
		{"key of a later version", inServer("§proxy_ssl = true"), "not supported by this version", false},
		{"key elsewhere", inServer("§weight = 3"), "a server of \\[\\[upstream\\]\\]", false},
		{"key missing", after("§[[server]]\nlisten = 2626\n"), "proxy_pass", false},
		{"wrong type", ofServer("weight = §'many'"), "want a number", false},
		{"out of range", ofServer("weight = §0"), "want a number from 1", false},
		{"bad time", ofServer("fail_timeout = §'100ms'"), "fail_timeout", false},
		{"no such upstream", after("[[server]]\nlisten = 2626\nproxy_pass = §'mial'\n"), `did you mean "mail"\?`, false},
		{"upstream twice", after("[[upstream]]\nname = §'MAIL'\nservers = ['192.0.2.1:25']\n"), "is defined already at ", false},
		{"upstream empty", inUpstream(""), "has no servers", false},
		{"only backups", inUpstream("{ address = '192.0.2.1:25', backup = true }"), "only backup servers", false},
		{"no server", head + upstream("mail", server(b.Addr())), "nothing would listen", false},
		{"listen twice", after(marked(proxy(fresh, "mail"))), "taken already by listen", false},
		{"options of a shared socket", after(proxy("0.0.0.0:"+port, "mail") + marked(proxy("{ address = '127.0.0.2:"+port+"', backlog = 9 }", "mail"))),
			"listen 127.0.0.2:" + port + ": backlog is not that of listen 0.0.0.0:" + port + " at .*, whose socket it shares; say it there", false},
		{"include missing", before("include = §'none.toml'\n"), "no such file; check the path", false},
		{"include a directory", before("include = §'" + dir + "'\n"), "is a directory; name the files in it", false},
		{"include unreadable", before("include = §'" + file("secret.toml", "", 0o600) + "'\n"), "permission denied; let user id 65534 read", false},
		{"include broken", before("include = '" + file("bad.toml", "\n upstraem = 1", 0o644) + "'\n"), dir + `/bad.toml:2:2: .*did you mean "upstream"\?`, false},
		{"include itself", before("include = §'smtplb.toml'\n"), "includes itself", false},
		{"ipv6only changed", head + tail + own + marked(proxy(fmt.Sprintf("{ address = '[::]:%d', ipv6only = false }", six), "mail")),
			"ipv6only cannot change while the socket is open", true},
		{"port taken", after(marked(proxy(taken, "mail"))), "another process .* holds it; find it with \"ss -ltnp", true},
		{"port not allowed", after(marked(proxy("127.0.0.1:25", "mail"))), "need root or CAP_NET_BIND_SERVICE", true},
		{"address not here", after(marked(proxy("192.0.2.1:2626", "mail"))), "no interface of this host has the address", true},
		{"path impossible", after(marked(proxy("unix:"+dir+"/none/smtp", "mail"))), "the directory does not exist; create it first", true},
		{"path taken", after(marked(proxy("unix:"+file("plain", "", 0o644), "mail"))), "not a socket and is left alone", true},
		{"log impossible", before("error_log = '" + dir + "/none/log'\n"), "open error log: .*create the directory first", false},
		{"pid impossible", strings.Replace(after(""), otherPid, dir+"/none/pid", 1), "pid file .*/none/pid", false},
	}

	p := smtptest.Launch{Credential: nobody}.Start(t, good)
	p.Ready()
	descriptors := settledFDs(t, p)
	stop := run(t, client)
	for _, test := range tests {
		text, at := position(test.text)
		n := p.Count("reload failed")
		p.Configure(text)
		p.Signal(syscall.SIGHUP)
		p.Await("reload failed, keeping the running configuration", n+1)
		line := regexp.MustCompile("reload failed.*").FindAllString(p.Log(), -1)[n]
		require.Regexp(t, at(p)+test.want, strings.ReplaceAll(line, `\"`, `"`), test.name)

		check := smtptest.Launch{Credential: nobody, Args: []string{"-t"}}.Start(t, text)
		if test.hidden {
			require.Zero(t, check.Exit(patience), "%s: %s", test.name, check.Log())
			require.Contains(t, check.Log(), "configuration file "+check.ConfigPath()+" test is successful")
		} else {
			require.Equal(t, 1, check.Exit(patience), test.name)
			require.Regexp(t, at(check)+test.want, check.Log(), test.name)
		}
		requireRefused(t, fresh)
		require.FileExists(t, pid)
		require.NoFileExists(t, otherPid)
	}
	require.NoError(t, os.Remove(p.ConfigPath()))
	p.Signal(syscall.SIGHUP)
	p.Await("reload failed.*"+p.ConfigPath()+": no such file; check the path", 1)
	stop()
	requireAll(t, client, a)
	smtptest.Eventually(t, patience, "the descriptors are those of before", func() bool {
		return fmt.Sprint(descriptors) == fmt.Sprint(smtptest.FDs(t, p.Pid()))
	})

	// What was sound in all of them is so on its own.
	reload(t, p, after(""))
	require.Equal(t, "b", visits(t, client.Addr, 1))
	require.Equal(t, "b", visits(t, fresh, 1))
	require.NoFileExists(t, pid)
	require.FileExists(t, otherPid)
}

// marked marks the address of the listener that proxy writes.
func marked(proxy string) string {
	const key = "listen = "
	if strings.Contains(proxy, key+"{") {
		return strings.Replace(proxy, key+"{", key+"§{", 1)
	}
	return strings.Replace(proxy, key, key+"§", 1)
}

// position takes the mark out of a text, and returns a pattern for the place
// where it was, in the configuration file of a process.
func position(text string) (string, func(*smtptest.Process) string) {
	until, rest, found := strings.Cut(text, "§")
	if !found {
		return text, func(*smtptest.Process) string { return "" }
	}
	line, col := strings.Count(until, "\n")+1, len(until)-strings.LastIndex(until, "\n")
	return until + rest, func(p *smtptest.Process) string {
		return regexp.QuoteMeta(fmt.Sprintf("%s:%d:%d: ", p.ConfigPath(), line, col)) + ".*"
	}
}
