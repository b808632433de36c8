package conf

import (
	"errors"
	"fmt"

	"smtplb/conf/nginx"
)

// method sets how the upstream of a block picks its servers. A second one takes
// the place of the first, as in nginx, which warns.
func (r *ngxReader) method(b *ngxBlock, d nginx.Directive, m Method) {
	if b.upstream.Method.Position != (Position{}) {
		r.warn(place(d), "load balancing method redefined")
	}
	m.Position = place(d)
	b.upstream.Method = m
}

func (r *ngxReader) leastConn(b *ngxBlock, d nginx.Directive) error {
	r.method(b, d, Method{Type: "least_conn"})
	return nil
}

// leastLoad is ours: least_conn by what agents make of the weights.
func (r *ngxReader) leastLoad(b *ngxBlock, d nginx.Directive) error {
	r.method(b, d, Method{Type: "least_load"})
	return nil
}

// hash is by the value of a text.
func (r *ngxReader) hash(b *ngxBlock, d nginx.Directive) error {
	if len(d.Args) == 2 && d.Args[1] != "consistent" {
		return invalidParameter(d.Args[1])
	}
	switch d.Args[0] {
	case clientKey: // a constant to nginx, but in TOML it cannot be said
		return fmt.Errorf(`"hash %s" would be the same for all clients; write "hash $remote_addr"`, clientKey)
	case "": // round robin by another name
		r.warn(place(d), `"hash" by an empty text is round robin`)
		r.method(b, d, Method{Type: "round_robin"})
		return nil
	}
	key, err := ngxText(hashKey)(d)
	if err != nil {
		return err
	}
	r.method(b, d, Method{Type: "hash", Key: key, Consistent: len(d.Args) == 2})
	return nil
}

func (r *ngxReader) random(b *ngxBlock, d nginx.Directive) error {
	m := Method{Type: "random"}
	if len(d.Args) > 0 {
		if m.Two = d.Args[0] == "two"; !m.Two {
			return invalidParameter(d.Args[0])
		}
	}
	if len(d.Args) == 2 && d.Args[1] != "least_conn" {
		return invalidParameter(d.Args[1])
	}
	r.method(b, d, m)
	return nil
}

// leastTime is nginx's since 1.31.0.
func (r *ngxReader) leastTime(b *ngxBlock, d nginx.Directive) error {
	m := Method{Type: "least_time", Of: d.Args[0], Inflight: len(d.Args) == 2}
	switch m.Of {
	case "connect", "first_byte", "last_byte":
	default:
		return invalidParameter(m.Of)
	}
	if m.Inflight && d.Args[1] != "inflight" {
		return invalidParameter(d.Args[1])
	}
	r.method(b, d, m)
	return nil
}

// errNoBackups is for a backup below a method that refuses them; above it nginx
// does not notice, and takes it for what it says (ngx_stream_upstream_server).
var errNoBackups = errors.New(`balancing method does not support parameter "backup"`)

func (m *Method) refusesBackups() bool { return m.Type == "hash" || m.Type == "random" }
