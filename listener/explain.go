package listener

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// explain puts the address before a failed call's error, and what the operator
// can do behind it.
func explain(a Addr, err error) error {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return fmt.Errorf("listen %s: %w", a, err)
	}
	hint := tcpHint(a, call.Err)
	if a.Path != "" {
		hint = pathHint(call.Err)
	}
	if hint == "" {
		return fmt.Errorf("listen %s: %w", a, err)
	}
	return fmt.Errorf("listen %s: %w: %s", a, call.Err, hint)
}

func tcpHint(a Addr, err error) string {
	switch err {
	case unix.EADDRINUSE:
		return fmt.Sprintf(`another process (or another address of this configuration) holds it; find it with "ss -ltnp 'sport = :%d'"`,
			a.TCP.Port())
	case unix.EACCES:
		return "ports below net.ipv4.ip_unprivileged_port_start (1024) need root or CAP_NET_BIND_SERVICE; " +
			"in a systemd unit: AmbientCapabilities=CAP_NET_BIND_SERVICE"
	case unix.EADDRNOTAVAIL:
		return `no interface of this host has the address; compare "ip address", or set ` +
			"net.ipv4.ip_nonlocal_bind=1 (net.ipv6.ip_nonlocal_bind=1) if it moves between hosts"
	case unix.EAFNOSUPPORT:
		return "this host has the address family switched off"
	case unix.EINVAL:
		if a.TCP.Addr().IsLinkLocalUnicast() && a.TCP.Addr().Zone() == "" {
			return "a link-local address needs its interface: [fe80::1%eth0]:25"
		}
	}
	return ""
}

func pathHint(err error) string {
	switch err {
	case unix.ENOENT, unix.ENOTDIR:
		return "the directory does not exist; create it first"
	case unix.EACCES, unix.EPERM:
		return "the user of this process may not write in the directory"
	case unix.EROFS:
		return "the file system is read-only"
	}
	return ""
}
