package listener

// Overlaps says whether the kernel would refuse to let o and p listen at the
// same time: one address twice, or a wildcard and an address it covers. The
// kernel's own error names one of them only, so a configuration is compared by
// this before anything is opened.
func (o Options) Overlaps(p Options) bool {
	if o.Addr.Path != "" || p.Addr.Path != "" {
		return o.Addr.Path == p.Addr.Path
	}
	if o.Addr.TCP.Port() != p.Addr.TCP.Port() || o.Addr.TCP.Port() == 0 {
		return false
	}
	if o.ReusePort && p.ReusePort {
		return false
	}
	return o.Addr.TCP.Addr() == p.Addr.TCP.Addr() || o.covers(p) || p.covers(o)
}

// covers says whether o is a wildcard that takes connections to p's address.
func (o Options) covers(p Options) bool {
	a, b := o.Addr.TCP.Addr(), p.Addr.TCP.Addr()
	return a.IsUnspecified() && (a.Is4() == b.Is4() || a.Is6() && !o.IPv6Only)
}
