package stream

import "net/netip"

// AccessRule allows or denies clients. Of a route's rules the first that
// matches a client holds, and a client that none matches is allowed, as in
// nginx's ngx_stream_access_module.
type AccessRule struct {
	Deny   bool
	Prefix netip.Prefix // the clients it is about; one of IPv4-mapped addresses has none
	Unix   bool         // it is about the clients of unix sockets, in place of Prefix
	All    bool         // it is about every client, in place of Prefix
}

// matches reports whether the rule is about a client, whose address is invalid
// if it came through a unix socket.
func (a *AccessRule) matches(client netip.Addr) bool {
	switch {
	case a.All:
		return true
	case !client.IsValid():
		return a.Unix
	}
	return a.Prefix.Contains(client.Unmap().WithZone("")) // no prefix has a zone
}

// denies reports whether a client may not use the route.
func (r *Route) denies(client netip.Addr) bool {
	for i := range r.Access {
		if r.Access[i].matches(client) {
			return r.Access[i].Deny
		}
	}
	return false
}
