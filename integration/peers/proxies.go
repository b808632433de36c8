package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// SMTPSink starts an smtp-sink, which accepts mail and forgets it. The options
// are those of smtp-sink(1) before the address; it stops when the test ends.
func SMTPSink(t testing.TB, options ...string) *Daemon {
	t.Helper()
	addr := ReserveAddr(t)
	const backlog = "1024"
	// As root, smtp-sink demands a user to become.
	command := append([]string{Path(t, "smtp-sink"), "-u", "nobody"}, options...)
	return startDaemon(t, "smtp-sink", tempDir(t, "smtp-sink"), addr, append(command, addr, backlog))
}

// NginxStream starts an nginx with one worker and the given content of its
// stream block, which must listen on addr, and waits until it does and has its
// worker; get addr from ReserveAddr. It stops when the test ends.
func NginxStream(t testing.TB, addr, stream string) *Daemon {
	t.Helper()
	dir := tempDir(t, "nginx")
	conf := writeConf(t, dir, fmt.Sprintf(`
load_module %s;
daemon off;
worker_processes 1;
pid %s;
error_log stderr notice;
events { worker_connections 8192; }
stream {
%s
}
`, NginxStreamModule(t), filepath.Join(dir, "pid"), stream))
	d := startDaemon(t, "nginx", dir, addr, []string{Path(t, "nginx"), "-e", "stderr", "-p", dir, "-c", conf})
	const processes = 2
	d.await("without its worker", func() bool { return len(d.PIDs()) == processes })
	return d
}

// NginxStreamModule returns the path of what nginx must load to have a stream
// block.
func NginxStreamModule(t testing.TB) string {
	t.Helper()
	return fetched(t, "root/usr/lib/nginx/modules/ngx_stream_module.so")
}

// HAProxy starts a HAProxy with one thread and the given sections, of which one
// must bind addr, and waits until it does; get addr from ReserveAddr. The
// defaults are TCP mode and time-outs that no test reaches. It stops when the
// test ends.
func HAProxy(t testing.TB, addr, sections string) *Daemon {
	t.Helper()
	dir := tempDir(t, "haproxy")
	conf := writeConf(t, dir, fmt.Sprintf(`
global
    nbthread 1
    fd-hard-limit 20000
defaults
    mode tcp
    timeout connect 10s
    timeout client 10m
    timeout server 10m
%s
`, sections))
	return startDaemon(t, "haproxy", dir, addr, []string{Path(t, "haproxy"), "-db", "-f", conf})
}

func startDaemon(t testing.TB, name, dir, addr string, command []string) *Daemon {
	t.Helper()
	d := &Daemon{Addr: addr, t: t, name: name, command: command, logFile: filepath.Join(dir, "log")}
	t.Cleanup(func() {
		d.Kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, d.logEnd())
		}
	})
	d.start()
	return d
}

func writeConf(t testing.TB, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
