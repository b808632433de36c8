package conf

import (
	"errors"
	"net/netip"
	"strings"
	"time"
)

// The setters of directives that are more than one value for one field.

// include queues the files that the patterns of n stand for.
func (r *reader) include(_ *Config, n *node) {
	for _, n := range n.elements() {
		pattern, err := str(n)
		if err != nil {
			r.problem(n.at, "include: %v", err)
			continue
		}
		if r.current.depth == maxInclude {
			r.reject(n.at, "include %s: nested too deep; files may include each other %d deep", pattern, maxInclude)
			continue
		}
		paths, err := expand(r.current.path, pattern)
		if err != nil {
			r.reject(n.at, "include %s: %v", pattern, err)
		}
		for _, path := range paths {
			r.pending = append(r.pending, source{path: path, depth: r.current.depth + 1, at: n.at, via: r.current.via})
		}
		if len(r.pending) > maxFiles {
			r.reject(n.at, "include %s: too many files; a configuration has at most %d", pattern, maxFiles)
			r.pending = nil
		}
	}
}

func (r *reader) pid(c *Config, n *node) {
	slot(str, func(c *Config) *string { return &c.Pid })(r, c, n)
	c.PidPosition = n.at
}

// user is a name, or a name and a group's: "smtplb", "smtplb:mail".
func (r *reader) user(c *Config, n *node) {
	name, err := str(n)
	user, group, grouped := strings.Cut(name, ":")
	if err == nil && (user == "" || grouped && group == "") {
		err = want(`a user, or a user and a group as in "smtplb:mail"`, n)
	}
	if err != nil {
		r.problem(n.at, "user: %v", err)
		return
	}
	c.User, c.Group = user, group
}

func (r *reader) env(c *Config, n *node) {
	for _, n := range n.elements() {
		entry, err := str(n)
		if err == nil && entry[0] == '=' {
			err = want(`"NAME" or "NAME=value"`, n)
		}
		if err != nil {
			r.problem(n.at, "env: %v", err)
			continue
		}
		c.Env = append(c.Env, entry)
	}
}

func (r *reader) upstreams(c *Config, n *node) {
	for _, n := range n.elements() {
		u := Upstream{Position: n.at}
		checkTable.read(r, &u.Check, &node{kind: table}) // for validate, which may turn it on
		upstreamTable.read(r, &u, n)
		c.Upstreams = append(c.Upstreams, u)
	}
}

func (r *reader) upstreamName(u *Upstream, n *node) {
	name, err := str(n)
	if err != nil {
		r.problem(n.at, "name: %v", err)
	}
	u.Name, u.Position = name, n.at
}

func (r *reader) upstreamServers(u *Upstream, n *node) {
	for _, n := range n.elements() {
		s := UpstreamServer{Position: n.at}
		upstreamServerTable.read(r, &s, n.asTable("address"))
		u.Servers = append(u.Servers, s)
	}
}

// method reads how a server is picked; a word alone is the type.
func (r *reader) method(u *Upstream, n *node) {
	u.Method = Method{Position: n.at}
	methodTable.read(r, &u.Method, n.asTable("type"))
}

// check reads how servers are probed; a word alone is the type, true stands for
// the defaults.
func (r *reader) check(u *Upstream, n *node) {
	u.Check.Position = n.at
	switch n.value {
	case false:
		return
	case true:
		n = &node{name: n.name, nameAt: n.nameAt, at: n.at, kind: table}
	}
	n = n.asTable("type")
	checkTable.read(r, &u.Check, n)
	u.Check.On = true
	if from := n.kid("mail_from"); from != nil && n.kid("rcpt_to") == nil {
		r.problem(from.nameAt, "mail_from needs rcpt_to: without a recipient no sender is named")
	}
}

// queue reads who may wait; a number alone is the size.
func (r *reader) queue(u *Upstream, n *node) {
	u.Queue.Position = n.at
	queueTable.read(r, &u.Queue, n.asTable("size"))
}

func (r *reader) servers(c *Config, n *node) {
	for _, n := range n.elements() {
		s := Server{Position: n.at}
		serverTable.read(r, &s, n)
		c.Servers = append(c.Servers, s)
	}
}

func (r *reader) proxyPass(s *Server, n *node) {
	to, err := str(n)
	if err != nil {
		r.problem(n.at, "proxy_pass: %v", err)
	}
	s.ProxyPassPosition = n.at
	if strings.Contains(to, "$") {
		s.ProxyPassText = to
	} else {
		s.ProxyPass = to
	}
}

func (r *reader) returnText(s *Server, n *node) {
	text, err := anyText(n)
	if err != nil {
		r.problem(n.at, "return: %v", err)
	}
	s.Return = &Text{n.at, text}
}

// pass reads a listening address to pass clients to. One with variables is known
// in sessions only.
func (r *reader) pass(s *Server, n *node) {
	text, err := str(n)
	s.Pass = &Pass{Position: n.at}
	if strings.Contains(text, "$") {
		s.Pass.Text = text
	} else if err == nil {
		s.Pass.Address, err = parsePassed(text)
	}
	if err != nil {
		r.problem(n.at, "pass: %v", err)
	}
}

// A server may take ten minutes to answer the end of a message (RFC 5321
// section 4.5.3.2.6); who is cut off before sends the message again.
const (
	patientTimeout = 10 * time.Minute
	impatient      = "proxy_timeout below 600s cuts off servers that are slow to take a message, " +
		"which then arrives twice (RFC 5321 section 4.5.3.2.6)"
)

func (r *reader) proxyTimeout(s *Server, n *node) {
	slot(msec(1), func(s *Server) *time.Duration { return &s.Timeout })(r, s, n)
	if s.Timeout < patientTimeout {
		r.warn(n.at, impatient)
	}
}

// listenLine is what one value of listen says: an address at several ports.
type listenLine struct {
	Listen
	ports portRange
}

func (r *reader) listens(s *Server, n *node) {
	if len(n.elements()) == 0 {
		r.problem(n.at, "listen: want at least one address")
	}
	for _, n := range n.elements() {
		line := listenLine{Listen: Listen{Position: n.at}}
		n = n.asTable("address")
		listenTable.read(r, &line, n)
		for _, kid := range n.kids {
			line.given = append(line.given, kid.name)
		}
		// Counted before a range is spread, since a few of those make millions.
		if r.listening += line.ports.size(); r.listening > maxListens {
			r.problem(n.at, "listen: too many addresses; a configuration has at most %d", maxListens)
			return
		}
		for _, a := range line.ports.spread() {
			l := line.Listen
			l.Address = a
			s.Listen = append(s.Listen, l)
		}
	}
}

// bindLine is what a value of proxy_bind says.
type bindLine struct {
	bind        *Bind // nil: off
	transparent bool
}

func (r *reader) proxyBind(s *Server, n *node) {
	var line bindLine
	proxyBindTable.read(r, &line, n.asTable("address"))
	if s.Bind = line.bind; s.Bind == nil {
		return
	}
	s.Bind.Position = n.at
	s.Bind.Transparent = s.Bind.Transparent || line.transparent
	s.Bind.settle()
}

// smtpReplies reads the texts of our own replies; a text alone is that of the
// most frequent one.
func (r *reader) smtpReplies(s *Server, n *node) {
	smtpRepliesTable.read(r, &s.SMTP.Replies, n.asTable("unavailable"))
}

// realIPFrom reads the addresses and networks of trusted proxies.
func (r *reader) realIPFrom(s *Server, n *node) {
	for _, n := range n.elements() {
		text, err := str(n)
		if err != nil {
			r.problem(n.at, "set_real_ip_from: %v", err)
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			r.problem(n.at, "set_real_ip_from: %q: %v", text, err)
			continue
		}
		s.RealIPFrom = append(s.RealIPFrom, prefix)
	}
}

// access reads who may be a client: "allow" or "deny" and whom.
func (r *reader) access(s *Server, n *node) {
	for _, n := range n.elements() {
		text, err := str(n)
		verb, whom, _ := strings.Cut(text, " ")
		if err != nil || verb != "allow" && verb != "deny" {
			r.problem(n.at, "access: %v", want(`a rule such as "allow 192.0.2.0/24" or "deny all"`, n))
			continue
		}
		rule := AccessRule{Deny: verb == "deny", All: whom == "all", Unix: whom == "unix:"}
		if !rule.All && !rule.Unix {
			if rule.Prefix, err = parsePrefix(whom); err != nil {
				r.problem(n.at, `access: %q: %v, or "all" or "unix:"`, text, err)
				continue
			}
		}
		s.Access = append(s.Access, rule)
	}
}

// parsePrefix reads "192.0.2.1", "192.0.2.0/24" or the same of IPv6.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return p, errors.New(`want an address or a network whose host bits are zero, such as "192.0.2.0/24"`)
		}
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, errors.New(`want an address or a network, such as "192.0.2.0/24"`)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
