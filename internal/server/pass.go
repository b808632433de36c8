package server

import (
	"fmt"

	"smtplb/conf"
	"smtplb/internal/stream"
	"smtplb/listener"
)

// passOf is where a server passes to, as far as that needs no evaluation; nil: to
// no port.
func (p *plan) passOf(c *conf.Pass) *stream.Pass {
	if c == nil {
		return nil
	}
	pass := &stream.Pass{Targets: p.targets}
	if c.Constant() {
		pass.Addr, _ = literal(c.Address)
	}
	return pass
}

// checkPasses warns of ports whose sessions can only fail, since they are always
// passed to where nobody listens, or too often. nginx takes that for no mistake:
// its user may want the other ports served.
func (p *plan) checkPasses(c *conf.Config) {
	leads := make(map[listener.Addr]*conf.Pass, len(p.ports)) // nil: to a server
	for _, port := range p.ports {
		leads[port.options.Addr] = port.pass
	}
	next := func(pass *conf.Pass) (*conf.Pass, bool) {
		addr, _ := literal(pass.Address)
		if further, found := leads[addr]; found {
			return further, true
		}
		further, found := leads[addr.Wildcard()]
		return further, found
	}
	told := make(map[*conf.Pass]bool) // which several ports may have
	warn := func(pass *conf.Pass, format string, args ...any) {
		if !told[pass] {
			told[pass] = true
			c.Warnings = append(c.Warnings, conf.ParseError{Position: pass.Position, Message: fmt.Sprintf(format, args...)}.Error())
		}
	}
	for _, port := range p.ports {
		if !port.pass.Constant() {
			continue
		}
		if _, found := next(port.pass); !found {
			warn(port.pass, "pass: no server listens on %s; sessions that are passed there fail", port.pass.Address.Text)
			continue
		}
		times := 0
		for pass, found := port.pass, true; found && pass.Constant() && times <= stream.MaxPasses; times++ {
			pass, found = next(pass)
		}
		if times > stream.MaxPasses {
			warn(port.pass, "pass: sessions are passed on from here more than %d times, or in a circle, and fail", stream.MaxPasses)
		}
	}
}
