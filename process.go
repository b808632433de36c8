package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	"smtplb/conf"
	"smtplb/internal/errorlog"
	"smtplb/internal/process"
	"smtplb/internal/server"
)

// flushWait bounds how long the last log lines may hold the exit.
const flushWait = 2 * time.Second

// instance is the running process.
type instance struct {
	command command
	file    string // of the configuration
	config  settings
	log     *errorlog.Log
	logger  *zap.Logger
	server  *server.Server
	pid     *process.PidFile // nil: none
}

// serve runs the balancer until a signal ends it. parent waits for it to be
// ready, if there is one.
func (c command) serve(parent *process.Parent, stderr io.Writer) int {
	// Before anything can be written: a reader of our output that goes away
	// must not end the process.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGINT)

	i := &instance{command: c, file: c.configFile()}
	s, err := c.load(i.file)
	if err == nil {
		err = s.identify()
	}
	if err != nil {
		return c.emerg(stderr, err)
	}
	if s.Daemon && parent == nil {
		code, err := process.Detach()
		if err != nil {
			return c.emerg(stderr, err)
		}
		return code
	}
	i.config = s
	if err := i.start(s); err != nil {
		return c.emerg(stderr, err)
	}
	defer i.close()
	if parent != nil {
		if err := i.detach(parent); err != nil {
			i.logger.Warn("not detached from whoever has started this process", zap.Error(err))
		}
	}
	i.handle(signals)
	return exitOK
}

// detach ends what ties a process in the background to the one that started it.
func (i *instance) detach(parent *process.Parent) error {
	i.log.TakeCrashes()
	return parent.Ready(errorlog.IsStderr(i.config.ErrorLog.Path))
}

// start opens all that the configuration needs, becomes the user it names, and
// then lets clients in.
func (i *instance) start(c settings) (err error) {
	if err := process.SetEnviron(c.Env); err != nil {
		return err
	}
	level, err := errorlog.ParseLevel(c.ErrorLog.Level)
	if err != nil {
		return err
	}
	if i.log, err = errorlog.Open(c.ErrorLog.Path, level); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			i.log.Close(flushWait)
		}
	}()
	i.logger = i.log.Logger()
	i.warn(c.Config)

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
	})
	if err != nil {
		return err
	}
	next, err := i.server.Prepare(context.Background(), c.Config)
	if err != nil {
		return err
	}
	if i.pid, err = writePid(c.Pid); err != nil {
		next.Discard()
		return err
	}
	if err := i.settle(c); err != nil {
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
func (i *instance) settle(c settings) error {
	if c.identity != nil {
		if err := i.log.GiveTo(c.identity.UID); err != nil {
			i.logger.Warn("log file keeps its owner", zap.Error(err))
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

func writePid(path string) (*process.PidFile, error) {
	if path == "" {
		return nil, nil
	}
	return process.WritePidFile(path)
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

func (i *instance) close() {
	if i.pid != nil {
		if err := i.pid.Remove(); err != nil {
			i.logger.Warn("pid file stays", zap.Error(err))
		}
	}
	i.log.Close(flushWait)
}

// handle obeys signals until one has ended the process.
func (i *instance) handle(signals <-chan os.Signal) {
	reloads := make(chan struct{}, 1) // holds one: further HUPs coalesce
	reloaded := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer close(reloaded)
		for range reloads {
			i.reload(ctx)
		}
	}()
	for sig := range signals {
		switch sig {
		case syscall.SIGHUP:
			select {
			case reloads <- struct{}{}:
			default:
			}
		case syscall.SIGUSR1:
			if err := i.log.Reopen(); err != nil {
				i.logger.Error("log not reopened, writing to the old file", zap.Error(err))
			} else {
				i.logger.Info("log reopened")
			}
		case syscall.SIGUSR2:
			i.logger.Error("SIGUSR2: this version cannot hand over to another program; restart it instead")
		case syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGINT:
			cancel() // name lookups of a reload under way
			close(reloads)
			<-reloaded
			i.stop(sig, signals)
			return
		}
	}
}

// stop stops gracefully or fast. A further TERM or INT while it does hurries.
func (i *instance) stop(sig os.Signal, signals <-chan os.Signal) {
	hurry := make(chan struct{})
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		for {
			select {
			case <-stopped:
				return
			case next := <-signals:
				if next != syscall.SIGTERM && next != syscall.SIGINT {
					continue
				}
			}
			select {
			case hurry <- struct{}{}:
			case <-stopped:
				return
			}
		}
	}()
	i.logger.Info("signal received, stopping", zap.Stringer("signal", sig))
	if sig == syscall.SIGQUIT {
		i.server.Quit(i.config.WorkerShutdownTimeout, i.config.StopTimeout, hurry)
	} else {
		i.server.Stop(i.config.StopTimeout, hurry)
	}
}

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
