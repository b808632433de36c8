// Package bench measures what the balancer costs beside its peers: the
// processor time of smtplb, nginx, HAProxy and a proxy of goroutines and
// io.Copy, under the same load, on the same machine, in one run.
//
//	make bench BENCH=Proxies
//	go test -run='^$' -bench=Proxies ./integration/bench -rounds=3 -sessions=1000 -megabytes=200
//
// It prints a table in Markdown for each of two workloads, short sessions and
// bulk mail; in full that takes less than four minutes. The load is Postfix's
// smtp-source, its target Postfix's smtp-sink.
//
// Every proxy runs all the time, with one worker on the first processor that we
// may use; the load and this program run on the last one. A round gives each
// proxy the same work, one after the other. What else the machine does changes
// more from round to round than the proxies differ, so what counts is the
// median over the rounds of the ratio to nginx in the same round. The order of
// the proxies turns around with each round, so that drift favours none.
//
// Processor time is the kernel's exact count, not its ticks: user and system
// time of all threads. On loopback whoever sends a packet also pays for its
// reception, so the figures hold a part of the server's and the client's TCP:
// the same for every proxy, and less between machines.
//
// System calls are counted by strace, if it is there, in a load of their own.
package bench
