package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"

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
	log     *errorlog.Set
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
	return parent.Ready(i.config.logsToStderr())
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
			if i.reopen() {
				i.logger.Info("log reopened")
			}
			if err := i.server.ReopenLogs(); err != nil {
				i.logger.Error("access log not reopened, writing to the old file", zap.Error(err))
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

// reopen opens the error logs anew, and reports whether all of them are. A process
// that has become another user cannot always open what root could.
func (i *instance) reopen() bool {
	err := i.log.Reopen()
	if err != nil {
		i.logger.Error("log not reopened, writing to the old file", zap.Error(err))
	}
	return err == nil
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
