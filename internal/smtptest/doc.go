// Package smtptest is the vocabulary of the balancer's tests: peers that can
// misbehave on purpose, ways to look at a running process, and a runner for
// the built program. Nothing of it is part of the product.
//
// A mail server with a fault, in front of which a balancer is put:
//
//	srv := smtptest.NewServer(t, smtptest.Script{
//		Connect: smtptest.Step{Reply: "421 4.3.2 busy\r\n"},
//	})
//	conf := fmt.Sprintf(template, smtptest.FreePort(t), srv.Addr())
//	lb := smtptest.Start(t, conf)
//	…
//	lb.Signal(syscall.SIGHUP)
//	lb.Await("reloaded", 1)
//
// The chapters:
//
//   - script.go, server.go: Server, an SMTP server that plays a Script.
//   - service.go, port.go: Serve for any other protocol, and addresses that
//     refuse (Refused) or are free to be configured (FreePort).
//   - stream.go: byte streams with digests, and sockets that read nothing,
//     reset or have small buffers.
//   - wait.go, proc.go, latency.go: deadlines, descriptors, threads, processor
//     time, quantiles.
//   - process.go, build.go: the program under test.
//
// Package ledger, below this one, counts mail; package tunpump, below this
// one, puts distance and loss between two TCP peers.
//
// Whatever is made with a testing.TB ends with that test, after what was made
// later. Functions that take a testing.TB stop the test when they cannot do
// what they say, so they are called on the test's own goroutine.
package smtptest
