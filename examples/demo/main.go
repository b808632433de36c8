// Command demo shows smtplb at work: it starts sample servers and the balancer
// in front of them, sends some mail through it, shows who got what, and stays
// up for mail of your own. It needs nothing but Go.
//
//	go run ./examples/demo
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	config := flag.String("c", "", "`file` to configure the balancer with, instead of what is built in; its addresses have to be TCP ports of this host")
	balancer := flag.String("smtplb", "", "`program` to run as the balancer; without it, one is built")
	once := flag.Bool("once", false, "stop after the table")
	flag.Parse()

	// What we start dies with the thread that started it: see startChild.
	runtime.LockOSThread()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	err := run(ctx, options{config: *config, balancer: *balancer, once: *once, out: os.Stdout})
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
