package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The relative paths of a configuration begin at the prefix, in blocks, in
// servers and where they have variables, too; not at the working directory, which
// may be another one later. As in nginx, one that begins with a variable is
// relative.
//
// Fails if one kind of log is left as it is, and if ".." is resolved before its
// variable is known.
func TestPrefix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(`
pid run/pid;
error_log main.log;
stream {
    log_format m $status;
    access_log shared.log m;
    server { listen 25; return ""; }
    server { listen 26; return ""; }
    server {
        listen 27;
        return "";
        error_log own.log;
        access_log /var/log/absolute.log m;
        access_log $server_port/../x.log m;
        access_log a/$server_port/../x.log m;
        access_log syslog:server=unix:/dev/log m;
    }
}`), 0o600))
	c, err := parseCommand([]string{"smtplb", "-p", dir, "-c", "conf"})
	require.NoError(t, err)
	s, err := c.load(c.configFile())
	require.NoError(t, err)
	require.Equal(t, dir+"/run/pid", s.Pid)
	var logs []string
	for log := range s.errorLogs() {
		logs = append(logs, log.Path)
	}
	for log := range s.accessLogs() {
		logs = append(logs, log.Path)
	}
	require.Equal(t, []string{
		dir + "/main.log", dir + "/own.log",
		dir + "/shared.log", dir + "/shared.log",
		"/var/log/absolute.log", dir + "/$server_port/../x.log", dir + "/a/$server_port/../x.log", "syslog:server=unix:/dev/log",
	}, logs)
}
