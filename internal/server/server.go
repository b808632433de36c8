package server

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"smtplb/healthcheck"
	"smtplb/internal/accesslog"
	"smtplb/internal/errorlog"
	"smtplb/internal/stream"
	"smtplb/listener"
	"smtplb/upstream"
)

// Options are what a Server is made of. They are the process's, not the
// configuration's.
type Options struct {
	Workers     int // event loops
	Pipes       int // pipes the process may hold
	PipeBytes   int // how much each should hold
	MaxSessions int // sessions at once
	Logger      *zap.Logger
	ErrorLogs   *errorlog.Set // has those of servers, too; nil: they have none
}

// Server is the running balancer.
type Server struct {
	log     *zap.Logger
	engine  *stream.Engine
	checker *healthcheck.Checker

	mu sync.Mutex // protects groups, order and hear; no other lock is taken holding it

	// Of the configuration that runs; replaced by Commit.
	groups map[string]*upstream.Group
	order  []string // of groups
	hear   map[string]*zap.Logger
	// Groups that a reload has removed but sessions still hold: one that comes
	// back finds its connections and failures.
	removed map[string]*upstream.Group
	ports   map[listener.Addr]livePort
	known   map[string][]netip.Addr // what host names stood for

	// Where sockets of earlier configurations, or of failed ones, may still be
	// draining; each channel is closed when the socket is.
	closing map[<-chan struct{}]listener.Addr

	unreport func() // ends report

	errorLogs *errorlog.Set
	logs      *accesslog.Set
	zones     map[string]zone // of limits, by their names

	present  tenure         // of the configuration that runs
	stopped  chan struct{}  // closed by end, before the engine stops
	retiring sync.WaitGroup // tenures of earlier configurations
}

// New starts the event loops. There is nothing to balance until a Commit.
func New(o Options) (*Server, error) {
	engine, err := stream.New(stream.Options{
		Workers:     o.Workers,
		Pipes:       o.Pipes,
		PipeBytes:   o.PipeBytes,
		MaxSessions: o.MaxSessions,
		Logger:      o.Logger.Named("stream"),
	})
	if err != nil {
		return nil, err
	}
	s := &Server{
		log:       o.Logger,
		engine:    engine,
		checker:   healthcheck.New(o.Logger.Named("healthcheck")),
		closing:   map[<-chan struct{}]listener.Addr{},
		errorLogs: o.ErrorLogs,
		logs:      accesslog.NewSet(o.Logger.Named("accesslog")),
		stopped:   make(chan struct{}),
	}
	ended := make(chan struct{})
	s.unreport = sync.OnceFunc(func() { close(ended) })
	go s.report(ended)
	return s, nil
}

// report writes the summary now and then, until ended is closed.
func (s *Server) report(ended <-chan struct{}) {
	tick := time.NewTicker(summaryPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.summarise()
		case <-ended:
			return
		}
	}
}

// SetMaxSessions changes how many sessions there may be at once.
func (s *Server) SetMaxSessions(n int) { s.engine.SetMaxSessions(n) }

// Next is a configuration that is ready to run.
type Next struct {
	server *Server
	plan   *plan
	opened map[listener.Addr]*listener.Socket // sockets that only this configuration has
}

// Commit makes the configuration the running one. It does not fail: what can
// go wrong has gone wrong in Prepare.
func (n *Next) Commit() {
	s := n.server
	s.mu.Lock() // first of all: what changes in a group is for those who hear of it now
	s.hear = n.plan.hear
	s.mu.Unlock()
	groups := make(map[string]*upstream.Group, len(n.plan.groups))
	for _, g := range n.plan.groups {
		group := cmp.Or(s.groups[g.Name], s.removed[g.Name])
		if group == nil {
			group = upstream.NewGroup(g)
		} else {
			group.Update(g)
		}
		groups[g.Name] = group
	}
	s.removed = s.stillHeld(groups)

	next := tenure{epoch: s.engine.NewEpoch(), logs: n.plan.logs}
	s.takePorts(n.makePorts(groups, next.epoch))
	s.mu.Lock()
	s.groups, s.order = groups, n.plan.order()
	s.mu.Unlock()
	s.known = n.plan.known
	s.zones = n.plan.zones
	s.succeed(next)
	s.checker.Update(s.targets(n.plan.checks, n.plan.agents))
	s.logServers()
}

// stillHeld returns the groups that are not among those to stay, but that
// sessions hold.
func (s *Server) stillHeld(stay map[string]*upstream.Group) map[string]*upstream.Group {
	held := map[string]*upstream.Group{}
	for _, old := range []map[string]*upstream.Group{s.groups, s.removed} {
		for name, g := range old {
			busy := slices.ContainsFunc(g.Snapshot(s.engine.Seconds()), func(st upstream.Status) bool { return st.Conns > 0 })
			if stay[name] == nil && busy {
				held[name] = g
			}
		}
	}
	return held
}

// Discard closes what Prepare opened.
func (n *Next) Discard() {
	release(n.plan.logs)
	for i := range n.plan.ports {
		p := &n.plan.ports[i]
		socket := n.opened[p.options.Addr]
		if socket == nil {
			continue
		}
		if live := n.server.covering(p); live != nil {
			n.server.closing[n.server.engine.Yield(socket, live)] = p.options.Addr
		} else {
			_ = socket.Close()
		}
	}
}

// logOf is the logger of what becomes of a group's servers. It may be called with
// the group locked.
func (s *Server) logOf(group string) *zap.Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	if log := s.hear[group]; log != nil {
		return log
	}
	return s.log
}

// logServers writes one line for each server.
func (s *Server) logServers() {
	for _, name := range s.order {
		for _, st := range s.groups[name].Snapshot(s.engine.Seconds()) {
			s.logOf(name).Info("server",
				zap.String("upstream", name),
				zap.String("server", st.Name),
				zap.Stringer("peer", st.Addr),
				zap.Bool("backup", st.Backup),
				zap.String("state", string(st.State)),
				zap.Int("weight", st.Weight),
				zap.Int("percent", st.Percent),
				zap.Int("effective_weight", st.Effective),
				zap.Int("connections", st.Conns),
				zap.Int("fails", st.Fails))
		}
	}
}
