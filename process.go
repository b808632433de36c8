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
	o := catch()

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
	// Who stops the process does not wait for a name server that is silent. The
	// signal stays in o as well, for a start that was just done.
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	err = i.start(ctx, s)
	stopped := ctx.Err() != nil
	release()
	switch {
	case err != nil && stopped:
		return exitOK
	case err != nil:
		return c.emerg(stderr, err)
	}
	defer i.close()
	if parent != nil {
		if err := i.detach(parent); err != nil {
			i.logger.Warn("not detached from whoever has started this process", zap.Error(err))
		}
	}
	i.handle(o)
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

// orders are the signals that the process obeys, each kind in a channel of its
// own, so that none is lost for want of room behind others. One that comes while
// another of its kind waits is one with it.
type orders struct{ reload, reopen, upgrade, quit, stop <-chan os.Signal }

// catch has all orders come to us from now on.
func catch() orders {
	on := func(kinds ...os.Signal) <-chan os.Signal {
		c := make(chan os.Signal, 1)
		signal.Notify(c, kinds...)
		return c
	}
	return orders{
		reload:  on(syscall.SIGHUP),
		reopen:  on(syscall.SIGUSR1),
		upgrade: on(syscall.SIGUSR2),
		quit:    on(syscall.SIGQUIT),
		stop:    on(syscall.SIGTERM, syscall.SIGINT),
	}
}

// handle obeys signals until one has ended the process. While that stops
// gracefully or fast, a further TERM or INT hurries it.
func (i *instance) handle(o orders) {
	reloaded := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer close(reloaded)
		for {
			select {
			case <-o.reload:
				i.reload(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	var last os.Signal
	for last == nil {
		select {
		case <-o.reopen:
			i.reopen()
		case <-o.upgrade:
			i.logger.Error("SIGUSR2: this version cannot hand over to another program; restart it instead")
		case last = <-o.quit:
		case last = <-o.stop:
		}
	}
	cancel() // and with it the name lookups of a reload under way
	<-reloaded
	i.logger.Info("signal received, stopping", zap.Stringer("signal", last))
	if last == syscall.SIGQUIT {
		i.server.Quit(i.config.WorkerShutdownTimeout, i.config.StopTimeout, o.stop)
	} else {
		i.server.Stop(i.config.StopTimeout, o.stop)
	}
}

// reopen obeys SIGUSR1.
func (i *instance) reopen() {
	if i.reopenLogs() {
		i.logger.Info("log reopened")
	}
}

// reopenLogs opens the files of all logs anew, after somebody has renamed them,
// and reports whether all of them are. A process that has become another user
// cannot always open what root could.
func (i *instance) reopenLogs() bool {
	ofErrors, ofSessions := i.log.Reopen(), i.server.ReopenLogs()
	if ofErrors != nil {
		i.logger.Error("log not reopened, writing to the old file", zap.Error(ofErrors))
	}
	if ofSessions != nil {
		i.logger.Error("access log not reopened, writing to the old file", zap.Error(ofSessions))
	}
	return ofErrors == nil && ofSessions == nil
}
