package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"smtplb/conf/nginx"
)

// Limits of sessions in an nginx.conf. A zone may be defined below its use.

// limitConnZone is ngx_stream_limit_conn_zone, and what it uses of
// ngx_shared_memory_add.
func (r *ngxReader) limitConnZone(_ *ngxBlock, d nginx.Directive) error {
	z := LimitZone{Position: place(d), Key: d.Args[0]}
	word := d.Args[1]
	value, ok := strings.CutPrefix(word, "zone=")
	if !ok {
		return invalidParameter(word)
	}
	name, bytes, ok := strings.Cut(value, ":")
	size, err := parseSize(bytes)
	switch {
	case !ok || err != nil:
		return fmt.Errorf(`invalid zone size "%s"`, word)
	case size < minZone:
		return fmt.Errorf(`zone "%s" is too small`, word)
	case name == "":
		return errors.New(`"limit_conn_zone" must have "zone" parameter`)
	}
	if err := ngxTexts(z.Key); err != nil {
		return err
	}
	if z.Name, err = str(literal("", name)); err != nil {
		return fmt.Errorf(`"limit_conn_zone" directive: %w`, err)
	}
	z.Size = int(min(size, maxZone))
	if i := slices.IndexFunc(r.cfg.LimitZones, func(other LimitZone) bool { return other.Name == name }); i >= 0 {
		first := r.cfg.LimitZones[i]
		if first.Size != z.Size {
			return fmt.Errorf(`the size %d of shared memory zone "%s" conflicts with already declared size %d`, size, name, first.Size)
		}
		return fmt.Errorf(`limit_conn_zone "%s" is already bound to key "%s"`, name, first.Key)
	}
	if len(r.cfg.LimitZones) == maxZones {
		return errTooManyZones
	}
	r.cfg.LimitZones = append(r.cfg.LimitZones, z)
	return nil
}

// limitConn is ngx_stream_limit_conn.
func (r *ngxReader) limitConn(b *ngxBlock, d nginx.Directive) error {
	zone, err := ngxWord(d)
	if err != nil {
		return err
	}
	if err := ngxTexts(zone); err != nil {
		return err
	}
	r.limited = append(r.limited, zone)
	if slices.ContainsFunc(b.limits, func(l Limit) bool { return l.Zone == zone }) {
		return errors.New(`"limit_conn" directive is duplicate`)
	}
	n, ok := atoi(d.Args[1], math.MaxInt64)
	switch {
	case !ok || n == 0:
		return fmt.Errorf(`invalid number of connections "%s"`, d.Args[1])
	case n > maxLimit:
		return errors.New("connection limit must be less 65536")
	case len(b.limits) == maxLimits:
		return errTooManyLimits
	}
	b.limits = append(b.limits, Limit{place(d), zone, int(n)})
	return nil
}

// limitZones finds limits whose zone is nowhere defined, of which nginx does not
// know the place either.
func (r *ngxReader) limitZones() {
	known := make(map[string]bool, len(r.cfg.LimitZones))
	for _, z := range r.cfg.LimitZones {
		known[z.Name] = true
	}
	for _, zone := range r.limited {
		if !known[zone] {
			known[zone] = true
			r.problem(Position{}, `zero size shared memory zone "%s"`, zone)
		}
	}
}
