package integration

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// T4 for nginx.conf, as TestBrokenConfigurations for TOML: what is wrong with a
// file is said with file and line, by -t and when HUP refuses it under load; no
// session fails, what runs stays as it was, and nothing that the file asks for
// is opened.
//
// Fails if a refused file takes effect in part, if a message lacks file or line
// or has others, if -t returns another code, or if -t binds: that shows where
// the port is taken or not allowed, which it then would say.
func TestBrokenNginxConf(t *testing.T) {
	t.Parallel()
	a, b := mx(t, "a"), mx(t, "b")
	dir := openDir(t)
	require.NoError(t, os.Chown(dir, int(nobody.Uid), int(nobody.Gid)))
	path := filepath.Join(dir, "nginx.conf")
	write := func(text string) {
		next := path + ".new"
		require.NoError(t, os.WriteFile(next, []byte(text), 0o644))
		require.NoError(t, os.Rename(next, path))
	}
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 1}
	_, port, err := net.SplitHostPort(client.Addr)
	require.NoError(t, err)
	six, fresh, taken := smtptest.FreePort(t), freeAddr(t), smtptest.NewServer(t, smtptest.Script{}).Addr()
	pid, otherPid, socket := filepath.Join(dir, "pid"), filepath.Join(dir, "other-pid"), filepath.Join(dir, "smtp")

	// What runs; and what could be run instead, if nothing were wrong with it.
	listener := func(listen string) string { return "server { listen " + listen + "; proxy_pass mail; }\n" }
	const head = "daemon off;\nerror_log stderr notice;\n"
	own, v6 := listener(client.Addr), listener(fmt.Sprintf("[::]:%d", six))
	good := head + "pid " + pid + ";\nstream {\nupstream mail { server " + a.Addr() + "; }\n" + own + v6 + "}\n"
	fill := func(main, stream string) string {
		return head + "pid " + otherPid + ";\n" + main + "stream {\nupstream mail { server " + b.Addr() + "; }\n" +
			listener(fresh) + listener("unix:"+socket) + stream + "}\n"
	}
	inMain := func(text string) string { return fill(text, own+v6) }
	inStream := func(text string) string { return fill("", own+v6+text) }
	inServer := func(line string) string {
		return inStream("server {\nlisten 127.0.0.1:2626;\nproxy_pass mail;\n" + line + "\n}\n")
	}
	inUpstream := func(lines string) string { return inStream("upstream x {\n" + lines + "\n}\n") }

	tests := []broken{
		{"unknown directive", inServer("§proxy_timout 1h;"), `unknown directive "proxy_timout"`, false},
		{"not ended", inStream("server {\nproxy_timeout 1h\n§}\n"), `unexpected "}"`, false},
		{"brace too many", inStream("§}}"), `unexpected "}"`, false},
		{"brace missing", strings.TrimSuffix(inStream(""), "}\n") + "§", `unexpected end of file, expecting "}"`, false},
		{"quote open", inServer(`smtp_hostname "mail;`) + "§", `unexpected end of file, expecting ";" or "}"`, false},
		{"glued quote", inServer(`§smtp_hostname "mail"x;`), `unexpected "x"`, false},
		{"binary", inServer("§\x7fELF\x01\x02;"), `unknown directive "\?ELF\?\?"`, false},
		{"not allowed here", inStream("§listen 2626;\n"), `"listen" directive is not allowed here`, false},
		{"duplicate", inServer("proxy_timeout 1h;\n§proxy_timeout 2h;"), `"proxy_timeout" directive is duplicate`, false},
		{"arguments", inServer("§proxy_timeout 1h 2h;"), `invalid number of arguments in "proxy_timeout" directive`, false},
		{"no block", inServer("§proxy_timeout {}"), `directive "proxy_timeout" is not terminated by ";"`, false},
		{"bad time", inServer("§proxy_timeout 1x;"), `"proxy_timeout" directive invalid value`, false},
		{"bad flag", inServer("§proxy_half_close yes;"), `invalid value "yes" in "proxy_half_close" directive`, false},
		{"bad number", inServer("§proxy_next_upstream_tries many;"), `invalid number`, false},
		{"bad address", inServer("§deny 192.0.2.300;"), `invalid parameter "192.0.2.300"`, false},
		{"bad weight", inUpstream("§server 192.0.2.1:25 weight=0;"), `invalid parameter "weight=0"`, false},
		{"bad parameter", inUpstream("§server 192.0.2.1:25 wieght=5;"), `invalid parameter "wieght=5"`, false},
		{"no port", inUpstream("§server 192.0.2.1;"), `no port in upstream "192.0.2.1"`, false},
		{"no host", inUpstream("§server no-such-host.invalid:25;"), `host not found in upstream "no-such-host.invalid:25"`, false},
		{"empty upstream", inStream("upstream x {\n§}\n"), `no servers are inside upstream`, false},
		{"same upstream", inStream("§upstream MAIL { server 192.0.2.1:25; }\n"), `duplicate upstream "MAIL"`, false},
		{"bad check", inUpstream("server 192.0.2.1:25;\n§check type=http;"), `check type "http" is not supported by this version`, false},
		{"bad check's number", inUpstream("server 192.0.2.1:25;\n§check interval=soon type=smtp;"), `invalid parameter "interval=soon"`, false},
		{"of a later version", inServer("§ssl_certificate x;"), `not supported by this version`, false},
		{"udp", inStream(listener("§127.0.0.1:2626 udp")), `"udp" in "listen" is not supported by this version`, false},
		{"listen twice", inStream("§" + listener(fresh)), `duplicate "` + fresh + `" address and port pair`, false},
		{"options of a shared socket", inStream(listener(port) + "§" + listener("127.0.0.2:"+port+" backlog=9")),
			`listen 127.0.0.2:` + port + `: backlog is not that of listen ` + port + ` at .*, whose socket it shares; say it there`, false},
		{"no listen", inStream("§server { proxy_pass mail; }\n"), `no "listen" is defined for server`, false},
		{"no handler", inStream("§server { listen 127.0.0.1:2626; }\n"), `no handler for server`, false},
		{"nothing listens", "stream {}\n", `no server in a "stream" block of ` + path + `: nothing would listen`, false},
		{"include missing", inMain("§include none.conf;\n"), `open\(\) "` + dir + `/none.conf" failed \(2: No such file or directory\)`, false},
		{"include a directory", inMain("§include " + dir + ";\n"), `\(21: Is a directory\)`, false},
		{"include unreadable", inMain("§include " + file("secret.conf", "", 0o600) + ";\n"), `\(13: Permission denied\)`, false},
		{"include itself", inMain("§include nginx.conf;\n"), `includes itself`, false},
		{"include broken", inMain("include " + file("bad.conf", "\nupstraem x;\n", 0o644) + ";\n"), `unknown directive "upstraem" in ` + dir + `/bad.conf:2`, false},
		{"log level", strings.Replace(inStream(""), "error_log stderr notice", "§error_log stderr loud", 1), `invalid log level "loud"`, false},
		{"log impossible", strings.Replace(inStream(""), "error_log stderr", "error_log "+dir+"/none/log", 1), `/none/log: no such file or directory: create the directory first`, false},
		{"pid impossible", strings.Replace(inStream(""), otherPid, dir+"/none/pid", 1), `pid file .*/none/pid: .*create the directory first.*`, false},

		{"ipv6only changed", fill("", own+"§"+listener(fmt.Sprintf("[::]:%d ipv6only=off", six))), "ipv6only cannot change while the socket is open", true},
		{"port taken", inStream("§" + listener(taken)), `another process .* holds it`, true},
		{"port not allowed", inStream("§" + listener("127.0.0.1:25")), `need root or CAP_NET_BIND_SERVICE`, true},
		{"address not here", inStream("§" + listener("192.0.2.1:2626")), `no interface of this host has the address`, true},
		{"path impossible", inStream("§" + listener("unix:"+dir+"/none/smtp")), `the directory does not exist`, true},
		{"path taken", inStream("§" + listener("unix:"+file("plain", "", 0o644))), `not a socket and is left alone`, true},
	}

	write(good)
	program := smtptest.Build(t)
	p := smtptest.Launch{Credential: nobody, Args: []string{"-c", path}}.Start(t, "# not read: the last -c counts\n")
	p.Ready()
	ours := []string{port, strconv.Itoa(six), fresh[strings.LastIndex(fresh, ":")+1:], "2626"}
	descriptors, listening := settledFDs(t, p), map[string]string{}
	smtptest.Eventually(t, patience, "two listeners", func() bool {
		listening = listeners(t, ours, dir)
		return len(listening) == 2
	})
	stop := run(t, client)
	for _, test := range tests {
		text, place := lineOf(path, test.text)
		write(text)
		want := test.want + ".*" + place
		n := p.Count("reload failed")
		p.Signal(syscall.SIGHUP)
		p.Await("reload failed, keeping the running configuration", n+1)
		line := regexp.MustCompile("reload failed.*").FindAllString(p.Log(), -1)[n]
		require.Regexp(t, want+`"}$`, strings.ReplaceAll(line, `\"`, `"`), test.name)

		check := exec.Command(program, "-t", "-c", path)
		check.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		tested := outcomeOf(t, check)
		if test.hidden {
			require.Zero(t, tested.code, "%s: %s", test.name, tested.stderr)
			require.Contains(t, tested.stderr, "configuration file "+path+" test is successful")
		} else {
			require.Equal(t, 1, tested.code, test.name)
			require.Regexp(t, `(?m)^smtplb: \[emerg\] .*`+want+"$", tested.stderr, test.name)
			require.Contains(t, tested.stderr, "configuration file "+path+" test failed")
		}
		requireRefused(t, fresh)
		require.FileExists(t, pid)
		require.NoFileExists(t, otherPid)
		require.NoFileExists(t, socket)
	}
	require.NoError(t, os.Remove(path))
	p.Signal(syscall.SIGHUP)
	p.Await(`reload failed.*open\(\) \\"`+path+`\\" failed \(2: No such file or directory\)`, 1)
	stop()
	requireAll(t, client, a)
	smtptest.Eventually(t, patience, "the listeners are those of before", func() bool {
		return maps.Equal(listening, listeners(t, ours, dir))
	})
	smtptest.Eventually(t, patience, "the descriptors are those of before", func() bool {
		return slices.Equal(descriptors, smtptest.FDs(t, p.Pid()))
	})

	// What was sound in all of them is so on its own.
	write(inStream(""))
	hangUp(t, p)
	require.Equal(t, "b", visits(t, client.Addr, 1))
	require.Equal(t, "b", visits(t, fresh, 1))
	require.NoFileExists(t, pid)
	require.FileExists(t, otherPid)
}

// lineOf takes the mark out of the text of a file, and returns a pattern for
// where it was, " in FILE:LINE", or nothing if there is none.
func lineOf(path, text string) (clean, place string) {
	until, rest, found := strings.Cut(text, "§")
	if !found {
		return text, ""
	}
	return until + rest, regexp.QuoteMeta(fmt.Sprintf(" in %s:%d", path, strings.Count(until, "\n")+1))
}

// listeners are the sockets of this machine that listen on one of the TCP ports
// or below a directory: where, and their inodes. One may be missed while others
// come and go, since the kernel writes its tables in parts.
func listeners(t *testing.T, ports []string, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, table := range []string{"tcp", "tcp6"} {
		for _, row := range rows(t, table) {
			const local, state, inode = 1, 3, 9
			_, hex, _ := strings.Cut(row[local], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err == nil && row[state] == "0A" && slices.Contains(ports, strconv.Itoa(int(port))) {
				found[row[local]] = row[inode]
			}
		}
	}
	for _, row := range rows(t, "unix") {
		const flags, inode, path = 3, 6, 7
		if len(row) > path && row[flags] == "00010000" && strings.HasPrefix(row[path], dir) {
			found[row[path]] = row[inode]
		}
	}
	return found
}

// rows are the fields of a table of the kernel's, without its heading. It is
// that of this thread's network: /proc/net has the main thread's, which a test
// with a network of its own may hold at the time.
func rows(t *testing.T, table string) [][]string {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/" + table)
	require.NoError(t, err)
	var all [][]string
	for line := range strings.Lines(string(text)) {
		all = append(all, strings.Fields(line))
	}
	return all[1:]
}
