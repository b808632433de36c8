package conf

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Access logs, in TOML: what their tables may say, what reads it; and, for both
// syntaxes, what holds for all of them together.

var logFormatTable = directives[LogFormat]{"[[log_format]]", []directive[LogFormat]{
	{"name", required, slot(str, func(f *LogFormat) *string { return &f.Name })},
	{"escape", "default", slot(oneOf(escapes...), func(f *LogFormat) *string { return &f.Escape })},
	{"format", required, (*reader).formatTexts},
}}

var escapes = []string{"default", "json", "none"}

var accessLogTable = directives[AccessLog]{"access_log", []directive[AccessLog]{
	{"path", required, slot(str, func(l *AccessLog) *string { return &l.Path })},
	{"format", required, slot(str, func(l *AccessLog) *string { return &l.Format })},
	{"buffer", none, slot(size(1, maxLogBuffer), func(l *AccessLog) *int { return &l.Buffer })},
	{"flush", none, slot(msec(1), func(l *AccessLog) *time.Duration { return &l.Flush })},
	{"gzip", 0, slot(number(0, 9), func(l *AccessLog) *int { return &l.Gzip })},
	{"if", none, slot(anyText, func(l *AccessLog) *string { return &l.If })},
}}

const (
	// maxLogBuffer bounds what a log keeps from its readers.
	maxLogBuffer = 16 << 20
	// gzipBuffer is that of a compressed log that names none (ngx_stream_log_set_log).
	gzipBuffer = 64 << 10
	// maxAccessLogs bounds the work that one session makes, maxLogFormats that of
	// finding one.
	maxAccessLogs = 64
	maxLogFormats = 1000
)

func (r *reader) logFormats(c *Config, n *node) {
	for _, n := range n.elements() {
		f := LogFormat{Position: n.at}
		logFormatTable.read(r, &f, n)
		if len(c.LogFormats) == maxLogFormats {
			r.problem(n.at, "%v", errTooManyFormats)
			return
		}
		c.LogFormats = append(c.LogFormats, f)
	}
}

// formatTexts reads a text, or the pieces of one.
func (r *reader) formatTexts(f *LogFormat, n *node) {
	f.Texts = make([]string, 0, len(n.elements()))
	for _, piece := range n.elements() {
		text, err := anyText(piece)
		if err != nil {
			r.problem(piece.at, "format: %v", err)
			continue
		}
		f.Texts = append(f.Texts, text)
	}
}

// accessLogs reads a log, or a list of them; "off" stands for none.
func (r *reader) accessLogs(s *Server, n *node) {
	if n.value == "off" {
		return
	}
	for _, n := range n.elements() {
		l := AccessLog{Position: n.at}
		accessLogTable.read(r, &l, n.asTable("path"))
		if l.Gzip > 0 && l.Buffer == 0 {
			l.Buffer = gzipBuffer
		}
		s.AccessLogs = append(s.AccessLogs, l)
	}
	if len(s.AccessLogs) > maxAccessLogs {
		r.problem(n.at, "%v", errTooManyLogs)
		s.AccessLogs = nil
	}
}

var (
	errTooManyLogs    = fmt.Errorf("access_log: too many logs; a server has at most %d", maxAccessLogs)
	errTooManyFormats = fmt.Errorf("log_format: too many; a configuration has at most %d", maxLogFormats)
)

// logFormat returns the name of the format that the name finds.
func (c *Config) logFormat(name string) (string, bool) {
	for i := range c.LogFormats {
		if strings.EqualFold(c.LogFormats[i].Name, name) {
			return c.LogFormats[i].Name, true
		}
	}
	return "", false
}

// logBuffers are the buffers of logs by path, as the first log with that path has
// defined them.
type logBuffers map[string]AccessLog

// define checks l as a whole, as ngx_stream_log_set_log does, in its words.
func (b logBuffers) define(l AccessLog) error {
	if l.Buffer == 0 {
		if l.Flush > 0 {
			return fmt.Errorf(`no buffer is defined for access_log "%s"`, l.Path)
		}
		return nil
	}
	switch {
	case strings.HasPrefix(l.Path, "syslog:"):
		return errors.New("logs to syslog cannot be buffered")
	case strings.Contains(l.Path, "$"):
		return errors.New("buffered logs cannot have variables in name")
	}
	first, again := b[l.Path]
	switch {
	case !again:
		b[l.Path] = l
	case first.Buffer != l.Buffer || first.Flush != l.Flush || first.Gzip != l.Gzip:
		return fmt.Errorf(`access_log "%s" already defined with conflicting parameters`, l.Path)
	}
	return nil
}

// logs checks the formats and the logs that use them.
func (v *validator) logs() {
	first := make(map[string]Position)
	var names []string
	for _, f := range v.cfg.LogFormats {
		if at, again := first[f.Name]; again && f.Name != "" {
			v.problem(f.Position, "log_format %q is defined already at %s", f.Name, at)
			continue
		}
		first[f.Name] = f.Position
		names = append(names, f.Name)
	}
	buffers := make(logBuffers)
	for i := range v.cfg.Servers {
		logs := v.cfg.Servers[i].AccessLogs
		for j := range logs {
			l := &logs[j]
			if _, exact := first[l.Format]; !exact {
				v.findFormat(l, names)
			}
			if err := buffers.define(*l); err != nil {
				v.problem(l.Position, "%v", err)
			}
		}
	}
}

// findFormat ties l to a format whose name differs in case.
func (v *validator) findFormat(l *AccessLog, names []string) {
	name, ok := v.cfg.logFormat(l.Format)
	if ok {
		l.Format = name
		return
	}
	if l.Format == "" {
		return
	}
	v.problem(l.Position, "access_log: unknown log format %q%s; define it by [[log_format]]", l.Format, v.hint(l.Format, names))
}
