package conf

import (
	"strconv"
	"strings"
)

// variables writes what the texts of servers refer to.
func (p *printer) variables(c *Config) {
	for _, f := range c.LogFormats {
		p.line("\n[[log_format]]")
		p.key("name", quoted(f.Name))
		p.key("escape", quoted(f.Escape))
		switch len(f.Texts) {
		case 0: // escape= and nothing else, in an nginx.conf
			p.key("format", "[]")
		case 1:
			p.key("format", quoted(f.Texts[0]))
		default:
			p.list("format", f.Texts, quoted)
		}
	}
	for _, m := range c.Maps {
		p.line("\n[[map]]")
		p.key("source", quoted(m.Source))
		p.key("variable", definedText(m.Variable))
		p.key("hostnames", strconv.FormatBool(m.Hostnames))
		p.key("volatile", strconv.FormatBool(m.Volatile))
		p.pairs("entries", m.Entries)
	}
	for _, g := range c.Geos {
		p.line("\n[[geo]]")
		p.text("source", g.Source)
		p.key("variable", definedText(g.Variable))
		p.key("ranges", strconv.FormatBool(g.Ranges))
		p.key("volatile", strconv.FormatBool(g.Volatile))
		p.pairs("entries", g.Entries)
	}
	for _, s := range c.Splits {
		p.line("\n[[split_clients]]")
		p.key("source", quoted(s.Source))
		p.key("variable", definedText(s.Variable))
		p.pairs("parts", s.Parts)
	}
	for _, z := range c.LimitZones {
		p.line("\n[[limit_conn_zone]]")
		p.key("name", quoted(z.Name))
		p.key("key", quoted(z.Key))
		p.key("size", strconv.Itoa(z.Size))
	}
}

// pairs writes entries as pairs, since their keys may be longer than those of
// TOML and may repeat.
func (p *printer) pairs(name string, entries []Entry) {
	if len(entries) == 0 {
		p.line("%s = []", name)
		return
	}
	p.line("%s = [", name)
	for _, e := range entries {
		p.line("  %s,", pairText(e.Key, e.Value))
	}
	p.line("]")
}

func pairText(key, value string) string { return "[" + quoted(key) + ", " + quoted(value) + "]" }

// definedText is the name of a variable where it is defined.
func definedText(name string) string { return quoted(strings.TrimPrefix(name, "$")) }

func accessLogText(l *AccessLog) string {
	pairs := []string{pair("path", quoted(l.Path)), pair("format", quoted(l.Format))}
	if l.Buffer > 0 {
		pairs = append(pairs, pair("buffer", strconv.Itoa(l.Buffer)))
	}
	if l.Flush > 0 {
		pairs = append(pairs, pair("flush", timeText(l.Flush)))
	}
	if l.Gzip > 0 {
		pairs = append(pairs, pair("gzip", strconv.Itoa(l.Gzip)))
	}
	if l.If != "" {
		pairs = append(pairs, pair("if", quoted(l.If)))
	}
	return inline(pairs...)
}
