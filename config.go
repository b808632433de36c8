package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/process"
)

// settings are a configuration with what the command line adds to it. The paths
// of its pid file and its logs are absolute.
type settings struct {
	*conf.Config
	identity *process.Identity // whom to become; nil: nobody else
}

// builtIn stands for the name of the configuration in the program.
const builtIn = "built-in configuration"

// configFile is the path of the configuration, or empty for the one in the
// program.
func (c command) configFile() string {
	if c.file != "" {
		return c.path(c.file)
	}
	for _, path := range c.configs {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	if c.likeNginx() { // which has none in it
		return c.configs[0]
	}
	return ""
}

// path is where a relative path leads.
func (c command) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return c.prefix + path
}

// absolute is where a path leads whatever the working directory will be. As for
// nginx, one that begins with a variable is relative, too.
func (c command) absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	prefix, err := filepath.Abs(c.prefix)
	return strings.TrimSuffix(prefix, "/") + "/" + path, err
}

// load reads the configuration file, or the one in the program if file is empty.
func (c command) load(file string) (settings, error) {
	var s settings
	var err error
	if file == "" {
		s.Config, err = conf.ParseWith(builtIn, defaultConfig, c.global)
	} else {
		s.Config, err = conf.LoadWith(file, c.global)
	}
	if err != nil {
		return settings{}, err
	}
	if s.Pid == "" {
		s.Pid = c.pid
	}
	if s.Pid != "" {
		if s.Pid, err = c.absolute(s.Pid); err != nil {
			return settings{}, err
		}
	}
	for log := range s.errorLogs() {
		if log.Path == errorlog.Stderr && c.errorLog != "" {
			log.Path, log.Position = c.errorLog, conf.Position{}
		}
		if errorlog.IsFile(log.Path) {
			if log.Path, err = c.absolute(log.Path); err != nil {
				return settings{}, err
			}
		}
	}
	for log := range s.accessLogs() {
		if errorlog.IsFile(log.Path) {
			if log.Path, err = c.absolute(log.Path); err != nil {
				return settings{}, err
			}
		}
	}
	return s, nil
}

// errorLogs are the targets of all error logs, of the process and of servers.
// Servers that share the one of the block around them share its targets.
func (s settings) errorLogs() iter.Seq[*conf.ErrorLog] {
	return func(yield func(*conf.ErrorLog) bool) {
		for i := range s.ErrorLogs {
			if !yield(&s.ErrorLogs[i]) {
				return
			}
		}
		for _, server := range s.Servers {
			for i := range server.ErrorLogs {
				if !yield(&server.ErrorLogs[i]) {
					return
				}
			}
		}
	}
}

// accessLogs are those of all servers, which may share theirs, too.
func (s settings) accessLogs() iter.Seq[*conf.AccessLog] {
	return func(yield func(*conf.AccessLog) bool) {
		for _, server := range s.Servers {
			for i := range server.AccessLogs {
				if !yield(&server.AccessLogs[i]) {
					return
				}
			}
		}
	}
}

// logsToStderr tells whether any log needs standard error.
func (s settings) logsToStderr() bool {
	for log := range s.errorLogs() {
		if errorlog.IsStderr(log.Path) {
			return true
		}
	}
	return false
}

// explainConfig is --explain.
func (c command) explainConfig(stdout, stderr io.Writer) int {
	s, err := c.load(c.configFile())
	if err != nil {
		return c.emerg(stderr, err)
	}
	_, _ = stdout.Write(conf.Explain(s.Config))
	return exitOK
}

// identify finds out about the user, whom only root can become. It is for the
// start: afterwards the process is that user.
func (s *settings) identify() error {
	if s.User == "" {
		return nil
	}
	if os.Geteuid() != 0 {
		s.Warnings = append(s.Warnings, s.Files[0]+`: the "user" directive makes sense only if the process is started with super-user privileges, ignored`)
		return nil
	}
	id, err := process.LookupIdentity(s.User, s.Group)
	if err != nil {
		return fmt.Errorf("%s: user: %w", s.Files[0], err)
	}
	if id.UID != 0 {
		s.identity = &id
	}
	return nil
}

// emerg says why the program cannot do what it was asked to: on standard error,
// and in the log that -e names.
func (c command) emerg(stderr io.Writer, err error) int {
	return c.complain(stderr, "emerg", err)
}

func (c command) complain(stderr io.Writer, level string, err error) int {
	fmt.Fprintf(stderr, "%s: [%s] %v\n", c.name, level, err)
	if c.errorLog != "" {
		if log, openErr := errorlog.Open(errorlog.Target{Path: c.path(c.errorLog), Level: errorlog.Debug}); openErr == nil {
			parsed, _ := errorlog.ParseLevel(level)
			log.Logger().Log(parsed, err.Error())
			_ = log.Close(flushWait)
		}
	}
	return exitError
}

// sendSignal is -s.
func (c command) sendSignal(stderr io.Writer) int {
	s, err := c.load(c.configFile())
	if err != nil {
		return c.emerg(stderr, err)
	}
	if s.Pid == "" {
		return c.complain(stderr, "error", fmt.Errorf(`%s names no pid file: add "pid"`, s.Files[0]))
	}
	pid, err := process.ReadPidFile(s.Pid)
	if err != nil {
		return c.complain(stderr, "error", err)
	}
	if err := process.Signal(pid, signals[c.signal]); err != nil {
		return c.complain(stderr, "alert", err)
	}
	return exitOK
}
