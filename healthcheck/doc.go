// Package healthcheck finds out which servers take mail, by asking them: it
// visits each of them again and again as a mail client would, and counts the
// results until they amount to a change of its State.
//
//	c := healthcheck.New(logger)
//	c.Update([]healthcheck.Target{{
//		Settings: healthcheck.Settings{
//			Network: "tcp", Address: "10.0.0.1:25", SMTP: true,
//			Timeout: 10 * time.Second, Helo: "lb.example.com",
//		},
//		Upstream: "scanners", Name: "10.0.0.1:25",
//		Interval: 10 * time.Second, DownInterval: 30 * time.Second,
//		Rise: 2, Fall: 3,
//		Reporter: peer, // its Probed is told each result
//	}})
//	c.ProbeNow(peer) // a session has met with trouble there
//	c.Stop()
//
// # Who owns what
//
// A Target is one server as one user of it, an upstream, sees it: results are
// counted for each. Targets with equal Settings share one probe, and a probe's
// result goes to all of them. One goroutine, the scheduler, owns all that; it
// calls the Reporters, so these return at once. Each running probe is a
// goroutine, of which there are at most maxRunning.
//
// # When
//
// An interval runs from the end of a probe to the beginning of the next, ±20 %.
// It is a second while somebody waits for a verdict: after a good probe of a
// server that is out, and when a Reporter asks for it. The first probes after
// an Update are spread over a second, or over more if they are many, and the
// second ones over an interval, so that the visits do not come in waves.
//
// # Agents
//
// A Target of Settings.Agent is asked in the same way, but speaks for itself: it
// has one line for an answer, see ParseAgent, and the Reporter gets that in
// Result.Agent. No answer is a bad Result, which the Reporter may ignore.
//
// # Manners
//
// A probe is the best-behaved of clients, since it comes thousands of times a
// day: it reads a reply to its end before it writes, says QUIT even to a server
// that has refused it, and lets the server close first. What is wrong with a
// server is said in the server's own words, made printable.
//
// # What it does not do
//
// It does not decide who gets sessions: the Reporters' side does, and logs the
// changes. It does not verify certificates, as those are between a client and
// the server; it looks at the end of their time only. It does not judge a
// server by what is our own fault: a probe that the process was too slow for,
// or had no descriptor or port for, is repeated and counts for nothing.
package healthcheck
