package tunpump

import (
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace with one thread in it. The kernel keeps it
// until that thread has ended and the last socket made there is closed.
type namespace struct {
	calls chan call
	quit  chan struct{} // closed by stop
	ended chan struct{} // closed when the thread takes no more calls
}

type call struct {
	f     func() error
	reply chan<- error
}

func newNamespace() (*namespace, error) {
	ns := &namespace{
		calls: make(chan call),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	entered := make(chan error, 1)
	go ns.live(entered)
	if err := <-entered; err != nil {
		return nil, err
	}
	return ns, nil
}

// live enters a new namespace and serves calls there. It never unlocks its
// thread, so the runtime ends the thread with the goroutine instead of letting
// it run other goroutines in the wrong namespace.
func (ns *namespace) live(entered chan<- error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		entered <- fmt.Errorf("unshare the network namespace (are you root?): %w", err)
		return
	}
	if err := loopbackUp(); err != nil {
		entered <- err
		return
	}
	entered <- nil
	defer close(ns.ended)
	for {
		select {
		case c := <-ns.calls:
			c.reply <- c.f()
		case <-ns.quit:
			return
		}
	}
}

// do runs f on the namespace's thread and returns its error.
func (ns *namespace) do(f func() error) error {
	reply := make(chan error, 1)
	select {
	case ns.calls <- call{f, reply}:
		return <-reply
	case <-ns.ended:
		return fmt.Errorf("use the far side of a link: %w", net.ErrClosed)
	}
}

// stop ends the thread after the call that is running, and waits for it.
func (ns *namespace) stop() {
	close(ns.quit)
	<-ns.ended
}

func loopbackUp() error {
	return withControlSocket(func(fd int) error { return interfaceUp(fd, "lo") })
}
