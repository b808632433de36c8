package integration

import (
	"encoding/json"
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
)

// smallDisk is a file system of a process's own, which the test can fill.
type smallDisk struct {
	t   *testing.T
	dir string // where the process has it
	p   *smtptest.Process
}

// launch runs the program with the disk, in a mount namespace of its own.
func (d *smallDisk) launch(config string) {
	d.t.Helper()
	d.dir = filepath.Join(shortDir(d.t), "disk")
	require.NoError(d.t, os.Mkdir(d.dir, 0o755))
	script := filepath.Join(filepath.Dir(d.dir), "run")
	require.NoError(d.t, os.WriteFile(script, fmt.Appendf(nil,
		"#!/bin/sh\nexec unshare --mount /bin/sh -c 'mount -t tmpfs -o size=64k none %s && exec %s \"$@\"' smtplb \"$@\"\n",
		d.dir, smtptest.Build(d.t)), 0o755))
	d.p = smtptest.Launch{Binary: script}.Start(d.t, strings.ReplaceAll(config, "DISK", d.dir))
}

// at is the path of a file as the test has it.
func (d *smallDisk) at(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", d.p.Pid()), d.dir, name)
}

// read returns the whole lines of a file; none if there is no file.
func (d *smallDisk) read(name string) []string {
	text, _ := os.ReadFile(d.at(name))
	lines := strings.Split(string(text), "\n")
	return lines[:len(lines)-1]
}

// fill leaves no room; free gives it back.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.Create(d.at("fill"))
	require.NoError(d.t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	require.ErrorIs(d.t, err, syscall.ENOSPC)
}

func (d *smallDisk) free() {
	d.t.Helper()
	require.NoError(d.t, os.Remove(d.at("fill")))
}

var lossLine = regexp.MustCompile(`access log lines lost (\{.*\})`)

// losses are the lines told lost of a log, and the reasons.
func losses(t *testing.T, p *smtptest.Process, path string) (lines int, reasons string) {
	t.Helper()
	for _, m := range lossLine.FindAllStringSubmatch(p.Log(), -1) {
		var loss struct {
			Path   string
			Lines  int
			Reason string
		}
		require.NoError(t, json.Unmarshal([]byte(m[1]), &loss))
		if loss.Path == path {
			lines, reasons = lines+loss.Lines, reasons+loss.Reason+"\n"
		}
	}
	return lines, reasons
}

// Access logs on a full disk, at a syslog daemon that has hung and at one that is
// not there: sessions go on, every line is in its log or told lost with the reason,
// and when there is room, or somebody at the socket, new ones come through.
//
// Fails if a write of the log is made by a session's loop (the visits hang), if a
// write that failed is counted wrong, or if a log does not try again.
func TestAccessLogsThatTakeNothing(t *testing.T) {
	t.Parallel()
	const visitors = 120
	pad := strings.Repeat("x", 200) // so that they need more than the page that the file has
	a := mx(t, "a")
	addr := freeAddr(t)
	dir := shortDir(t)
	hung, dead := filepath.Join(dir, "hung"), filepath.Join(dir, "dead")
	reader, err := net.ListenPacket("unixgram", hung)
	require.NoError(t, err)
	defer reader.Close()
	daemon := func(path string) string { return "syslog:server=unix:" + path + ",nohostname,tag=x" }

	d := &smallDisk{t: t}
	d.launch(workers(2) + "[[log_format]]\nname = 'short'\nformat = 'begin " + pad + " $connection end'\n" +
		"[[log_format]]\nname = 'long'\nformat = ['$connection'" + strings.Repeat(", '"+strings.Repeat("x", 4000)+"'", 15) + "]\n" +
		proxy(addr, a.Addr(), fmt.Sprintf("access_log = [ { path = 'DISK/log', format = 'short' }, "+
			"{ path = '%s', format = 'long' }, { path = '%s', format = 'short' } ]", daemon(hung), daemon(dead))))
	d.p.Ready()
	visits(t, addr, 3)
	smtptest.Eventually(t, patience, "lines on the disk", func() bool { return len(d.read("log")) == 3 })
	d.fill()
	visits(t, addr, visitors)
	for path, reason := range map[string]string{
		d.dir + "/log": "no space left on device",
		daemon(hung):   "too many lines are waiting to be written",
		daemon(dead):   "no such file or directory",
	} {
		smtptest.Eventually(t, patience, path+" tells its losses", func() bool {
			_, reasons := losses(t, d.p, path)
			return strings.Contains(reasons, reason)
		})
	}

	d.free()
	back := syslogRecords(t, dead)("x")
	heard := make(chan int)
	go func() {
		buf, n := make([]byte, 128<<10), 0
		for {
			if _, _, err := reader.ReadFrom(buf); err != nil {
				heard <- n
				return
			}
			n++
		}
	}()
	last := fmt.Sprintf("begin %s %d end", pad, 3+visitors+1)
	visits(t, addr, 1)
	smtptest.Eventually(t, patience, "the last line is on the disk and at the daemon", func() bool {
		on := d.read("log")
		return len(on) > 0 && on[len(on)-1] == last && back.count("^"+last+"$") == 1
	})
	whole := 0
	for _, line := range d.read("log") {
		if regexp.MustCompile(`^begin x+ \d+ end$`).MatchString(line) {
			whole++
		}
	}
	d.p.Signal(syscall.SIGTERM)
	require.Zero(t, d.p.Exit(patience))
	reader.Close()
	const all = 3 + visitors + 1
	lost, _ := losses(t, d.p, d.dir+"/log")
	require.Equal(t, all, whole+lost, "on the disk or told lost")
	lost, _ = losses(t, d.p, daemon(dead))
	require.Equal(t, all, len(back())+lost, "at the daemon that came back or told lost")
	lost, _ = losses(t, d.p, daemon(hung))
	require.Equal(t, all, <-heard+lost, "at the daemon that woke up or told lost")
}

// An error log on a full disk: sessions go on, and when there is room again, the log
// says how many lines it lacks.
//
// Fails if a line that could not be written is not counted, or the count is not
// told.
func TestErrorLogOnAFullDisk(t *testing.T) {
	t.Parallel()
	const visitors = 200
	a := mx(t, "a")
	addr := freeAddr(t)
	d := &smallDisk{t: t}
	d.launch("error_log = { path = 'DISK/log', level = 'info' }\n" + workers(2) + proxy(addr, a.Addr()))
	said := func(pattern string) (n int) { return records(func() []string { return d.read("log") }).count(pattern) }
	smtptest.Eventually(t, patience, "ready", func() bool { return said(`\] ready`) == 1 })
	d.fill()
	visits(t, addr, visitors)
	require.Less(t, said("session ended"), visitors)
	d.free()

	dropped := 0
	smtptest.Eventually(t, patience, "told lost or written", func() bool {
		visits(t, addr, 1)
		dropped = 0
		for _, line := range d.read("log") {
			if m := regexp.MustCompile(`log lines dropped \{"lines": (\d+)\}$`).FindStringSubmatch(line); m != nil {
				var n int
				_, err := fmt.Sscan(m[1], &n)
				require.NoError(t, err)
				dropped += n
			}
		}
		return dropped > 0
	})
	require.GreaterOrEqual(t, said(`session ended \{.*\}$`)+dropped, visitors)
}
