package main

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"smtplb/internal/errorlog"
)

// reload reads the configuration again and, if all of it can be done, switches
// to it. Otherwise everything stays as it is.
func (i *instance) reload(ctx context.Context) {
	start := time.Now()
	if err := i.tryReload(ctx); err != nil {
		if ctx.Err() == nil { // else the process is stopping
			i.logger.Error("reload failed, keeping the running configuration", zap.Error(err))
		}
		return
	}
	i.logger.Info("reload done", zap.String("config", i.config.Files[0]), zap.Duration("took", time.Since(start)))
}

func (i *instance) tryReload(ctx context.Context) error {
	c, err := i.command.load(i.file)
	if err != nil {
		return err
	}
	level, err := errorlog.ParseLevel(c.ErrorLog.Level)
	if err != nil {
		return err
	}
	next, err := i.server.Prepare(ctx, c.Config)
	if err != nil {
		return err
	}
	pid := i.pid
	if c.Pid != i.config.Pid {
		if pid, err = writePid(c.Pid); err != nil {
			next.Discard()
			return err
		}
	}
	err = i.log.Reconfigure(c.ErrorLog.Path, level)
	if err != nil && c.ErrorLog.Path == i.config.ErrorLog.Path {
		// As at SIGUSR1: another user's process cannot always open what root could.
		i.logger.Error("log not reopened, writing to the old file", zap.Error(err))
		i.log.SetLevel(level)
		err = nil
	}
	if err != nil {
		if pid != i.pid && pid != nil {
			_ = pid.Remove()
		}
		next.Discard()
		return err
	}
	if i.pid != nil && pid != i.pid {
		_ = i.pid.Remove()
	}
	i.pid = pid
	i.warn(c.Config)
	i.warnFixed(c)
	i.server.SetMaxSessions(i.limit(c.Config).sessions)
	next.Commit()
	i.config = c
	return nil
}

// warnFixed tells of changes that a running process does not follow.
func (i *instance) warnFixed(c settings) {
	old := i.config
	for _, fixed := range []struct {
		name    string
		changed bool
	}{
		{"worker_processes", c.WorkerProcesses != old.WorkerProcesses},
		{"daemon", c.Daemon != old.Daemon},
		{"user", c.User != old.User || c.Group != old.Group},
		{"working_directory", c.WorkingDirectory != old.WorkingDirectory},
		{"env", !slices.Equal(c.Env, old.Env)},
	} {
		if fixed.changed {
			i.logger.Warn(fixed.name + " has changed: it takes effect at the next start")
		}
	}
}
