package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/process"
	"smtplb/internal/server"
)

// testConfig is -t and -T: it reads the configuration, resolves its names, and
// looks whether the log and the pid file could be opened. It binds nothing, and
// makes no file.
func (c command) testConfig(stdout, stderr io.Writer) int {
	file := c.configFile()
	name := file
	if name == "" {
		name = builtIn
	}
	s, err := c.load(file)
	if err == nil {
		err = s.identify()
	}
	if err == nil {
		err = server.Check(context.Background(), s.Config)
	}
	if err == nil {
		for _, w := range append(s.Warnings, s.lost(!c.quiet)...) {
			fmt.Fprintf(stderr, "%s: [warn] %s\n", c.name, w)
		}
		c.say(stderr, "the configuration file %s syntax is ok", name)
		err = s.check()
	}
	if err != nil {
		c.emerg(stderr, err)
		fmt.Fprintf(stderr, "%s: configuration file %s test failed\n", c.name, name)
		return exitError
	}
	c.say(stderr, "configuration file %s test is successful", name)
	if c.dump {
		if err := s.dump(stdout); err != nil {
			return c.emerg(stderr, err)
		}
	}
	return exitOK
}

// say writes what -q leaves out.
func (c command) say(stderr io.Writer, format string, args ...any) {
	if !c.quiet {
		fmt.Fprintf(stderr, c.name+": "+format+"\n", args...)
	}
}

// check finds what would make a start fail, short of opening ports.
func (s settings) check() error {
	err := server.CheckErrorLogs(s.Config)
	if s.Pid != "" {
		if pidErr := process.CheckPidFile(s.Pid); pidErr != nil {
			err = errors.Join(err, conf.ParseError{Position: s.PidPosition, Message: pidErr.Error()})
		}
	}
	return err
}

// lost are warnings of what the process could not open again once it has become
// another user; and, if rotation is set, of logs that it could not make anew,
// which is well where logrotate does.
func (s settings) lost(rotation bool) []string {
	if s.identity == nil {
		return nil
	}
	var files process.Files
	for _, path := range s.Files {
		if path != builtIn {
			files.Read = append(files.Read, path)
		}
	}
	add := func(path string) {
		if errorlog.IsFile(path) && !slices.Contains(files.Append, path) {
			files.Append = append(files.Append, path)
		}
	}
	for log := range s.errorLogs() {
		add(log.Path)
	}
	for log := range s.accessLogs() {
		if !strings.Contains(log.Path, "$") { // else the user makes it, when there is a session for it
			add(log.Path)
		}
	}
	if rotation {
		files.Create = files.Append
	}
	refused, err := s.identity.Refused(files)
	if err != nil {
		refused = append(refused, err.Error())
	}
	for i, text := range refused {
		refused[i] = fmt.Sprintf("user %q: %s", s.User, text)
	}
	return refused
}

// dump writes the files of the configuration, as -T does.
func (s settings) dump(w io.Writer) error {
	for _, path := range s.Files {
		text := defaultConfig
		if path != builtIn {
			var err error
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "# configuration file %s:\n%s\n", path, text); err != nil {
			return err
		}
	}
	return nil
}
