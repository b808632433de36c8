package bench

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// A proxy is one of those compared. It runs until the test ends.
type proxy struct {
	name string
	addr string // where it listens
	pids []int  // all its processes
	only string // the one unit, perSession or perGB, that it is measured by; "": both
}

// What startProxies returns first.
const (
	baseline = iota // nginx, that the others are compared with
	product         // smtplb as it is by default
)

// startProxies starts all proxies, with one worker each, in front of a server.
// All set TCP_NODELAY and none logs sessions, but for the two that are measured
// by that; else they have their defaults.
func startProxies(t testing.TB, server string) []proxy {
	t.Helper()
	proxies := []proxy{
		startNginx(t, server, false),
		startSmtplb(t, server, true, false),
		startSmtplb(t, server, false, false),
		startHAProxy(t, server, "splice-auto"),
		startHAProxy(t, server, "splice-request"),
		startCopyProxy(t, server),
		startNginx(t, server, true),
		startSmtplb(t, server, true, true),
	}
	// Keepalive costs some calls for each session and nothing for a byte;
	// splicing is for bulk. HAProxy begins it by itself only while a server
	// takes all at once, which smtp-sink does not: so it is told to as well.
	proxies[2].only = perSession
	proxies[4].only = perGB
	proxies[6].only = perSession
	proxies[7].only = perSession
	return proxies
}

// logged is a line of ten variables.
const logged = "$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time " +
	"$upstream_addr $upstream_connect_time $upstream_bytes_sent"

func startNginx(t testing.TB, server string, log bool) proxy {
	t.Helper()
	addr := peers.ReserveAddr(t)
	name, lines := "nginx "+version(t, "nginx", "-v"), ""
	if log {
		name += ", access_log"
		lines = fmt.Sprintf("log_format ten '%s';\naccess_log %s ten;", logged, filepath.Join(t.TempDir(), "log"))
	}
	d := peers.NginxStream(t, addr, fmt.Sprintf(`
error_log stderr error;
%s
server { listen %s; proxy_pass %s; }`, lines, addr, server))
	return proxy{name: name, addr: addr, pids: d.PIDs()}
}

func startHAProxy(t testing.TB, server, option string) proxy {
	t.Helper()
	addr := peers.ReserveAddr(t)
	// The first line still belongs to the section of defaults.
	d := peers.HAProxy(t, addr, fmt.Sprintf(`
    option %s
listen bench
    bind %s
    server sink %s`, option, addr, server))
	return proxy{name: "HAProxy " + version(t, "haproxy", "-v") + ", " + option, addr: addr, pids: d.PIDs()}
}

// version is the number in what a tool says of itself, without Debian's part.
func version(t testing.TB, tool, option string) string {
	t.Helper()
	text := peers.Run(t, tool, option)
	v := regexp.MustCompile(`\d+(\.\d+)+`).FindString(text)
	if v == "" {
		t.Fatalf("read the version of %s: none in %q", tool, text)
	}
	return v
}

// startSmtplb starts the program under test. By default it waits for the server's
// greeting, which nginx and HAProxy do not: without the gate all three do the
// same.
func startSmtplb(t testing.TB, server string, gate, log bool) proxy {
	t.Helper()
	addr := peers.ReserveAddr(t)
	format, lines := "", ""
	if log {
		format = fmt.Sprintf("[[log_format]]\nname = 'ten'\nformat = '%s'\n", logged)
		lines = fmt.Sprintf("access_log = { path = %q, format = 'ten' }\n", filepath.Join(t.TempDir(), "log"))
	}
	p := smtptest.Start(t, fmt.Sprintf(`
worker_processes = 1
error_log = { path = "stderr", level = "notice" } # sessions are logged at info

%s
[[upstream]]
name = "sink"
servers = [%q]

[[server]]
listen = %q
proxy_pass = "sink"
smtp = %t
%s`, format, server, addr, gate, lines))
	ready := regexp.MustCompile(`"gomaxprocs": (\d+)`).FindStringSubmatch(p.Log())
	if ready == nil {
		t.Fatalf("find GOMAXPROCS in the log of smtplb:\n%s", p.Log())
	}
	name := "smtplb, GOMAXPROCS " + ready[1]
	if !gate {
		name += ", smtp = false"
	}
	if log {
		name += ", access_log"
	}
	return proxy{name: name, addr: addr, pids: []int{p.Pid()}}
}

// send sends mail through the proxy and waits until all of it is accepted.
func (p proxy) send(t testing.TB, w workload, messages int) {
	t.Helper()
	out := peers.Run(t, "smtp-source", "-m", strconv.Itoa(messages), "-l", strconv.Itoa(w.size),
		"-s", strconv.Itoa(w.parallel), p.addr)
	if out != "" {
		t.Fatalf("send mail through %s: %s", p.name, out)
	}
}
