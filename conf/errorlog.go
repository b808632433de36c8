package conf

import (
	"fmt"
	"slices"
	"strings"

	"smtplb/conf/nginx"
)

// Error logs: what their tables may say in TOML, what reads them in both
// syntaxes, and what holds for all of them.

var errorLogTable = directives[ErrorLog]{"error_log", append(serverErrorLogTable.rows,
	directive[ErrorLog]{"format", "smtplb", func(*reader, *ErrorLog, *node) {}}, // see errorLogs
)}

// serverErrorLogTable is for the log of a server, which has the format of all.
var serverErrorLogTable = directives[ErrorLog]{"error_log of [[server]]", []directive[ErrorLog]{
	{"path", "stderr", slot(str, func(l *ErrorLog) *string { return &l.Path })},
	{"level", "notice", slot(logLevel, func(l *ErrorLog) *string { return &l.Level })},
}}

// maxErrorLogs bounds the work that a line makes.
const maxErrorLogs = 64

// errorLogs reads the targets of the process's log, one or a list. They add to
// those of the command line; the default, which is in no file, goes.
func (r *reader) errorLogs(c *Config, n *node) {
	if len(c.ErrorLogs) == 1 && c.ErrorLogs[0].Position == (Position{}) {
		c.ErrorLogs = nil
	}
	r.readErrorLogs(&c.ErrorLogs, errorLogTable, n)
	if c.ErrorLogFormat == "" {
		c.ErrorLogFormat = "smtplb"
	}
	for _, n := range n.elements() {
		kid := n.kid("format")
		if kid == nil {
			continue
		}
		format, err := oneOf("smtplb", "nginx")(kid)
		switch {
		case err != nil:
			r.problem(kid.at, "format: %v", err)
		case r.formatAt != Position{} && format != c.ErrorLogFormat:
			r.problem(kid.at, "format: the process has one for all its logs, and it is %q at %s", c.ErrorLogFormat, r.formatAt)
		default:
			c.ErrorLogFormat, r.formatAt = format, kid.at
		}
	}
}

// serverErrorLogs reads the same for a server.
func (r *reader) serverErrorLogs(s *Server, n *node) {
	r.readErrorLogs(&s.ErrorLogs, serverErrorLogTable, n)
}

func (r *reader) readErrorLogs(to *[]ErrorLog, table directives[ErrorLog], n *node) {
	if len(n.elements()) == 0 {
		r.problem(n.at, "error_log: want at least one target")
	}
	for _, n := range n.elements() {
		l := ErrorLog{Position: n.at}
		table.read(r, &l, n.asTable("path"))
		*to = append(*to, l)
	}
}

// errorLog is ngx_log_set_log. Without a level it is that of nginx.
func (r *ngxReader) errorLog(b *ngxBlock, d nginx.Directive) error {
	path, err := ngxWord(d)
	if err != nil {
		return err
	}
	l := ErrorLog{Position: place(d), Path: path}
	parts := false // a target may have several of these, or one level
	for _, level := range d.Args[1:] {
		part := slices.Contains(debugParts, level)
		switch {
		case part && (parts || l.Level == ""):
			l.Level, parts = "debug", true
		case part || !slices.Contains(levels, level):
			return fmt.Errorf(`invalid log level "%s"`, level)
		case l.Level != "":
			return fmt.Errorf(`duplicate log level "%s"`, level)
		default:
			l.Level = level
		}
	}
	if l.Level == "" {
		l.Level = "error"
	}
	b.errors = append(b.errors, l)
	return nil
}

// debugParts are the levels that are debug in a part of nginx.
var debugParts = strings.Fields("debug_core debug_alloc debug_mutex debug_event debug_http debug_mail debug_stream")

// errorLogs checks what holds for the log of the process and those of servers.
func (v *validator) errorLogs() {
	check := func(logs []ErrorLog) {
		if len(logs) > maxErrorLogs {
			v.problem(logs[maxErrorLogs].Position, "error_log: too many targets; a log has at most %d", maxErrorLogs)
		}
		for _, l := range logs {
			if strings.HasPrefix(l.Path, "memory:") {
				v.problem(l.Position, `error_log: "memory:" is not supported by this version; name a file or a syslog server`)
			}
		}
	}
	check(v.cfg.ErrorLogs)
	for i := range v.cfg.Servers {
		check(v.cfg.Servers[i].ErrorLogs)
	}
}
