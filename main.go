// Command smtplb balances SMTP sessions over groups of mail servers.
//
//	smtplb -c /etc/smtplb.toml
//
// Signals: HUP reads the configuration again, USR1 reopens the log, QUIT stops
// when the sessions have ended, TERM and INT stop fast.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"

	"smtplb/conf"
)

// version is set by the build.
var version = "dev"

//go:embed default.toml
var defaultConfig []byte

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the configuration or the start failed
	exitUsage = 2
)

const usage = `usage: smtplb [-t] [-c file]

  -c file   configuration; without it a small built-in one is used, see -d
  -t        test the configuration and exit
  -d        print the built-in configuration and exit
  -v        print the version and exit
  -h        this help

signals: HUP reload, USR1 reopen log, QUIT graceful stop, TERM or INT fast stop
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("smtplb", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	file := flags.String("c", "", "")
	test := flags.Bool("t", false, "")
	dump := flags.Bool("d", false, "")
	printVersion := flags.Bool("v", false, "")
	help := flags.Bool("h", false, "")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "smtplb: unexpected argument %q\n%s", flags.Arg(0), usage)
		return exitUsage
	case *help:
		fmt.Fprint(stdout, usage)
		return exitOK
	case *printVersion:
		fmt.Fprintf(stdout, "smtplb %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case *dump:
		_, _ = stdout.Write(defaultConfig)
		return exitOK
	}
	load := func() (*conf.Config, error) {
		if *file == "" {
			return conf.Parse("built-in configuration", defaultConfig)
		}
		return conf.Load(*file)
	}
	if *test {
		return testConfig(load, stderr)
	}
	return serve(load, stderr)
}
