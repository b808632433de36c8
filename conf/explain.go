package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Explain writes what c comes to: the whole of it as TOML, and behind that, in
// comments, its warnings and what nginx, or nginx_tcp_proxy_module where there
// are checks, would do otherwise with the same settings.
func Explain(c *Config) []byte {
	text := AppendTOML(nil, c)
	text = comment(text, "Warnings:", c.Warnings)
	return comment(text, "Other than in nginx:", differences(c))
}

func comment(text []byte, title string, lines []string) []byte {
	if len(lines) == 0 {
		return text
	}
	text = fmt.Appendf(text, "\n# %s\n", title)
	for _, line := range lines {
		text = fmt.Appendf(text, "# - %s\n", printable(line)) // a file's name may have a line feed
	}
	return text
}

// differences tells in which respects that matter for c smtplb is not nginx, one
// a line.
func differences(c *Config) []string {
	lines := []string{
		"A reload keeps sessions and what is known of servers; there is one process, whose event loops share all counts.",
	}
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, u := range c.Upstreams {
		if !u.Check.On {
			continue
		}
		if !u.Check.DefaultDown {
			say("Upstream %q: servers are in until probes have failed, not out until probes have been good.", u.Name)
		}
		if u.Check.Type == "smtp" {
			say("Upstream %q: a probe waits for the greeting, reads whole replies, and ends with QUIT.", u.Name)
		}
		say("Upstream %q: failures of sessions take a server out only if a probe confirms them.", u.Name)
	}
	for _, s := range c.Servers {
		where := listenTexts(s.Listen)
		if s.SMTP.On {
			say("At %s: a client sees no server before that has greeted with 2xx; the next is tried instead, "+
				"and when there is none the client gets 421.", where)
			if s.NextUpstreamTimeout > 0 {
				say("At %s: proxy_next_upstream_timeout ends a running try, too.", where)
			}
		}
		if len(s.RealIPFrom) > 0 {
			say("At %s: a PROXY protocol header is expected from the addresses of set_real_ip_from only.", where)
		}
		if len(s.Access) > 0 && s.SMTP.On {
			say("At %s: a client that is denied gets 554.", where)
		}
		if len(s.Limits) > 0 && s.SMTP.On && !s.LimitDryRun {
			say("At %s: a client above a limit gets 421.", where)
		}
		if s.Pass != nil {
			say("At %s: a PROXY header to a server names where the client has connected to, also after pass.", where)
		}
	}
	for _, m := range c.Maps {
		if slices.ContainsFunc(m.Entries, func(e Entry) bool { return strings.HasPrefix(e.Key, "~") }) {
			say("Variable %s: regular expressions are those of Go, not of PCRE.", m.Variable)
		}
	}
	if slices.ContainsFunc(c.Servers, func(s Server) bool { return len(s.AccessLogs) > 0 }) {
		say("No session waits for an access log: records that it does not take in time are lost, and counted.")
	}
	return lines
}

// listenTexts names a server by the first few of its addresses.
func listenTexts(ls []Listen) string {
	const most = 3
	var texts []string
	for _, l := range ls[:min(len(ls), most)] {
		texts = append(texts, l.Address.Text)
	}
	if len(ls) > most {
		texts = append(texts, "…")
	}
	return strings.Join(texts, ", ")
}
