package listener

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The kernel's bounds of the keepalive settings: MAX_TCP_KEEPIDLE,
	// MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT in its include/net/tcp.h.
	maxKeepaliveTime  = 32767 * time.Second
	maxKeepaliveCount = 127

	// sun_path holds 108 bytes, of which the last ends the string.
	maxPath = 107
)

// Check says whether o could be applied to the open socket. An error is one
// that Apply would return; it names what cannot change without a restart.
func (s *Socket) Check(o Options) error {
	if err := o.validate(); err != nil {
		return fmt.Errorf("listen %s: %w", s.addr, err)
	}
	if o.Addr != s.addr && o.Addr != s.asked {
		return fmt.Errorf("listen %s: options of %s do not belong to this socket", s.addr, o.Addr)
	}
	if ip := s.addr.TCP.Addr(); ip.Is6() && ip.IsUnspecified() && o.IPv6Only != s.set.IPv6Only {
		return fmt.Errorf("listen %s: ipv6only cannot change while the socket is open: restart to change it, or keep ipv6only=%s",
			s.addr, onOff(s.set.IPv6Only))
	}
	return nil
}

// Apply puts o into force on the open socket, for the connections established
// from now on; nothing that is queued is lost. It changes nothing where Check
// fails.
func (s *Socket) Apply(o Options) error {
	if err := s.Check(o); err != nil {
		return err
	}
	if err := s.setOptions(o); err != nil {
		return fmt.Errorf("listen %s: %w", s.addr, err)
	}
	if err := s.listen(o); err != nil {
		return fmt.Errorf("listen %s: %w", s.addr, err)
	}
	s.set = o
	return nil
}

// validate finds what the kernel would refuse without saying why, or would
// take in another meaning than ours.
func (o Options) validate() error {
	for name, value := range map[string]int{"backlog": o.Backlog, "rcvbuf": o.RcvBuf, "sndbuf": o.SndBuf, "fastopen": o.FastOpen} {
		if value < 0 {
			return fmt.Errorf("%s %d is negative", name, value)
		}
	}
	if path := o.Addr.Path; path != "" {
		switch {
		case len(path) > maxPath:
			return fmt.Errorf("path has %d bytes, a unix socket's may have %d: choose a shorter one", len(path), maxPath)
		case strings.HasPrefix(path, "@"):
			return errors.New(`a path that begins with "@" would be an abstract socket, which has no permissions: write "./@..." if a file is meant`)
		case strings.ContainsRune(path, 0):
			return errors.New("path contains a NUL byte")
		}
		return nil
	}
	switch ip := o.Addr.TCP.Addr(); {
	case !ip.IsValid():
		return errors.New("no address given")
	case ip.Is4In6():
		return fmt.Errorf("an IPv4 address in IPv6 notation cannot be listened on: write %s", ip.Unmap())
	}
	return o.Keepalive.validate()
}

func (k Keepalive) validate() error {
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"idle time", k.Idle}, {"interval", k.Interval}} {
		if t.value < 0 || t.value > maxKeepaliveTime || t.value%time.Second != 0 {
			return fmt.Errorf("keepalive %s %s: want whole seconds, at most %.0f", t.name, t.value, maxKeepaliveTime.Seconds())
		}
	}
	if k.Count < 0 || k.Count > maxKeepaliveCount {
		return fmt.Errorf("keepalive count %d: want at most %d", k.Count, maxKeepaliveCount)
	}
	return nil
}

// setOptions sets all that an open socket can change; o is valid.
func (s *Socket) setOptions(o Options) error {
	if s.addr.Path != "" {
		return nil
	}
	if err := s.setReusePort(o.ReusePort); err != nil {
		return err
	}
	if err := s.setInt("SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return err
	}
	if err := s.setFlag("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, o.NoDelay); err != nil {
		return err
	}
	if err := s.setBuffers(o); err != nil {
		return err
	}
	if o.FastOpen != s.set.FastOpen {
		if err := s.setInt("TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen); err != nil {
			return err
		}
	}
	return s.setKeepalive(o.Keepalive)
}

// setKeepalive writes the kernel's own value for each that k leaves open: a
// socket cannot be told to forget a value, and a reload may have taken one
// out of the configuration.
func (s *Socket) setKeepalive(k Keepalive) error {
	if !k.On {
		return s.setInt("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
	if k.Idle == 0 {
		k.Idle = s.kernel.Keepalive.Idle
	}
	if k.Interval == 0 {
		k.Interval = s.kernel.Keepalive.Interval
	}
	if k.Count == 0 {
		k.Count = s.kernel.Keepalive.Count
	}
	if err := s.setInt("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle/time.Second)); err != nil {
		return err
	}
	if err := s.setInt("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval/time.Second)); err != nil {
		return err
	}
	if err := s.setInt("TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count); err != nil {
		return err
	}
	return s.setInt("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// setBuffers says nothing of a buffer that is the kernel's and stays so: any size
// that is set is fixed, and the kernel sizes buffers better. One that was set is
// the kernel's again with SO_BUF_LOCK; before Linux 5.14 it keeps the size that
// the kernel begins with.
func (s *Socket) setBuffers(o Options) error {
	loosen := false
	for _, b := range [...]struct {
		name              string
		option            int
		want, has, kernel int
	}{
		{"SO_RCVBUF", unix.SO_RCVBUF, o.RcvBuf, s.set.RcvBuf, s.kernel.RcvBuf},
		{"SO_SNDBUF", unix.SO_SNDBUF, o.SndBuf, s.set.SndBuf, s.kernel.SndBuf},
	} {
		if b.want == 0 && b.has != 0 {
			b.want, loosen = b.kernel, true
		}
		if b.want != 0 {
			if err := s.setInt(b.name, unix.SOL_SOCKET, b.option, b.want); err != nil {
				return err
			}
		}
	}
	if !loosen {
		return nil
	}
	locks := 0
	if o.RcvBuf != 0 {
		locks |= unix.SOCK_RCVBUF_LOCK
	}
	if o.SndBuf != 0 {
		locks |= unix.SOCK_SNDBUF_LOCK
	}
	err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locks)
	if err == unix.ENOPROTOOPT {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_BUF_LOCK", err)
}

// keepKernelDefaults is called before any option is set: until then the socket
// reports the kernel's.
func (s *Socket) keepKernelDefaults() error {
	k := &s.kernel
	var idle, interval int
	for _, o := range [...]struct {
		name          string
		level, option int
		to            *int
	}{
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, &idle},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, &interval},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, &k.Keepalive.Count},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, &k.RcvBuf},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, &k.SndBuf},
	} {
		value, err := unix.GetsockoptInt(s.fd, o.level, o.option)
		if err != nil {
			return os.NewSyscallError("getsockopt "+o.name, err)
		}
		*o.to = value
	}
	k.Keepalive.Idle = time.Duration(idle) * time.Second
	k.Keepalive.Interval = time.Duration(interval) * time.Second
	k.RcvBuf, k.SndBuf = k.RcvBuf/2, k.SndBuf/2 // the kernel doubles what it is given
	return nil
}

func (s *Socket) setReusePort(on bool) error {
	return s.setFlag("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, on)
}

func (s *Socket) setFlag(name string, level, option int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return s.setInt(name, level, option, value)
}

func (s *Socket) setInt(name string, level, option, value int) error {
	return os.NewSyscallError("setsockopt "+name, unix.SetsockoptInt(s.fd, level, option, value))
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
