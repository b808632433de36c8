package conf

import "net/netip"

// A wildcard and addresses that it covers may stand in one configuration: the
// wildcard's socket has the connections to all of them, and each connection gets
// the most specific one's server, as with nginx (ngx_stream_optimize_servers).
// What is said of the socket is then said at the wildcard, or at the widest of
// them: [::] with ipv6only off covers 0.0.0.0, too.

// socketOptions are the keys of listen that are about its socket, by their names
// in both syntaxes, and how two addresses compare by them.
var socketOptions = map[string]func(a, b *Listen) bool{
	"backlog":      func(a, b *Listen) bool { return a.Backlog == b.Backlog },
	"rcvbuf":       func(a, b *Listen) bool { return a.RcvBuf == b.RcvBuf },
	"sndbuf":       func(a, b *Listen) bool { return a.SndBuf == b.SndBuf },
	"fastopen":     func(a, b *Listen) bool { return a.FastOpen == b.FastOpen },
	"reuseport":    func(a, b *Listen) bool { return a.ReusePort == b.ReusePort },
	"ipv6only":     func(a, b *Listen) bool { return a.IPv6Only == b.IPv6Only },
	"so_keepalive": func(a, b *Listen) bool { return a.Keepalive == b.Keepalive },
}

// Covers tells whether a socket of l takes connections to an address of its port,
// which is another one than its own.
func (l *Listen) Covers(a netip.Addr) bool {
	ip, isIP := bindIP(*l)
	return isIP && ip.IsUnspecified() && ip != a && (ip.Is4() == a.Is4() || ip.Is6() && !l.IPv6Only)
}

// bindIP returns the IP address that l binds, unless it is a unix socket or its
// host is a name.
func bindIP(l Listen) (netip.Addr, bool) {
	if l.Address.Path != "" {
		return netip.Addr{}, false
	}
	if l.Address.Host == "" {
		return netip.IPv4Unspecified(), true
	}
	ip, err := netip.ParseAddr(l.Address.Host)
	return ip.Unmap(), err == nil
}

// listens checks that every address is there once, and gives those that share a
// wildcard's socket its options. A port has at most two wildcards: no
// configuration makes this slow. Host names are only compared as they are.
func (v *validator) listens() {
	type key struct {
		path, host string
		port       uint16
	}
	first := make(map[key]Listen)
	wild := make(map[uint16][]*Listen)
	for i := range v.cfg.Servers {
		for j := range v.cfg.Servers[i].Listen {
			l := &v.cfg.Servers[i].Listen[j]
			if l.Address.Path == "" && l.Address.Port == 0 {
				continue
			}
			k := key{l.Address.Path, l.Address.Host, l.Address.Port}
			ip, isIP := bindIP(*l)
			if isIP {
				k.host = ip.String()
			}
			if other, again := first[k]; again {
				v.problem(l.Position, "listen %s: taken already by listen %s at %s",
					l.Address.Text, other.Address.Text, other.Position)
				continue
			}
			first[k] = *l
			if isIP && ip.IsUnspecified() {
				wild[l.Address.Port] = append(wild[l.Address.Port], l)
			}
		}
	}
	for i := range v.cfg.Servers {
		for j := range v.cfg.Servers[i].Listen {
			l := &v.cfg.Servers[i].Listen[j]
			v.share(l, wild[l.Address.Port])
			l.given = nil
		}
	}
}

// share gives l the options of the socket that has its connections.
func (v *validator) share(l *Listen, wild []*Listen) {
	owner := l
	for _, w := range wild {
		if ip, isIP := bindIP(*owner); isIP && w.Covers(ip) {
			owner = w
		}
	}
	if owner == l {
		return
	}
	for _, name := range l.given {
		if same := socketOptions[name]; same != nil && !same(l, owner) {
			v.problem(l.Position, "listen %s: %s is not that of listen %s at %s, whose socket it shares; say it there",
				l.Address.Text, name, owner.Address.Text, owner.Position)
		}
	}
	shared := *owner
	shared.Position, shared.Address, shared.ProxyProtocol = l.Position, l.Address, l.ProxyProtocol
	*l = shared
}
