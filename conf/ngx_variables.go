package conf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"smtplb/conf/nginx"
)

// Variables of an nginx.conf, and the blocks that define them. The lines of such
// a block are not directives, but pairs and a few words.

// errNotUTF8 is ours: a Config holds text.
var errNotUTF8 = errors.New("not in UTF-8")

// ngxTexts are texts with variables, whose values are known in sessions only.
func ngxTexts(words ...string) error {
	for _, word := range words {
		if _, err := anyText(literal("", word)); err != nil {
			return fmt.Errorf(`"%s": %w`, word, errNotUTF8)
		}
	}
	return nil
}

// ngxVariable is the name of a variable to be defined. A second dollar is ours to
// refuse: no text could use that name, and TOML has no way to write it.
func ngxVariable(name string) error {
	if _, err := str(literal("", name)); err != nil || name == "$" || name[0] != '$' || name[1] == '$' {
		return fmt.Errorf(`invalid variable name "%s"`, name)
	}
	return ngxTexts(name)
}

// ngxFlags are the words that may stand alone in a block.
type ngxFlags map[string]*bool

// pairs reads the block of d, which nginx calls kind.
func (r *ngxReader) pairs(d nginx.Directive, kind string, flags ngxFlags) (list []Entry) {
	for _, line := range d.Block {
		var err error
		said := flags[line.Name]
		switch {
		case said != nil && len(line.Args) == 0 && !line.HasBlock:
			if line.Name == "ranges" && len(list) > 0 {
				err = errors.New(`the "ranges" directive must be the first directive inside "geo" block`)
			}
			*said = true
		case line.HasBlock:
			err = errors.New(`unexpected "{"`)
		case len(line.Args) == 0, len(line.Args) > 1 && kind != "split_clients": // where nginx does not look
			err = fmt.Errorf("invalid number of the %s parameters", kind)
		default:
			if len(line.Args) > 1 {
				r.warn(place(line), `"%s" has no effect: the value is "%s"`, line.Args[1], line.Args[0])
			}
			if err = ngxTexts(line.Name, line.Args[0]); err == nil {
				list = append(list, Entry{place(line), line.Name, line.Args[0]})
			}
		}
		if err != nil {
			r.problem(place(line), "%v", err)
		}
	}
	return list
}

func (r *ngxReader) mapBlock(_ *ngxBlock, d nginx.Directive) error {
	m := Map{Position: place(d), Source: d.Args[0], Variable: d.Args[1]}
	if err := cmp.Or(ngxTexts(m.Source), ngxVariable(m.Variable)); err != nil {
		return err
	}
	m.Entries = r.pairs(d, "map", ngxFlags{"hostnames": &m.Hostnames, "volatile": &m.Volatile})
	r.cfg.Maps = append(r.cfg.Maps, m)
	return nil
}

func (r *ngxReader) geoBlock(_ *ngxBlock, d nginx.Directive) error {
	g := Geo{Position: place(d)}
	if len(d.Args) == 2 {
		g.Source = d.Args[0]
		if err := ngxVariable(g.Source); err != nil {
			return err
		}
	}
	g.Variable = d.Args[len(d.Args)-1]
	if err := ngxVariable(g.Variable); err != nil {
		return err
	}
	g.Entries = r.pairs(d, "geo", ngxFlags{"ranges": &g.Ranges, "volatile": &g.Volatile})
	r.cfg.Geos = append(r.cfg.Geos, g)
	return nil
}

func (r *ngxReader) splitClients(_ *ngxBlock, d nginx.Directive) error {
	s := Split{Position: place(d), Source: d.Args[0], Variable: d.Args[1]}
	if err := cmp.Or(ngxTexts(s.Source), ngxVariable(s.Variable)); err != nil {
		return err
	}
	s.Parts = r.pairs(d, "split_clients", nil)
	r.cfg.Splits = append(r.cfg.Splits, s)
	return nil
}

func (r *ngxReader) set(b *ngxBlock, d nginx.Directive) error {
	set := Set{place(d), d.Args[0], d.Args[1]}
	if err := cmp.Or(ngxVariable(set.Variable), ngxTexts(set.Value)); err != nil {
		return err
	}
	b.set(func(s *ngxServer) { s.Sets = append(s.Sets, set) })
	return nil
}

func (r *ngxReader) returnText(b *ngxBlock, d nginx.Directive) error {
	if err := ngxTexts(d.Args[0]); err != nil {
		return err
	}
	b.set(func(s *ngxServer) {
		r.handles(s, d)
		s.Return = &Text{place(d), d.Args[0]}
	})
	return nil
}

func (r *ngxReader) passToText(b *ngxBlock, d nginx.Directive) error {
	text, err := ngxWord(d)
	if err != nil {
		return err
	}
	b.set(func(s *ngxServer) {
		r.handles(s, d)
		s.ProxyPassText, s.ProxyPassPosition = text, place(d)
	})
	return nil
}

// pass reads an address as ngx_stream_pass does: names are not looked up.
func (r *ngxReader) pass(b *ngxBlock, d nginx.Directive) error {
	pass := &Pass{Position: place(d)}
	if text := d.Args[0]; strings.Contains(text, "$") {
		if _, err := ngxWord(d); err != nil {
			return err
		}
		pass.Text = text
	} else {
		u, err := parseURL(text, false)
		switch _, ip := netip.ParseAddr(u.Host); {
		case err != nil && err != errHostNotFound:
			return fmt.Errorf(`%w in "%s" of the "pass" directive`, err, text)
		case u.Path == "" && (err != nil || ip != nil):
			return errors.New(`"pass" directive has no addresses`)
		case u.noPort:
			return errors.New(`"pass" directive has no port`)
		}
		pass.Address = u.Address
	}
	b.set(func(s *ngxServer) {
		r.handles(s, d)
		s.Pass = pass
	})
	return nil
}

// handles takes back what a directive above d has said that srv does. The last
// one is what a server does, as in nginx.
func (r *ngxReader) handles(srv *ngxServer, d nginx.Directive) {
	replaced := func(name string, at Position) {
		r.warn(place(d), `"%s" takes the place of the %s in %s`, d.Name, name, at)
	}
	switch {
	case srv.Return != nil:
		replaced("return", srv.Return.Position)
	case srv.Pass != nil:
		replaced("pass", srv.Pass.Position)
	case srv.ProxyPassPosition != (Position{}):
		replaced("proxy_pass", srv.ProxyPassPosition)
	}
	srv.Return, srv.Pass = nil, nil
	srv.passes, srv.ProxyPassText, srv.ProxyPassPosition = nil, "", Position{}
}
