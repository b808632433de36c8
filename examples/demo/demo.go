package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"smtplb/conf"
)

const (
	turns  = 7 // of the round robin, in which each server gets its weight in messages
	failed = 6 // messages while the backup stands in
)

// options are the command line. Not only the demo writes to out, but also what
// it starts.
type options struct {
	config   string // file; "": what is built into the balancer
	balancer string // program; "": build one
	once     bool
	out      io.Writer
}

// A mailServer is one of those behind the balancer.
type mailServer struct {
	conf.UpstreamServer

	name  string // what it greets with
	addr  string
	child *child
}

// demo is what runs. One goroutine owns it.
type demo struct {
	options
	dir     string        // of what was built
	port    string        // where the balancer listens
	servers []*mailServer // as configured
	lb      *child
}

// run is the whole demo. It leaves nothing behind.
func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "smtplb-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{options: o, dir: dir}
	defer d.stop()
	err = d.show(ctx)
	if ctx.Err() != nil {
		return nil // as the user wishes, whatever that has interrupted
	}
	return err
}

func (d *demo) show(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.build, d.configure, d.start, d.tour} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if d.once {
		return nil
	}
	return d.stay(ctx)
}

// build makes the programs.
func (d *demo) build(ctx context.Context) error {
	packages := []string{"smtplb/examples/sampleserver"}
	if d.balancer == "" {
		packages = append(packages, "smtplb")
		d.balancer = filepath.Join(d.dir, "smtplb")
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-o", d.dir}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // there may be no C compiler
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs, which works in the source tree only: %w\n%s", err, out)
	}
	return nil
}

// configure learns from the balancer's configuration who is to listen where,
// and whether they can.
func (d *demo) configure(ctx context.Context) error {
	var c *conf.Config
	var err error
	if d.config != "" {
		c, err = conf.Load(d.config)
	} else {
		var text []byte
		if text, err = exec.CommandContext(ctx, d.balancer, "-d").Output(); err == nil {
			c, err = conf.Parse("built-in configuration", text)
		}
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	first := c.Servers[0]
	d.port = address(first.Listen[0].Address)
	group := slices.IndexFunc(c.Upstreams, func(u conf.Upstream) bool { return u.Name == first.ProxyPass })
	for i, s := range c.Upstreams[group].Servers {
		d.servers = append(d.servers, &mailServer{UpstreamServer: s, name: fmt.Sprintf("mx%d", i+1), addr: address(s.Address)})
	}
	for _, s := range d.servers {
		if err := available(s.addr); err != nil {
			return err
		}
	}
	return available(d.port)
}

func address(a conf.Address) string {
	return net.JoinHostPort(cmp.Or(a.Host, "127.0.0.1"), strconv.Itoa(int(a.Port)))
}

// available tells what to do about an address that cannot be listened on.
func available(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program: stop it (as root, ss -ltnp shows which), "+
			"or copy default.toml, give the copy other ports, and go run ./examples/demo -c its-name", addr)
	}
	if err != nil {
		return err
	}
	return ln.Close()
}

// start starts the servers and then, lest it meet one that is not yet there,
// the balancer.
func (d *demo) start(ctx context.Context) error {
	for _, s := range d.servers {
		if err := d.startServer(ctx, s, io.Discard); err != nil { // the table says it all
			return err
		}
	}
	args := []string{}
	if d.config != "" {
		args = append(args, "-c", d.config)
	}
	var err error
	if d.lb, err = startChild("smtplb", d.out, d.out, d.balancer, args...); err != nil {
		return err
	}
	return d.lb.awaitGreeting(ctx, d.port)
}

// startServer starts a server, which writes a line to out for each message.
func (d *demo) startServer(ctx context.Context, s *mailServer, out io.Writer) (err error) {
	s.child, err = startChild(s.name, out, d.out, filepath.Join(d.dir, "sampleserver"), "-listen", s.addr, "-name", s.name)
	if err != nil {
		return err
	}
	return s.child.awaitGreeting(ctx, s.addr)
}

// tour sends mail, first with all servers, then without those that the backups
// stand in for, and shows who got it. At its end all servers run again.
func (d *demo) tour(ctx context.Context) error {
	weights := 0
	var regular []*mailServer
	for _, s := range d.servers {
		if !s.Backup {
			regular = append(regular, s)
			weights += s.Weight
		}
	}
	d.say("\nsending %d messages\n", turns*weights)
	all, err := d.send(ctx, turns*weights)
	if err != nil {
		return err
	}
	var without map[string]int
	if len(regular) < len(d.servers) {
		for _, s := range regular {
			s.child.stop()
		}
		d.say("%s stopped, sending %d messages more\n", names(regular), failed)
		if without, err = d.send(ctx, failed); err != nil {
			return err
		}
	}
	d.print(all, without)
	for _, s := range d.servers {
		s.child.stop()
		if err := d.startServer(ctx, s, d.out); err != nil {
			return err
		}
	}
	if without != nil {
		d.say("%s running again: smtplb tries them %v after their last failure\n", names(regular), regular[0].FailTimeout)
	}
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func names(servers []*mailServer) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

// send sends messages of some senders and counts them by who has them now.
func (d *demo) send(ctx context.Context, messages int) (got map[string]int, err error) {
	senders := []string{"ann@example.org", "bob@example.org", "eve@example.org"}
	got = make(map[string]int)
	for i := range messages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// In blocks: in turn, a sender might meet the same server each time.
		server, err := deliver(d.port, senders[i*len(senders)/messages], "you@example.org")
		if err != nil {
			return nil, fmt.Errorf("send message %d of %d: %w", i+1, messages, err)
		}
		got[server]++
	}
	return got, nil
}

// print shows who got how many messages: with all servers and, unless without
// is nil, with the backups alone.
func (d *demo) print(all, without map[string]int) {
	d.say("\n")
	t := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "server\taddress\trole\tall running\tbackup alone")
	for _, s := range d.servers {
		role, second := fmt.Sprintf("weight %d", s.Weight), "-"
		if s.Backup {
			role, second = "backup", strconv.Itoa(without[s.name])
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", s.name, s.addr, role, all[s.name], second)
	}
	t.Flush()
	d.say("\n")
}

// stay stays up until the user has had enough, or something has ended.
func (d *demo) stay(ctx context.Context) error {
	d.say(`
Now send some mail yourself, from another terminal; who gets it says so here:

    swaks --server %s --to you@example.org

Ctrl-C stops everything.

`, d.port)
	ended := make(chan *child, 1+len(d.servers))
	for _, c := range d.children() {
		go func() {
			<-c.exited
			ended <- c
		}()
	}
	select {
	case <-ctx.Done():
		d.say("\nstopping\n")
		return nil
	case c := <-ended:
		return c.endedError()
	}
}

// children returns what was started, the balancer first: no server is to go
// before it.
func (d *demo) children() (all []*child) {
	if d.lb != nil {
		all = append(all, d.lb)
	}
	for _, s := range d.servers {
		if s.child != nil {
			all = append(all, s.child)
		}
	}
	return all
}

func (d *demo) stop() {
	for _, c := range d.children() {
		c.stop()
	}
}
