package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"smtplb/conf/nginx"
)

// Limits of sessions in an nginx.conf, and their zones. A zone may be defined
// below its use.

// ngxZone is a shared memory zone of nginx, which has one use, and one size.
type ngxZone struct {
	name, use string
	size      int64 // 0: not said yet
}

// addZone is ngx_shared_memory_add.
func (r *ngxReader) addZone(name, use string, size int64) error {
	z := r.zones[name]
	if z == nil {
		z = &ngxZone{name: name, use: use}
		r.zones[name] = z
		r.zoneOrder = append(r.zoneOrder, z)
	}
	switch {
	case z.use != use:
		return fmt.Errorf(`the shared memory zone "%s" is already declared for a different use`, name)
	case z.size == 0:
		z.size = size
	case size != 0 && size != z.size:
		return fmt.Errorf(`the size %d of shared memory zone "%s" conflicts with already declared size %d`, size, name, z.size)
	}
	return nil
}

// upstreamZone is ngx_stream_upstream_zone. Its zone has nothing to hold here, but
// no limit may have its name.
func (r *ngxReader) upstreamZone(_ *ngxBlock, d nginx.Directive) error {
	name, size := d.Args[0], int64(0)
	if name == "" {
		return errors.New(`invalid zone name ""`)
	}
	if len(d.Args) > 1 {
		var err error
		if size, err = parseSize(d.Args[1]); err != nil {
			return fmt.Errorf(`invalid zone size "%s"`, d.Args[1])
		}
		if size < minZone {
			return fmt.Errorf(`zone "%s" is too small`, name)
		}
	}
	r.notice(d, d.Name, "one process shares everything")
	return r.addZone(name, d.Name, size)
}

// limitUse is what limits use a zone for.
const limitUse = "limit_conn"

// limitConnZone is ngx_stream_limit_conn_zone.
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
	if err := r.addZone(name, limitUse, size); err != nil {
		return err
	}
	if i := slices.IndexFunc(r.cfg.LimitZones, func(other LimitZone) bool { return other.Name == name }); i >= 0 {
		return fmt.Errorf(`limit_conn_zone "%s" is already bound to key "%s"`, name, r.cfg.LimitZones[i].Key)
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
	if err := r.addZone(zone, limitUse, 0); err != nil {
		return err
	}
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

// checkZones finds zones whose size is nowhere said, such as those of limits that
// are nowhere defined. nginx does not know the place either.
func (r *ngxReader) checkZones() {
	for _, z := range r.zoneOrder {
		if z.size == 0 {
			r.problem(Position{}, `zero size shared memory zone "%s"`, z.name)
		}
	}
}
