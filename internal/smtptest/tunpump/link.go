package tunpump

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what a Link does to packets, in each direction alike.
type Config struct {
	Delay time.Duration // one way: half of the round trip
	Loss  float64       // probability that a packet is dropped, 0 to 1
	Seed  uint64        // of the losses; the same seed drops the nth packets alike
}

// Stats counts the packets of one direction.
type Stats struct {
	Sent    int64 // put on the link
	Dropped int64 // of these, lost on purpose
}

// Link is a network between two namespaces. Its methods may be called from any
// goroutine.
type Link struct {
	near, far       netip.Addr
	toFar, toNear   *pump
	nearTun, farTun *tun
	ns              *namespace
	wg              sync.WaitGroup // the pumps
}

// New makes a link that lasts until the test ends.
func New(t testing.TB, cfg Config) *Link {
	t.Helper()
	l, err := open(cfg)
	if err != nil {
		t.Fatalf("open a link: %v", err)
	}
	t.Cleanup(l.close)
	return l
}

func open(cfg Config) (l *Link, err error) {
	l = &Link{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.nearTun, err = openTun("smtplb%d"); err != nil {
		return l, err
	}
	// The device's number is unique here, so are addresses made from it.
	if l.near, l.far, err = addresses(l.nearTun.name); err != nil {
		return l, err
	}
	if err = l.nearTun.configure(l.near); err != nil {
		return l, err
	}
	if l.ns, err = newNamespace(); err != nil {
		return l, err
	}
	if err = l.ns.do(func() (err error) {
		if l.farTun, err = openTun("smtplb%d"); err != nil {
			return err
		}
		return l.farTun.configure(l.far)
	}); err != nil {
		return l, err
	}
	l.toFar = newPump(l.nearTun.file, l.farTun.file, cfg, 0)
	l.toNear = newPump(l.farTun.file, l.nearTun.file, cfg, 1)
	for _, p := range []*pump{l.toFar, l.toNear} {
		l.wg.Go(p.receive)
		l.wg.Go(p.send)
	}
	return l, nil
}

// close ends whatever open has begun.
func (l *Link) close() {
	for _, tun := range []*tun{l.nearTun, l.farTun} {
		if tun != nil {
			tun.file.Close() // the device goes with its descriptor
		}
	}
	l.wg.Wait()
	if l.ns != nil {
		l.ns.stop()
	}
}

// addresses are the two hosts of the nth /30 of 198.18.0.0/15, for device
// "smtplbN".
func addresses(device string) (near, far netip.Addr, err error) {
	var n uint32
	if _, err := fmt.Sscanf(device, "smtplb%d", &n); err != nil {
		return near, far, fmt.Errorf("read the number of device %q: %w", device, err)
	}
	if n >= 1<<15 {
		return near, far, fmt.Errorf("device %s: 198.18.0.0/15 has only %d networks", device, 1<<15)
	}
	host := func(i uint32) netip.Addr {
		a := 198<<24 | 18<<16 | n<<2 | i
		return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
	}
	return host(1), host(2), nil
}

// Near is the address of the test's own namespace on the link.
func (l *Link) Near() netip.Addr { return l.near }

// Far is the address of the other end. Listeners that Listen opens are there.
func (l *Link) Far() netip.Addr { return l.far }

// Dial connects from the far side to an address there is at the near side, or
// at the far side's own. It has the signature of net.Dialer.DialContext.
func (l *Link) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: l.exchange}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, address)
}

// Listen listens on the far side, at Far; port 0 lets the kernel choose.
func (l *Link) Listen(port int) (net.Listener, error) {
	lc := net.ListenConfig{Control: l.exchange}
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp4", netip.AddrPortFrom(l.far, uint16(port)).String())
}

// Do runs f on the one thread that lives in the far namespace. Sockets that f
// makes stay there wherever they are used, and so does a process that it
// starts. f must not block: all of Dial, Listen and Do wait for it.
func (l *Link) Do(f func() error) error { return l.ns.do(f) }

// Cut interrupts the link, or mends it: while it is cut, every packet that sets
// out is dropped, as by a firewall or a pulled cable. Nobody is told.
func (l *Link) Cut(cut bool) {
	l.toFar.cut.Store(cut)
	l.toNear.cut.Store(cut)
}

// Stats returns what has crossed the link so far in each direction.
func (l *Link) Stats() (toFar, toNear Stats) { return l.toFar.stats(), l.toNear.stats() }

// exchange is a Control function. It puts a socket of the far namespace in the
// place of the one just made, which is fresh: package net has neither bound it
// nor given it to its poller. So a dial costs the far thread one system call,
// and net does the waiting.
func (l *Link) exchange(network, _ string, c syscall.RawConn) error {
	if network != "tcp4" {
		return fmt.Errorf("%s on a link: only TCP over IPv4 crosses it", network)
	}
	var fd int
	err := l.ns.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("socket in the far namespace: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	var derr error
	if err := c.Control(func(old uintptr) { derr = unix.Dup3(fd, int(old), unix.O_CLOEXEC) }); err != nil {
		return err
	}
	return derr
}
