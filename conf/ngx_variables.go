package conf

import (
	"cmp"
	"errors"
	"fmt"

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

// ngxVariable is the name of a variable to be defined.
func ngxVariable(name string) error {
	if _, err := str(literal("", name)); err != nil || name == "$" || name[0] != '$' {
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

// returnText and a proxy_pass to a text take the place of each other: the last
// one is what a server does, as in nginx.
func (r *ngxReader) returnText(b *ngxBlock, d nginx.Directive) error {
	if err := ngxTexts(d.Args[0]); err != nil {
		return err
	}
	b.set(func(s *ngxServer) {
		if s.ProxyPassPosition != (Position{}) {
			r.replaced(d, "proxy_pass", s.ProxyPassPosition)
		}
		s.Return = &Text{place(d), d.Args[0]}
		s.passes, s.ProxyPassText, s.ProxyPassPosition = nil, "", Position{}
	})
	return nil
}

func (r *ngxReader) passToText(b *ngxBlock, d nginx.Directive) error {
	text := d.Args[0]
	if err := ngxTexts(text); err != nil {
		return err
	}
	b.set(func(s *ngxServer) {
		r.passInstead(s, d)
		s.ProxyPassText, s.ProxyPassPosition = text, place(d)
	})
	return nil
}

// passInstead takes back a return above proxy_pass.
func (r *ngxReader) passInstead(s *ngxServer, d nginx.Directive) {
	if s.Return != nil {
		r.replaced(d, "return", s.Return.Position)
	}
	s.Return = nil
}

func (r *ngxReader) replaced(by nginx.Directive, name string, at Position) {
	r.warn(place(by), `"%s" takes the place of the %s in %s`, by.Name, name, at)
}
