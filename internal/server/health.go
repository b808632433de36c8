package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/healthcheck"
	"smtplb/upstream"
)

// Here the two who know of a server's health meet: package healthcheck, which
// asks the servers, and package upstream, which hears what sessions meet with.

// summaryPeriod is how often the log tells which servers are not up.
const summaryPeriod = time.Minute

// watcher takes what the probes of a peer find out to its group. By comparison
// it is the same over reloads, as the peer is.
type watcher struct {
	server *Server
	peer   *upstream.Peer
}

// Probed implements healthcheck.Reporter.
func (w watcher) Probed(r healthcheck.Result) (wanted time.Duration) {
	again := w.peer.Probed(upstream.Probe{Good: r.Good, Stale: r.Stale, State: probeStates[r.State], Why: r.Why}, w.server.engine.Seconds())
	return time.Duration(again) * time.Second
}

var probeStates = map[healthcheck.State]upstream.State{
	healthcheck.Up:   upstream.StateUp,
	healthcheck.Busy: upstream.StateBusy,
	healthcheck.Down: upstream.StateUnhealthy,
}

// changed logs a server's change. It is called with the group locked.
func (s *Server) changed(c upstream.Change) {
	log := s.logOf(c.Peer.Group())
	message, write := "server state", log.Warn
	switch c.To {
	case c.From:
		message, write = "server load", log.Debug // its agent may say another each time
	case upstream.StateUnavail:
		message = "upstream server temporarily disabled"
	case upstream.StateUp, upstream.StateSuspect, upstream.StateDrain, upstream.StateMaint:
		write = log.Info
	}
	write(message,
		zap.String("upstream", c.Peer.Group()),
		zap.String("peer", c.Peer.Name()),
		zap.String("from", string(c.From)),
		zap.String("to", string(c.To)),
		zap.String("why", c.Why))
}

// probe has a server probed now. It is called with the group locked.
func (s *Server) probe(p *upstream.Peer) { s.checker.ProbeNow(watcher{s, p}) }

// targets are the servers of the running configuration that are to be probed,
// and the agents that are to be asked. A server that the checker does not know
// yet begins in the state that its group gives it.
func (s *Server) targets(checks, agents map[string]checkPlan) (targets []healthcheck.Target) {
	for _, name := range s.order {
		check, checked := checks[name]
		agent, asked := agents[name]
		if !checked && !asked {
			continue
		}
		var log *zap.Logger
		if own := s.hear[name]; own != nil {
			log = own.Named("healthcheck")
		}
		for _, st := range s.groups[name].Snapshot(s.engine.Seconds()) {
			if st.State == upstream.StateDown || st.State == upstream.StateRemoved {
				continue
			}
			if checked {
				t := check.at(st)
				t.Logger, t.Reporter = log, watcher{s, st.Peer}
				switch st.Health {
				case upstream.StateUnhealthy:
					t.State = healthcheck.Down
				case upstream.StateBusy:
					t.State = healthcheck.Busy
				}
				targets = append(targets, t)
			}
			if asked {
				t := agent.at(st)
				t.Logger, t.Reporter = log, hearer{s, st.Peer}
				targets = append(targets, t)
			}
		}
	}
	return targets
}

// at is the target that a server of the upstream is.
func (p checkPlan) at(st upstream.Status) healthcheck.Target {
	t := p.target
	t.Name = st.Addr.String()
	t.Settings.Network, t.Settings.Address = probed(st.Addr, p.port)
	return t
}

// probed is where a server is probed: at the port given, or else its own.
func probed(a upstream.Addr, port uint16) (network, address string) {
	if a.Path != "" {
		return "unix", a.Path
	}
	return "tcp", netip.AddrPortFrom(a.TCP.Addr(), cmp.Or(port, a.TCP.Port())).String()
}

// checkPlan is what all targets of an upstream have in common, and the port to
// probe, or 0.
type checkPlan struct {
	target healthcheck.Target
	port   uint16
}

func checkOf(u conf.Upstream) checkPlan {
	c := u.Check
	helo := c.Helo
	if helo == "" {
		helo, _ = os.Hostname()
	}
	return checkPlan{port: c.Port, target: healthcheck.Target{
		Settings: healthcheck.Settings{
			SMTP:     c.Type == "smtp",
			Timeout:  c.Timeout,
			Header:   probeHeaders[c.ProxyProtocol],
			TLS:      probeTLS[c.TLS],
			Verb:     probeVerbs[c.Verb],
			Helo:     cmp.Or(helo, "localhost"),
			MailFrom: c.MailFrom,
			RcptTo:   c.RcptTo,
		},
		Upstream:     u.Name,
		CertWarning:  c.CertWarning,
		Interval:     c.Interval,
		DownInterval: c.DownInterval,
		Rise:         c.Rise,
		Fall:         c.Fall,
	}}
}

var (
	probeHeaders = map[string]healthcheck.HeaderVersion{"off": healthcheck.NoHeader, "v1": healthcheck.V1, "v2": healthcheck.V2}
	probeTLS     = map[string]healthcheck.TLS{"off": healthcheck.NoTLS, "on": healthcheck.ImplicitTLS, "starttls": healthcheck.StartTLS}
	probeVerbs   = map[string]healthcheck.Verb{"ehlo": healthcheck.EHLO, "helo": healthcheck.HELO, "lhlo": healthcheck.LHLO}
)

// summaryLimit is how many servers a summary names.
const summaryLimit = 20

// notUp are the servers of which a summary tells.
type notUp struct {
	count int
	texts []string // of the first ones
}

// summarise writes one line about the servers that are not up, if there are
// any, to each log that hears of them. Those that are configured to be down are
// no news.
func (s *Server) summarise() {
	summaries := make(map[*zap.Logger]*notUp)
	now := s.engine.Seconds()
	s.mu.Lock()
	groups, order := s.groups, s.order
	s.mu.Unlock()
	for _, name := range order {
		log := s.logOf(name)
		if summaries[log] == nil {
			summaries[log] = new(notUp)
		}
		all := summaries[log]
		for _, st := range groups[name].Snapshot(now) {
			switch st.State {
			case upstream.StateUp, upstream.StateDown, upstream.StateFull, upstream.StateRemoved:
				continue
			}
			if all.count++; all.count > summaryLimit {
				continue
			}
			line := fmt.Sprintf("%s in %s: %s", st.Addr, name, st.State)
			if st.Since >= 0 {
				line += fmt.Sprintf(" for %s (%s)", time.Duration(now-st.Since)*time.Second, st.Why)
			}
			all.texts = append(all.texts, line)
		}
	}
	for log, all := range summaries {
		if all.count > 0 {
			log.Warn("servers not up", zap.Int("count", all.count), zap.String("servers", strings.Join(all.texts, "; ")))
		}
	}
}
