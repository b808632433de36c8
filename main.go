// Command smtplb balances SMTP sessions over groups of mail servers.
//
//	smtplb -c /etc/smtplb/smtplb.toml
//
// Its command line is nginx's, and it may be called nginx.
//
// Signals: HUP reads the configuration again, USR1 reopens the logs, QUIT stops
// when the sessions have ended, TERM and INT stop fast.
package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"

	"smtplb/internal/process"
)

// version is set by the build.
var version = "dev"

//go:embed default.toml
var defaultConfig []byte

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

func run(argv []string, stdout, stderr io.Writer) int {
	parent := process.Detached()
	c, err := parseCommand(argv)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", c.name, err)
		return exitError
	}
	if c.printVersion || c.printHelp || c.printBuild {
		c.writeAbout(stderr)
		if !c.test {
			return exitOK
		}
	}
	switch {
	case c.printDefault:
		_, _ = stdout.Write(defaultConfig)
		return exitOK
	case c.explain:
		return c.explainConfig(stdout, stderr)
	case c.test:
		return c.testConfig(stdout, stderr)
	case c.signal != "":
		return c.sendSignal(stderr)
	}
	return c.serve(parent, stderr)
}
