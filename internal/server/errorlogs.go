package server

import (
	"errors"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/stream"
)

// Targets says in the terms of package errorlog where a log goes.
func Targets(logs []conf.ErrorLog) []errorlog.Target {
	targets := make([]errorlog.Target, len(logs))
	for i, l := range logs {
		targets[i] = errorlog.Target{Path: l.Path, Level: levelOf(l)}
	}
	return targets
}

func levelOf(l conf.ErrorLog) zapcore.Level {
	level, _ := errorlog.ParseLevel(l.Level) // conf has the same names
	return level
}

// LogError gives an error of opening a log the place of the directive that it is
// about.
func LogError(logs []conf.ErrorLog, err error) error {
	if bad, ok := errors.AsType[*errorlog.TargetError](err); ok {
		return conf.ParseError{Position: logs[bad.Target].Position, Message: bad.Error()}
	}
	return err
}

// CheckErrorLogs finds what would keep the error logs of a configuration from
// being opened. It makes no file.
func CheckErrorLogs(c *conf.Config) error {
	var problems conf.Problems
	seen := make(map[conf.Position]bool) // servers may owe a log to the block around them
	check := func(logs []conf.ErrorLog) {
		for _, l := range logs {
			if seen[l.Position] {
				continue
			}
			seen[l.Position] = true
			if err := errorlog.Check(l.Path); err != nil {
				problems = append(problems, conf.ParseError{Position: l.Position, Message: err.Error()})
			}
		}
	}
	check(c.ErrorLogs)
	for _, server := range c.Servers {
		check(server.ErrorLogs)
	}
	if problems == nil {
		return nil
	}
	return problems
}

// errorLogs opens the error logs that a configuration has beside the process's.
type errorLogs struct {
	set    *errorlog.Set
	plan   *plan
	report func(at conf.Position, format string, args ...any)
	said   map[conf.Position]bool // problems that several servers have
	logs   map[*errorlog.Log]*stream.Log
}

// open returns nil where that is not possible, which is reported.
func (e *errorLogs) open(logs []conf.ErrorLog) *errorlog.Log {
	log, err := e.set.Log(Targets(logs)...)
	if bad, ok := errors.AsType[*errorlog.TargetError](err); ok {
		if at := logs[bad.Target].Position; !e.said[at] {
			e.said[at] = true
			e.report(at, "%v", bad)
		}
		return nil
	}
	e.plan.logs = append(e.plan.logs, log)
	return log
}

// ofSessions is the log of a server's sessions; nil: the process's.
func (e *errorLogs) ofSessions(c *conf.Server) *stream.Log {
	if len(c.ErrorLogs) == 0 {
		return nil
	}
	log := e.open(c.ErrorLogs)
	if log == nil {
		return nil
	}
	if e.logs[log] == nil {
		e.logs[log] = stream.NewLog(log.Logger().Named("stream"))
	}
	return e.logs[log]
}

// ofGroups are the logs that hear what becomes of the servers of each group:
// those of all who pass to it. A group that is not there has the process's.
func (e *errorLogs) ofGroups(c *conf.Config) map[string]*zap.Logger {
	groups := make(map[string]*audience)
	hears := func(group string, s *conf.Server) {
		if groups[group] == nil {
			groups[group] = &audience{at: make(map[string]int)}
		}
		if len(s.ErrorLogs) > 0 {
			groups[group].own = true
			groups[group].add(s.ErrorLogs)
		} else {
			groups[group].add(c.ErrorLogs)
		}
	}
	for i := range c.Servers {
		s := &c.Servers[i]
		switch {
		case s.ProxyPass != "":
			hears(s.ProxyPass, s)
		case s.ProxyPassText != "":
			for _, u := range c.Upstreams {
				if !u.Implicit {
					hears(u.Name, s)
				}
			}
		}
	}
	loggers := make(map[string]*zap.Logger)
	for _, u := range c.Upstreams {
		a := groups[u.Name]
		if a == nil || !a.own {
			continue
		}
		if log := e.open(a.logs); log != nil {
			loggers[u.Name] = log.Logger()
		}
	}
	return loggers
}

// audience are the targets that hear of a group: each path once, with the lowest
// level that anybody wants there.
type audience struct {
	logs []conf.ErrorLog
	at   map[string]int // where the paths stand in logs
	own  bool           // somebody's log is not the process's
}

func (a *audience) add(logs []conf.ErrorLog) {
	for _, l := range logs {
		i, known := a.at[l.Path]
		switch {
		case !known:
			a.at[l.Path] = len(a.logs)
			a.logs = append(a.logs, l)
		case levelOf(l) < levelOf(a.logs[i]):
			a.logs[i] = l
		}
	}
}
