package conf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"smtplb/conf/nginx"
)

// What directives of an nginx.conf do with their values, and what holds where
// there are none.

// Defaults for a server whose sessions speak SMTP, in both syntaxes: a session
// must have got a server, or our reply, well inside the five minutes that a
// client waits for a greeting (RFC 5321 section 4.5.3.2.1).
const (
	smtpTries  = 3
	smtpBudget = 150 * time.Second
)

// ngxDefaults is what nginx does if nothing is said. The time for a fast stop is
// ours: what sends SIGTERM to nginx, such as Debian's unit, kills after five
// seconds.
func ngxDefaults() Config {
	return Config{
		WorkerProcesses: 1,
		StopTimeout:     3 * time.Second,
		ErrorLogs:       []ErrorLog{{Path: "stderr", Level: "error"}},
		ErrorLogFormat:  "nginx",
		Daemon:          true,
	}
}

// ngxServerDefaults is the same for a server. Of what nginx does not know, the
// defaults are those of TOML.
func ngxServerDefaults() Server {
	return Server{
		ProxyProtocol:      "off",
		ConnectTimeout:     60 * time.Second,
		Timeout:            10 * time.Minute,
		NextUpstream:       true,
		BufferSize:         16 << 10,
		NoDelay:            true,
		ProxyHeaderTimeout: 30 * time.Second,
		LimitLogLevel:      "error",
		SMTP: SMTP{
			GreetingTimeout: 20 * time.Second,
			Pregreet:        "pass",
			Replies:         SMTPReplies{unavailable, overLimit, tooMany, stopping, pregreeted, denied},
		},
	}
}

type ngxSetter = func(*ngxReader, *ngxBlock, nginx.Directive) error

// process makes the setter of a directive that is one value for one field of the
// Config, session of one for a server, which a stream block may set for all its
// servers.
func process[V any](kind func(nginx.Directive) (V, error), field func(*Config) *V) ngxSetter {
	return func(r *ngxReader, _ *ngxBlock, d nginx.Directive) error {
		v, err := kind(d)
		if err == nil {
			*field(&r.cfg) = v
		}
		return err
	}
}

func session[V any](kind func(nginx.Directive) (V, error), field func(*ngxServer) *V) ngxSetter {
	return func(_ *ngxReader, b *ngxBlock, d nginx.Directive) error {
		v, err := kind(d)
		if err == nil {
			b.set(func(s *ngxServer) { *field(s) = v })
		}
		return err
	}
}

// deprecated makes the setter of an old name of proxy_buffer_size.
func deprecated(set ngxSetter) ngxSetter {
	return func(r *ngxReader, b *ngxBlock, d nginx.Directive) error {
		r.warn(place(d), `the "%s" directive is deprecated, use the "proxy_buffer_size" directive instead`, d.Name)
		return set(r, b, d)
	}
}

// idle makes the setter of a directive that has no effect here, and unsupported
// of one that would need what there is not.
func idle(why string) ngxSetter {
	return func(r *ngxReader, _ *ngxBlock, d nginx.Directive) error {
		r.notice(d, d.Name, why)
		return nil
	}
}

func unsupported(instead string) ngxSetter {
	return func(_ *ngxReader, _ *ngxBlock, d nginx.Directive) error {
		if instead != "" {
			return fmt.Errorf(`"%s" is not supported by this version; %s`, d.Name, instead)
		}
		return fmt.Errorf(`"%s" is not supported by this version`, d.Name)
	}
}

// notice says once of each name that it has no effect.
func (r *ngxReader) notice(d nginx.Directive, name, why string) {
	if !r.noticed[name] {
		r.noticed[name] = true
		r.warn(place(d), `"%s" has no effect: %s`, name, why)
	}
}

func (r *ngxReader) serverBlock(s *ngxBlock, d nginx.Directive) error {
	b := r.open(inServer, s, d)
	s.servers = append(s.servers, b)
	if !b.seen["listen"] && d.End > 0 {
		return errors.New(`no "listen" is defined for server`)
	}
	return nil
}

// ngxWord is any text that can stand in a log line.
func ngxWord(d nginx.Directive) (string, error) { return ngxText(str)(d) }

// user reads a user and a group, by default the group of the same name, as in
// ngx_set_user.
func (r *ngxReader) user(_ *ngxBlock, d nginx.Directive) error {
	for _, name := range d.Args {
		if _, err := str(literal(d.Name, name)); err != nil || strings.Contains(name, ":") {
			return fmt.Errorf(`invalid name "%s" in "user" directive`, name)
		}
	}
	r.cfg.User, r.cfg.Group = d.Args[0], d.Args[len(d.Args)-1]
	return nil
}

func (r *ngxReader) pid(_ *ngxBlock, d nginx.Directive) (err error) {
	r.cfg.PidPosition = place(d)
	r.cfg.Pid, err = ngxWord(d)
	return err
}

func (r *ngxReader) env(_ *ngxBlock, d nginx.Directive) error {
	entry, err := ngxWord(d)
	if err != nil || entry[0] == '=' {
		return errValue(d, "value")
	}
	r.cfg.Env = append(r.cfg.Env, entry)
	return nil
}

func (r *ngxReader) use(_ *ngxBlock, d nginx.Directive) error {
	if !slices.Contains([]string{"epoll", "poll", "select"}, d.Args[0]) {
		return fmt.Errorf(`invalid event type "%s"`, d.Args[0])
	}
	r.notice(d, "use", "events come by epoll")
	return nil
}

// masterProcess may be on: whether there is a master cannot be told from without.
func (r *ngxReader) masterProcess(_ *ngxBlock, d nginx.Directive) error {
	on, err := ngxFlag(d)
	if err == nil && !on {
		r.notice(d, d.Name, oneProcess)
	}
	return err
}

func (r *ngxReader) workerConnections(_ *ngxBlock, d nginx.Directive) error {
	if _, ok := atoi(d.Args[0], 1<<31-1); !ok {
		return fmt.Errorf(`invalid number "%s"`, d.Args[0])
	}
	r.notice(d, "worker_connections", "worker_rlimit_nofile bounds the sessions")
	return nil
}
