package upstream

import "net/netip"

// Addr is where a server listens: a TCP address, or the path of a unix socket
// if Path is not empty. Addrs are comparable.
type Addr struct {
	TCP  netip.AddrPort
	Path string
}

// String returns nginx's spelling: 192.0.2.1:25, [2001:db8::1]:25, unix:/path.
func (a Addr) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.TCP.String()
}
