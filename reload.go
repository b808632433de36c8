package main

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"smtplb/internal/server"
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
	next, err := i.server.Prepare(ctx, c.Config)
	if err != nil {
		return err
	}
	pid := i.pid
	if c.Pid != i.config.Pid {
		if pid, err = c.writePid(); err != nil {
			next.Discard()
			return err
		}
	}
	if err := i.log.Reconfigure(server.Targets(c.ErrorLogs)...); err != nil {
		if pid != i.pid && pid != nil {
			_ = pid.Remove()
		}
		next.Discard()
		return server.LogError(c.ErrorLogs, err)
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
	// A rotation is often followed by a reload in place of a SIGUSR1.
	i.reopenLogs()
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
