// Package tunpump puts distance and loss between two TCP peers on one machine.
//
// A Link joins the test's own network namespace, the near side, with a new
// one, the far side. Packets cross it between two TUN devices, pumped by this
// process, which delays each and drops some. TCP is end to end: it is the
// kernel that retransmits, backs off and shrinks its window, so the program in
// between meets what a network would show it.
//
//	link := tunpump.New(t, tunpump.Config{Delay: 25 * time.Millisecond, Loss: 0.02})
//	ln, err := net.Listen("tcp", link.Near().String()+":0")   // what is tested, here
//	…
//	c, err := link.Dial(ctx, "tcp", ln.Addr().String())       // its client, 50 ms away
//
// It needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and /dev/net/tun, and no
// installed program. Addresses are from 198.18.0.0/15, kept for such tests
// (RFC 2544, RFC 6890); any number of links can exist at a time. Packets keep
// their order; IPv6 does not cross.
//
// A link takes its devices, addresses and routes with it when the test ends.
// What uses it must have stopped by then, which is so if it was started later
// with the same testing.TB: a connection attempt to a link that is no more
// would leave by the default route.
package tunpump
