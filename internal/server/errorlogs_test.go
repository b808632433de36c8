package server

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/conf"
	"smtplb/healthcheck"
	"smtplb/internal/errorlog"
	"smtplb/upstream"
)

// logRun is a server whose error logs are files of a directory.
type logRun struct {
	*Server
	t   *testing.T
	dir string
	set *errorlog.Set
}

// newLogRun starts a server that has no configuration yet; its own log is the
// file main.
func newLogRun(t *testing.T) *logRun {
	t.Helper()
	r := &logRun{t: t, dir: t.TempDir()}
	var err error
	r.set, err = errorlog.Open(errorlog.Target{Path: r.dir + "/main", Level: errorlog.Info})
	require.NoError(t, err)
	r.Server, err = New(Options{Workers: 1, Pipes: 4, MaxSessions: 10, Logger: r.set.Logger(), ErrorLogs: r.set})
	require.NoError(t, err)
	t.Cleanup(func() {
		r.Stop(0, nil)
		require.NoError(t, r.set.Close(10*time.Second))
	})
	return r
}

// prepare reads a configuration in nginx's syntax, in which $dir is r.dir.
func (r *logRun) prepare(text string) (*conf.Config, *Next, error) {
	r.t.Helper()
	path := filepath.Join(r.dir, "n.conf")
	require.NoError(r.t, os.WriteFile(path, []byte(strings.ReplaceAll(text, "$dir", r.dir)), 0o600))
	c, err := conf.Load(path)
	require.NoError(r.t, err)
	n, err := r.Prepare(r.t.Context(), c)
	return c, n, err
}

func (r *logRun) apply(text string) {
	r.t.Helper()
	_, n, err := r.prepare(text)
	require.NoError(r.t, err)
	n.Commit()
}

// clear forgets what was logged so far.
func (r *logRun) clear() {
	r.t.Helper()
	require.NoError(r.t, r.set.Sync(10*time.Second))
	files, err := filepath.Glob(r.dir + "/*")
	require.NoError(r.t, err)
	for _, file := range files {
		if filepath.Ext(file) != ".conf" && filepath.Ext(file) != ".sock" {
			require.NoError(r.t, os.Truncate(file, 0))
		}
	}
}

// messages are what each file of names has, without the time and the fields but
// for the upstream.
func (r *logRun) messages(names ...string) map[string]string {
	r.t.Helper()
	require.NoError(r.t, r.set.Sync(10*time.Second))
	all := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(r.dir, name))
		require.NoError(r.t, err)
		var lines []string
		for _, m := range logged.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(m[1], "healthcheck: probe") { // whether one fails by now is chance
				lines = append(lines, strings.TrimSpace(m[1]+" "+m[2]))
			}
		}
		all[name] = strings.Join(lines, "\n")
	}
	return all
}

var logged = regexp.MustCompile(`(?m)^\S+ \S+ (\[\w+\] [^{\n]*?) ?(?:\{.*?(?:"upstream": "(\w+)"| in (\w+): ).*\})?$`)

const threeGroups = `error_log $dir/main info;
stream {
	upstream shared { server 192.0.2.1:25; check type=tcp interval=3600000; }
	upstream single { server 192.0.2.2:25; check type=tcp interval=3600000; }
	upstream unused { server 192.0.2.3:25; check type=tcp interval=3600000; }
	%s
	server { listen unix:$dir/1.sock; proxy_pass shared; }
	server { listen unix:$dir/2.sock; proxy_pass shared; error_log $dir/two warn; error_log $dir/three info; }
	server { listen unix:$dir/3.sock; proxy_pass single; error_log $dir/three warn; }
	server { listen unix:$dir/4.sock; proxy_pass shared; error_log $dir/two info; }
	server { listen unix:$dir/5.sock; proxy_pass 192.0.2.9:25; }
}`

// What becomes of the servers of a group is told to all who pass to it, once in
// each file, from the lowest level on that anybody wants there; the log of a
// stream block is that of its servers, and where nobody has a log it is told to
// the process.
//
// Fails if the process's log hears of every group, if that of the stream block
// hears of what none of its servers uses, or if a file hears twice.
func TestWhoHearsOfAGroup(t *testing.T) {
	t.Parallel()
	r := newLogRun(t)
	for _, test := range []struct {
		stream string
		want   map[string]string
	}{
		{"", map[string]string{
			"main": "[warn] server state shared\n[notice] server state shared\n[warn] server state unused\n[notice] server state unused",
			"two":  "[warn] server state shared\n[notice] server state shared",
			"three": "[warn] server state shared\n[notice] server state shared\n" +
				"[warn] server state single",
		}},
		{"error_log $dir/stream notice;", map[string]string{
			"main":   "[warn] server state unused\n[notice] server state unused",
			"stream": "[warn] server state shared\n[notice] server state shared",
			"two":    "[warn] server state shared\n[notice] server state shared",
			"three": "[warn] server state shared\n[notice] server state shared\n" +
				"[warn] server state single",
		}},
	} {
		r.apply(fmt.Sprintf(threeGroups, test.stream))
		r.clear()
		for _, name := range []string{"shared", "single", "unused"} {
			p := r.groups[name].Snapshot(0)[0].Peer
			p.Probed(upstream.Probe{State: upstream.StateUnhealthy, Why: "x"}, r.engine.Seconds())
			p.Probed(upstream.Probe{Good: true, State: upstream.StateUp}, r.engine.Seconds())
		}
		names := []string{"main", "two", "three"}
		if test.stream != "" {
			names = append(names, "stream")
		}
		require.Equal(t, test.want, r.messages(names...))
	}
}

// The summary of servers that are not up, the probes and the agents are told to
// the same logs.
//
// Fails if one summary of all goes to the process's log, or if a target of the
// checker has its logger.
func TestWhoHearsOfProbes(t *testing.T) {
	t.Parallel()
	r := newLogRun(t)
	r.apply(fmt.Sprintf(threeGroups, "error_log $dir/stream warn;"))
	for _, name := range []string{"shared", "unused"} {
		r.groups[name].Snapshot(0)[0].Peer.Probed(upstream.Probe{State: upstream.StateUnhealthy, Why: "x"}, r.engine.Seconds())
	}
	r.clear()
	r.summarise()
	of := func(name string) checkPlan { return checkPlan{target: healthcheck.Target{Upstream: name}} }
	checks := map[string]checkPlan{"shared": of("shared"), "unused": of("unused")}
	for _, target := range r.targets(checks, map[string]checkPlan{"single": of("single")}) {
		if target.Logger != nil {
			target.Logger.Warn("said of " + target.Upstream)
		}
	}
	hearer{r.Server, r.groups["single"].Snapshot(0)[0].Peer}.Probed(healthcheck.Result{Good: true, Agent: healthcheck.AgentReport{Unknown: "what"}})
	got := r.messages("main", "stream", "two", "three")
	require.Equal(t, "[warn] servers not up", got["main"])
	require.Equal(t, "[warn] servers not up\n[warn] healthcheck: said of shared", got["stream"])
	require.Equal(t, "[warn] servers not up\n[warn] healthcheck: said of shared\n[warn] healthcheck: said of single", got["three"])
}

// A log that cannot be opened keeps a configuration from being run, and is said
// once, with its place, however many servers inherit it; so it is by a test, which
// makes no file. Nothing stays open.
//
// Fails if the problem has no place, is said for each server, or if what was
// opened before is not released.
func TestErrorLogThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	r := newLogRun(t)
	c, _, err := r.prepare(fmt.Sprintf(strings.Replace(threeGroups, "three warn", "none/log warn", 1), "\n\terror_log $dir/good;\nerror_log $dir/none/log;"))
	want := func(line int) string {
		return fmt.Sprintf("open error log: open %[1]s/none/log: no such file or directory: create the directory first in %[1]s/n.conf:%[2]d", r.dir, line)
	}
	require.EqualError(t, err, want(8)+"\n"+want(11))
	require.EqualError(t, CheckErrorLogs(c), want(8)+"\n"+want(11))
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		require.NotContains(t, []string{r.dir + "/good", r.dir + "/two", r.dir + "/three"}, to)
	}
}
