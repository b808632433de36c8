package conf

import (
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

// pairs reads the block of d. A line that is a word alone goes to word, which
// tells whether it knows it; kind is what nginx calls the block.
func (r *ngxReader) pairs(d nginx.Directive, kind string, word func(nginx.Directive) (bool, error)) (list []Entry) {
	for _, line := range d.Block {
		known, err := false, error(nil)
		if len(line.Args) == 0 && !line.HasBlock && word != nil {
			known, err = word(line)
		}
		switch {
		case err != nil || known:
		case line.HasBlock:
			err = errors.New(`unexpected "{"`)
		case len(line.Args) != 1:
			err = fmt.Errorf("invalid number of the %s parameters", kind)
		default:
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
	if err := errors.Join(ngxTexts(m.Source), ngxVariable(m.Variable)); err != nil {
		return err
	}
	m.Entries = r.pairs(d, "map", func(line nginx.Directive) (bool, error) {
		m.Hostnames = m.Hostnames || line.Name == "hostnames"
		m.Volatile = m.Volatile || line.Name == "volatile"
		return line.Name == "hostnames" || line.Name == "volatile", nil
	})
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
	if g.Variable = d.Args[len(d.Args)-1]; ngxVariable(g.Variable) != nil {
		return ngxVariable(g.Variable)
	}
	// Once there is a network, it is too late for ranges.
	networks := len(d.Block) > 0 && len(d.Block[0].Args) > 0
	g.Entries = r.pairs(d, "geo", func(line nginx.Directive) (bool, error) {
		switch line.Name {
		case "ranges":
			if networks {
				return true, errors.New(`the "ranges" directive must be the first directive inside "geo" block`)
			}
			g.Ranges = true
		case "volatile":
			g.Volatile = true
		default:
			return false, nil
		}
		return true, nil
	})
	r.cfg.Geos = append(r.cfg.Geos, g)
	return nil
}

func (r *ngxReader) splitClients(_ *ngxBlock, d nginx.Directive) error {
	s := Split{Position: place(d), Source: d.Args[0], Variable: d.Args[1]}
	if err := errors.Join(ngxTexts(s.Source), ngxVariable(s.Variable)); err != nil {
		return err
	}
	s.Parts = r.pairs(d, "split_clients", nil)
	r.cfg.Splits = append(r.cfg.Splits, s)
	return nil
}

func (r *ngxReader) set(b *ngxBlock, d nginx.Directive) error {
	set := Set{place(d), d.Args[0], d.Args[1]}
	if err := errors.Join(ngxVariable(set.Variable), ngxTexts(set.Value)); err != nil {
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
