package tunpump

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

var errNoTun = errors.New("/dev/net/tun is missing: load the kernel module tun, or give the container that device")

const (
	mtu = 1500
	// queueLength is how many packets a device keeps for a pump that has no
	// processor just now. What exceeds it is lost uncounted, so it is ample.
	queueLength = 20000
)

// tun is a TUN device of the namespace in which it was opened: what the kernel
// routes to it is read from file, and what is written to file arrives.
type tun struct {
	name string
	file *os.File
}

// openTun makes a device in the namespace of the calling thread. The kernel
// puts a free number for the %d of the name.
func openTun(pattern string) (*tun, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, errNoTun
	}
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (are you root?): %w", err)
	}
	ifr, err := unix.NewIfreq(pattern)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	// Not before: a poller that meets a file without device sees an error.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &tun{name: ifr.Name(), file: os.NewFile(uintptr(fd), ifr.Name())}, nil
}

// configure gives the device an address in its /30 and brings it up, which
// makes the route to the other end. It acts on the calling thread's namespace.
func (t *tun) configure(addr netip.Addr) error {
	return withControlSocket(func(fd int) error {
		set := func(what string, req uint, fill func(*unix.Ifreq) error) error {
			ifr, err := unix.NewIfreq(t.name)
			if err != nil {
				return err
			}
			if err := fill(ifr); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(fd, req, ifr); err != nil {
				return fmt.Errorf("%s of %s: %w", what, t.name, err)
			}
			return nil
		}
		address := addr.As4()
		return errors.Join(
			set("set address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address[:]) }),
			set("set netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 252}) }),
			set("set mtu", unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }),
			set("set queue length", unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(queueLength); return nil }),
			interfaceUp(fd, t.name),
		)
	})
}

// interfaceUp sets an interface up; fd is any socket of its namespace.
func interfaceUp(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("get flags of %s: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// withControlSocket runs f with a socket of the calling thread's namespace, for
// ioctls that name an interface.
func withControlSocket(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return f(fd)
}
