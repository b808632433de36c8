package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/process"
	"smtplb/internal/server"
)

// start opens all that the configuration needs, becomes the user it names, and
// then lets clients in. The end of ctx ends its name lookups, and then it fails.
func (i *instance) start(ctx context.Context, c settings) (err error) {
	if err := process.SetEnviron(c.Env); err != nil {
		return err
	}
	if i.log, err = errorlog.Open(server.Targets(c.ErrorLogs)...); err != nil {
		return server.LogError(c.ErrorLogs, err)
	}
	if c.ErrorLogFormat == "nginx" {
		i.log.NameProcess()
	}
	i.logger = i.log.Logger()
	defer func() {
		if err == nil {
			return
		}
		elsewhere := func(l conf.ErrorLog) bool { return !errorlog.IsStderr(l.Path) }
		switch {
		case ctx.Err() != nil:
			i.logger.Info("start given up", zap.NamedError("reason", context.Cause(ctx)))
		case slices.ContainsFunc(c.ErrorLogs, elsewhere): // standard error gets it from our caller
			i.logger.Log(errorlog.Emerg, "start failed", zap.Error(err))
		}
		i.log.Close(flushWait)
	}()

	workers := c.WorkerProcesses
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	// A loop that waits in the kernel still holds its processor for a moment:
	// leave one for the collector, timers and lookups.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), workers+1))
	limits := i.limit(c.Config)
	i.server, err = server.New(server.Options{
		Workers:     workers,
		Pipes:       limits.pipes,
		PipeBytes:   process.PipeBytes,
		MaxSessions: limits.sessions,
		Logger:      i.logger,
		ErrorLogs:   i.log,
	})
	if err != nil {
		return err
	}
	next, err := i.server.Prepare(ctx, c.Config)
	if err != nil {
		return err
	}
	i.warn(c.Config) // to which Prepare adds
	if i.pid, err = c.writePid(); err != nil {
		next.Discard()
		return err
	}
	if err := i.settle(c, next); err != nil {
		_ = i.pid.Remove()
		next.Discard()
		return err
	}
	next.Commit()
	i.logger.Info("ready",
		zap.String("version", version), zap.Int("pid", os.Getpid()), zap.String("config", c.Files[0]),
		zap.Int("workers", workers), zap.Int("gomaxprocs", runtime.GOMAXPROCS(0)),
		zap.Uint64("nofile", limits.nofile), zap.Int("max_sessions", limits.sessions), zap.Int("pipes", limits.pipes))
	return nil
}

// settle makes the process the user that the configuration names, and takes it
// to the directory it names. All that needs root is open by now.
func (i *instance) settle(c settings, next *server.Next) error {
	if c.identity != nil {
		if err := i.log.GiveTo(c.identity.UID); err != nil {
			i.logger.Warn("log file keeps its owner", zap.Error(err))
		}
		if err := i.server.GiveLogs(c.identity.UID); err != nil {
			i.logger.Warn("access log keeps its owner", zap.Error(err))
		}
		if err := next.GiveTo(c.identity.UID); err != nil {
			i.logger.Warn("listener keeps its owner, and reloads open no other on its port", zap.Error(err))
		}
		for _, w := range c.lost(false) {
			i.logger.Warn(w)
		}
		if err := c.identity.Become(capabilities(c.Config)...); err != nil {
			return fmt.Errorf("become user %q: %w", c.User, err)
		}
	}
	if c.WorkingDirectory == "" {
		return nil
	}
	if err := i.anchor(); err != nil {
		return err
	}
	if err := os.Chdir(c.WorkingDirectory); err != nil {
		return fmt.Errorf("working_directory: %w", err)
	}
	return nil
}

// capabilities are those that the running process needs. Who wants transparent
// binds later has to restart.
func capabilities(c *conf.Config) []process.Capability {
	needed := []process.Capability{process.BindService}
	for _, s := range c.Servers {
		if s.Bind != nil && s.Bind.Transparent {
			return append(needed, process.NetRaw)
		}
	}
	return needed
}

// anchor makes the paths that a reload begins with independent of the working
// directory.
func (i *instance) anchor() error {
	prefix, err := filepath.Abs(i.command.prefix)
	if err != nil {
		return err
	}
	i.command.prefix = prefix + "/"
	if i.file != "" {
		i.file, err = filepath.Abs(i.file)
	}
	return err
}

func (i *instance) warn(c *conf.Config) {
	for _, w := range c.Warnings {
		i.logger.Warn(w)
	}
}

func (s settings) writePid() (*process.PidFile, error) {
	if s.Pid == "" {
		return nil, nil
	}
	pid, err := process.WritePidFile(s.Pid)
	if err != nil {
		return nil, conf.ParseError{Position: s.PidPosition, Message: err.Error()}
	}
	return pid, nil
}

// limits are what the kernel lets the process have.
type limits struct {
	nofile   uint64
	pipes    int
	sessions int
}

// limit applies worker_rlimit_nofile and derives the session limit from what
// the process may really open.
func (i *instance) limit(c *conf.Config) limits {
	got, err := process.RaiseNofile(c.WorkerRlimitNofile)
	if err != nil {
		i.logger.Log(errorlog.Alert, "open file limit not read, assuming 1024", zap.Error(err))
		got.Soft = 1024
	}
	if got.Short() {
		i.logger.Log(errorlog.Alert, "worker_rlimit_nofile is above the hard limit, sessions are capped to what that allows: raise LimitNOFILE= of the unit, or ulimit -Hn",
			zap.Uint64("want", got.Want), zap.Uint64("got", got.Soft))
	}
	l := limits{nofile: got.Soft, pipes: process.PipeBudget(got.Soft)}
	l.sessions = process.SessionCap(got.Soft, 2*l.pipes)
	return l
}
