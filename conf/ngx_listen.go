package conf

import (
	"errors"
	"fmt"
	"strings"

	"smtplb/conf/nginx"
)

// nginxBacklog is NGX_LISTEN_BACKLOG.
const nginxBacklog = 511

// listen reads a listen directive, as ngx_stream_core_listen does.
func (r *ngxReader) listen(b *ngxBlock, d nginx.Directive) error {
	b.seen["listen"] = true
	u, err := parseURL(d.Args[0], true)
	if err == nil && u.noPort {
		// nginx would look up a name first, and listen at any port of an address.
		err = errors.New("no port")
		if _, isIP := bindIP(Listen{Address: u.Address}); !isIP {
			err = errHostNotFound
		}
	}
	if err != nil {
		return fmt.Errorf(`%w in "%s" of the "listen" directive`, err, d.Args[0])
	}
	l := Listen{Position: place(d), Backlog: nginxBacklog, IPv6Only: true}
	for _, word := range d.Args[1:] {
		if err := listenParameter(&l, word); err != nil {
			return err
		}
	}
	// Counted before a range is spread, since a few of those make millions.
	if r.ports += u.size(); r.ports > maxListens {
		return fmt.Errorf("too many addresses to listen on; a configuration has at most %d", maxListens)
	}
	for _, a := range u.spread() {
		k := keyOf(a)
		if r.listening[k] {
			return fmt.Errorf(`duplicate "%s" address and port pair`, k)
		}
		r.listening[k] = true
		l.Address = a
		b.listen = append(b.listen, l)
	}
	return nil
}

func listenParameter(l *Listen, word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	if hasValue {
		name += "="
	}
	l.given = append(l.given, strings.TrimSuffix(name, "="))
	switch name {
	case "bind", "default_server", "default":
		return nil // every address is bound, and has one server
	case "backlog=":
		n, ok := atoi(value, 1<<30)
		if !ok || n == 0 {
			return fmt.Errorf(`invalid backlog "%s"`, word)
		}
		l.Backlog = int(n)
	case "rcvbuf=", "sndbuf=":
		n, err := parseSize(value)
		if err != nil {
			return fmt.Errorf(`invalid %s "%s"`, strings.TrimSuffix(name, "="), word)
		}
		to := &l.RcvBuf
		if name == "sndbuf=" {
			to = &l.SndBuf
		}
		*to = int(min(max(n, 1), maxSocketBuffer)) // of 0 the kernel makes its least, too
	case "fastopen=":
		n, ok := atoi(value, 1<<31-1)
		if !ok {
			return fmt.Errorf(`invalid fastopen "%s"`, word)
		}
		l.FastOpen = int(min(n, 1<<30))
	case "ipv6only=":
		if value != "on" && value != "off" {
			return fmt.Errorf(`invalid ipv6only flags "%s"`, value)
		}
		l.IPv6Only = value == "on"
	case "reuseport":
		l.ReusePort = true
	case "proxy_protocol":
		l.ProxyProtocol = true
	case "so_keepalive=":
		switch value {
		case "on":
			l.Keepalive = Keepalive{On: true}
		case "off":
			l.Keepalive = Keepalive{}
		default:
			k, err := parseKeepalive(value)
			if err != nil {
				return fmt.Errorf(`invalid so_keepalive value: "%s"`, value)
			}
			l.Keepalive = k
		}
	case "deferred":
		return errors.New(`"deferred" in "listen" is refused: it waits for the client to speak, ` +
			`but in SMTP the server speaks first, so that no session would ever begin`)
	case "udp", "ssl", "multipath":
		return fmt.Errorf(`"%s" in "listen" is not supported by this version`, word)
	default:
		return fmt.Errorf(`the invalid "%s" parameter`, word)
	}
	return nil
}
