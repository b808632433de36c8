package conf

import (
	"fmt"
	"strings"
	"time"

	"smtplb/conf/nginx"
)

// What holds for an agent about which only the port is said.
const (
	agentInterval = 2 * time.Second
	agentTimeout  = time.Second
)

// agent reads where the agents of the servers are.
func (r *reader) agent(u *Upstream, n *node) {
	u.Agent = Agent{Position: n.at, On: true}
	agentTable.read(r, &u.Agent, n)
}

// agent reads the same in an nginx.conf, where numbers are milliseconds without a
// unit, as those of check.
func (r *ngxReader) agent(b *ngxBlock, d nginx.Directive) error {
	a := &b.upstream.Agent
	*a = Agent{Position: place(d), On: true, Interval: agentInterval, Timeout: agentTimeout}
	for _, word := range d.Args {
		if !agentParameter(a, word) {
			return invalidParameter(word)
		}
	}
	if a.Port == 0 {
		return fmt.Errorf(`"agent" directive needs a port, as in "agent port=9000;"`)
	}
	return nil
}

func agentParameter(a *Agent, word string) bool {
	name, value, _ := strings.Cut(word, "=")
	duration := func(to *time.Duration, least time.Duration) bool {
		ms, ok := atoi(value, 1<<30)
		*to = time.Duration(ms) * time.Millisecond
		return ok && *to >= least
	}
	var err error
	switch name {
	case "port":
		a.Port, err = parsePort(value)
	case "interval":
		return duration(&a.Interval, 100*time.Millisecond)
	case "timeout":
		return duration(&a.Timeout, 10*time.Millisecond)
	case "send":
		a.Send, err = replyText(literal(name, value))
	default:
		return false
	}
	return err == nil
}

// agents refuses agents of servers that have no ports.
func (v *validator) agents() {
	for _, u := range v.cfg.Upstreams {
		if !u.Agent.On {
			continue
		}
		for _, s := range u.Servers {
			if s.Address.Path != "" {
				v.problem(u.Agent.Position, "agent: it is asked over TCP; %s of upstream %q has no address for that", s.Address.Text, u.Name)
				break
			}
		}
	}
}
