package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/listener"
)

const (
	// lookupTimeout bounds all lookups of a configuration together; they run
	// at once, no more than lookupsAtOnce.
	lookupTimeout = 20 * time.Second
	lookupsAtOnce = 64
)

// names are the host names of a configuration and what they stand for.
type names struct {
	known  map[string][]netip.Addr
	failed map[string]error
}

// resolve looks up every host name of a configuration, each once. One that
// cannot be found now but could for the running configuration keeps those
// addresses, with a warning.
func (s *Server) resolve(ctx context.Context, c *conf.Config) *names {
	n := &names{known: map[string][]netip.Addr{}, failed: map[string]error{}}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()

	var (
		mu   sync.Mutex // protects n
		wg   sync.WaitGroup
		slot = make(chan struct{}, lookupsAtOnce)
		seen = map[string]bool{}
	)
	lookup := func(a conf.Address) {
		if _, ok := literal(a); ok || seen[a.Host] {
			return
		}
		seen[a.Host] = true
		wg.Go(func() {
			slot <- struct{}{}
			defer func() { <-slot }()
			addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.Host)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				n.failed[a.Host] = err
				return
			}
			for i, ip := range addrs {
				addrs[i] = ip.Unmap()
			}
			n.known[a.Host] = inOrder(s.known[a.Host], addrs)
		})
	}
	for _, u := range c.Upstreams {
		for _, server := range u.Servers {
			lookup(server.Address)
		}
	}
	for _, server := range c.Servers {
		for _, l := range server.Listen {
			lookup(l.Address)
		}
	}
	wg.Wait()

	for host, err := range n.failed {
		if addrs := s.known[host]; len(addrs) > 0 {
			n.known[host] = addrs
			s.log.Warn("host name cannot be resolved now, keeping its addresses",
				zap.String("host", host), zap.Stringers("addresses", addrs), zap.Error(err))
		}
	}
	return n
}

// inOrder returns addrs in the order of old, if they are the same. Name servers
// turn the order of their answers, and a reload that changes nothing is to leave
// rotations and hashes where they are.
func inOrder(old, addrs []netip.Addr) []netip.Addr {
	sorted := func(a []netip.Addr) []netip.Addr { return slices.SortedFunc(slices.Values(a), netip.Addr.Compare) }
	if slices.Equal(sorted(old), sorted(addrs)) {
		return old
	}
	return addrs
}

// addrs returns the socket addresses that a configured address stands for.
func (n *names) addrs(a conf.Address) ([]listener.Addr, error) {
	if l, ok := literal(a); ok {
		return []listener.Addr{l}, nil
	}
	ips := n.known[a.Host]
	if len(ips) == 0 {
		return nil, lookupError(n.failed[a.Host])
	}
	addrs := make([]listener.Addr, len(ips))
	for i, ip := range ips {
		addrs[i] = listener.Addr{TCP: netip.AddrPortFrom(ip, a.Port)}
	}
	return addrs, nil
}

// lookupError says what an operator can do about a failed lookup.
func lookupError(err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return errors.New("no such host: check the spelling, DNS or /etc/hosts")
	case errors.As(err, &dns) && dns.IsTimeout:
		return errors.New("the name server does not answer: check /etc/resolv.conf, or write the address")
	case err == nil:
		return errors.New("the name has no address")
	}
	return err
}
