package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 15 * time.Second // the balancer gives its sessions 10 of them
)

// A child is a program that was started.
type child struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

func startChild(name string, stdout, stderr io.Writer, program string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(program, args...), exited: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = stdout, stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for the demo, which stops the others in order
		Pdeathsig: syscall.SIGKILL, // if the demo could not
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = c.cmd.Wait() // the status is read from ProcessState
		close(c.exited)
	}()
	return c, nil
}

// awaitGreeting waits until a server answers at the address.
func (c *child) awaitGreeting(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("start %s: nobody answers on %s after %v", c.name, addr, startTimeout))
	defer cancel()
	for {
		s, err := dial(addr)
		if err == nil {
			return s.Close()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.exited:
			return c.endedError()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// endedError says that the child has ended, which it should not have.
func (c *child) endedError() error {
	return fmt.Errorf("%s has ended (%v); what it wrote is above", c.name, c.cmd.ProcessState)
}

// stop stops the child, if it still runs, and waits until it has ended.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-c.exited:
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
}
