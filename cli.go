package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// persona is what depends on the name by which the program was called: at
// nginx's path it has nginx's name, files and version, for what watches it.
type persona struct {
	name    string
	prefix  string   // of relative paths; empty: where the program was started
	configs []string // sought in turn
	pid     string   // the pid file if the configuration names none
	version string   // as -v prints it
}

// nginxVersion is the one whose command line and language this is.
const nginxVersion = "1.22.1"

func personaOf(argv0 string) persona {
	const nginxConfig = "/etc/nginx/nginx.conf"
	if filepath.Base(argv0) == "nginx" {
		return persona{
			name:    "nginx",
			prefix:  "/usr/share/nginx/",
			configs: []string{nginxConfig},
			pid:     "/run/nginx.pid",
			version: fmt.Sprintf("nginx/%s (smtplb %s)", nginxVersion, version),
		}
	}
	return persona{
		name:    "smtplb",
		configs: []string{"/etc/smtplb/smtplb.toml", nginxConfig},
		version: "smtplb/" + version,
	}
}

// likeNginx tells whether the program stands in nginx's place.
func (p persona) likeNginx() bool { return p.pid != "" }

// command is what a command line asks for.
type command struct {
	persona
	printHelp    bool
	printVersion bool
	printBuild   bool
	printDefault bool
	test         bool
	dump         bool
	quiet        bool
	signal       string // a key of signals, or empty
	file         string // of -c; empty: none
	errorLog     string // of -e; empty: standard error
	global       string // of -g
}

// signals are what -s knows.
var signals = map[string]syscall.Signal{
	"stop":   syscall.SIGTERM,
	"quit":   syscall.SIGQUIT,
	"reopen": syscall.SIGUSR1,
	"reload": syscall.SIGHUP,
}

// parseCommand reads the command line as ngx_get_options does: letters may be
// joined, and a value follows its letter at once or as the next argument. What
// it returns has a name even if there is an error.
func parseCommand(argv []string) (command, error) {
	c := command{persona: personaOf(argv[0])}
	args := argv[1:]
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if c.long(arg) {
			continue
		}
		letters, ok := strings.CutPrefix(arg, "-")
		if !ok {
			return c, fmt.Errorf(`invalid option: "%s"`, arg)
		}
		for letters != "" {
			letter := letters[0]
			letters = letters[1:]
			if c.flag(letter) {
				continue
			}
			value, what := c.valued(letter)
			switch {
			case value == nil:
				return c, fmt.Errorf(`invalid option: "%c"`, letter)
			case letters != "":
				*value, letters = letters, ""
			case len(args) > 0:
				*value, args = args[0], args[1:]
			default:
				return c, fmt.Errorf(`option "-%c" requires %s`, letter, what)
			}
			if err := c.accept(letter); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// long takes what begins with two dashes, which nginx always refuses.
func (c *command) long(arg string) bool {
	switch arg {
	case "--help":
		c.printHelp = true
	case "--version":
		c.printVersion = true
	default:
		return false
	}
	return true
}

// flag takes a letter that has no value.
func (c *command) flag(letter byte) bool {
	switch letter {
	case '?', 'h':
		c.printHelp = true
	case 'v':
		c.printVersion = true
	case 'V':
		c.printBuild = true
	case 't':
		c.test = true
	case 'T':
		c.test, c.dump = true, true
	case 'q':
		c.quiet = true
	case 'd':
		if c.likeNginx() {
			return false
		}
		c.printDefault = true
	default:
		return false
	}
	return true
}

// valued is where the value of a letter goes and what it is, or nil.
func (c *command) valued(letter byte) (value *string, what string) {
	switch letter {
	case 'p':
		return &c.prefix, "directory name"
	case 'e':
		return &c.errorLog, "file name"
	case 'c':
		return &c.file, "file name"
	case 'g':
		return &c.global, "parameter"
	case 's':
		return &c.signal, "parameter"
	}
	return nil, ""
}

// accept looks at the value that a letter has got.
func (c *command) accept(letter byte) error {
	switch letter {
	case 'p':
		if c.prefix != "" && !strings.HasSuffix(c.prefix, "/") {
			c.prefix += "/"
		}
	case 'e':
		if c.errorLog == "stderr" {
			c.errorLog = ""
		}
	case 'c':
		if c.file == "" { // the prefix itself: a directory, which nobody can have meant
			return errors.New(`option "-c" requires file name`)
		}
	case 's':
		if signals[c.signal] == 0 {
			return fmt.Errorf(`invalid option: "-s %s"`, c.signal)
		}
	}
	return nil
}

// usage is nginx's, with room for the name, what we have besides, and defaults.
const usage = `Usage: %s [-?hvVtTq] [-s signal] [-p prefix]
             [-e filename] [-c filename] [-g directives]

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
%s  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: %s)
  -e filename   : set error log file (default: stderr)
  -c filename   : set configuration file (default: %s)
  -g directives : set global directives out of configuration file

`

// writeAbout writes what -v, -V and -h ask for.
func (c command) writeAbout(w io.Writer) {
	fmt.Fprintf(w, "%s version: %s\n", c.name, c.version)
	own := "  -d            : print the built-in configuration and exit\n"
	prefix, config := "the working directory", "the first of "+strings.Join(c.configs, ", ")+", or the built-in one"
	if c.likeNginx() {
		own, prefix, config = "", personaOf(c.name).prefix, c.configs[0]
	}
	if c.printHelp {
		fmt.Fprintf(w, usage, c.name, own, prefix, config)
	}
	if c.printBuild {
		fmt.Fprintf(w, "built by %s for %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
		// What scripts look for: the paths, and the modules whose work this does.
		fmt.Fprintf(w, "configure arguments:")
		if c.likeNginx() {
			fmt.Fprintf(w, " --prefix=%s --conf-path=%s --pid-path=%s", strings.TrimSuffix(prefix, "/"), config, c.pid)
		}
		fmt.Fprintln(w, " --error-log-path=stderr --with-stream --with-stream_realip_module")
	}
}
