package bench

import (
	"fmt"
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
// All set TCP_NODELAY and none logs sessions; else they have their defaults.
func startProxies(t testing.TB, server string) []proxy {
	t.Helper()
	proxies := []proxy{
		startNginx(t, server),
		startSmtplb(t, server, true),
		startSmtplb(t, server, false),
		startHAProxy(t, server, "splice-auto"),
		startHAProxy(t, server, "splice-request"),
		startCopyProxy(t, server),
	}
	// Keepalive costs some calls for each session and nothing for a byte;
	// splicing is for bulk. HAProxy begins it by itself only while a server
	// takes all at once, which smtp-sink does not: so it is told to as well.
	proxies[2].only = perSession
	proxies[4].only = perGB
	return proxies
}

func startNginx(t testing.TB, server string) proxy {
	t.Helper()
	addr := peers.ReserveAddr(t)
	d := peers.NginxStream(t, addr, fmt.Sprintf(`
error_log stderr error;
server { listen %s; proxy_pass %s; }`, addr, server))
	return proxy{name: "nginx " + version(t, "nginx", "-v"), addr: addr, pids: d.PIDs()}
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
func startSmtplb(t testing.TB, server string, gate bool) proxy {
	t.Helper()
	addr := peers.ReserveAddr(t)
	p := smtptest.Start(t, fmt.Sprintf(`
worker_processes = 1
error_log = { path = "stderr", level = "notice" } # sessions are logged at info

[[upstream]]
name = "sink"
servers = [%q]

[[server]]
listen = %q
proxy_pass = "sink"
smtp = %t
`, server, addr, gate))
	ready := regexp.MustCompile(`"gomaxprocs": (\d+)`).FindStringSubmatch(p.Log())
	if ready == nil {
		t.Fatalf("find GOMAXPROCS in the log of smtplb:\n%s", p.Log())
	}
	name := "smtplb, GOMAXPROCS " + ready[1]
	if !gate {
		name += ", smtp = false"
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
