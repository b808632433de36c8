package conf

import "cmp"

// users are the servers, by number, that relay to one upstream.
type users struct {
	smtp  int // with smtp on
	other int
}

// checks decides which groups are checked, once it is known who uses them, and
// fills in what depends on the rest of the group.
//
// A check that nobody wrote has no Position. It is turned on where the reader
// has left values for one, another server can take over, and SMTP is spoken.
func (v *validator) checks() {
	used := make(map[string]users, len(v.cfg.Upstreams))
	var anywhere users // those whose proxy_pass has variables
	for _, s := range v.cfg.Servers {
		if s.passesToAddress() {
			continue
		}
		by := used[s.ProxyPass]
		if s.ProxyPassText != "" {
			by = anywhere
		}
		if s.SMTP.On {
			by.smtp++
		} else {
			by.other++
		}
		if s.ProxyPassText != "" {
			anywhere = by
			continue
		}
		used[s.ProxyPass] = by
	}
	for i := range v.cfg.Upstreams {
		u := &v.cfg.Upstreams[i]
		c, by := &u.Check, used[u.Name]
		if !u.Implicit {
			by.smtp, by.other = by.smtp+anywhere.smtp, by.other+anywhere.other
		}
		if c.Position == (Position{}) {
			c.Position = u.Position
			c.On = c.Interval > 0 && len(u.Servers) > 1 && by.smtp > 0 && by.other == 0
		}
		if !c.On {
			*c = Check{Position: c.Position}
			continue
		}
		if c.Type == "" {
			c.Type = "smtp"
			if by.other > 0 {
				c.Type = "tcp"
			}
		}
		c.DownInterval = cmp.Or(c.DownInterval, 3*c.Interval)
		v.checkPort(u)
		if c.Type == "smtp" {
			v.checkSMTP(u)
		} else {
			v.checkTCP(c)
		}
	}
}

// checkPort refuses a port for what has none.
func (v *validator) checkPort(u *Upstream) {
	if u.Check.Port == 0 {
		return
	}
	for _, s := range u.Servers {
		if s.Address.Path != "" {
			v.problem(u.Check.Position, "check: port is for TCP; %s of upstream %q has none", s.Address.Text, u.Name)
			return
		}
	}
}

// checkSMTP completes how the probe of a mail server opens its connection.
func (v *validator) checkSMTP(u *Upstream) {
	c := &u.Check
	c.ProxyProtocol = cmp.Or(c.ProxyProtocol, u.ProxyProtocol, "off")
	if c.TLS == "" {
		wrapped := 0
		for _, s := range u.Servers {
			if cmp.Or(c.Port, s.Address.Port) == smtpsPort {
				wrapped++
			}
		}
		c.TLS = "off"
		switch {
		case wrapped == 0:
		case wrapped == len(u.Servers):
			c.TLS = "on"
		default:
			v.problem(c.Position, "check: upstream %q has servers at port 465, where TLS begins at once, and at others; "+
				"set tls in check, or check = false", u.Name)
		}
	}
	if c.TLS == "starttls" && c.Verb == "helo" {
		v.problem(c.Position, `check: tls = "starttls" needs verb "ehlo" or "lhlo"; after HELO a server offers no STARTTLS`)
	}
}

// checkTCP refuses what a probe that only connects has no use for.
func (v *validator) checkTCP(c *Check) {
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"proxy_protocol", cmp.Or(c.ProxyProtocol, "off") != "off"},
		{"tls", cmp.Or(c.TLS, "off") != "off"},
		{"helo", c.Helo != ""},
		{"verb", cmp.Or(c.Verb, "ehlo") != "ehlo"},
		{"mail_from", c.MailFrom != ""},
		{"rcpt_to", c.RcptTo != ""},
	} {
		if k.set {
			v.problem(c.Position, `check: %s is for type "smtp"; a check of type "tcp" only connects`, k.name)
		}
	}
	c.ProxyProtocol, c.TLS = "off", "off"
}
