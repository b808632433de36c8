// Package integration tests the program as a whole: built from this tree, run
// on configurations as an operator writes them, between scripted servers that
// keep ledgers and real ones (package peers).
//
// Each test names the deliberate fault in the program that makes it fail.
package integration

import (
	"flag"
	"os"
	"testing"

	"smtplb/internal/smtptest"
)

// atOnce is how many tests run at a time unless -parallel says otherwise: more
// than there are processors, since most of them wait for clocks.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err)
		}
	}
	os.Exit(smtptest.Main(m))
}
