package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"smtplb/conf/nginx"
)

// Access logs of an nginx.conf. A format must be defined above its use.

func (r *ngxReader) logFormat(_ *ngxBlock, d nginx.Directive) error {
	if len(r.cfg.LogFormats) == maxLogFormats {
		return errTooManyFormats
	}
	f := LogFormat{Position: place(d), Name: d.Args[0], Escape: "default", Texts: d.Args[1:]}
	if _, err := ngxWord(d); err != nil {
		return err
	}
	if slices.ContainsFunc(r.cfg.LogFormats, func(other LogFormat) bool { return other.Name == f.Name }) {
		return fmt.Errorf(`duplicate "log_format" name "%s"`, f.Name)
	}
	if escape, ok := strings.CutPrefix(f.Texts[0], "escape="); ok {
		if !slices.Contains(escapes, escape) {
			return fmt.Errorf(`unknown log format escaping "%s"`, escape)
		}
		f.Escape, f.Texts = escape, f.Texts[1:]
	}
	if err := ngxTexts(d.Args...); err != nil {
		return err
	}
	r.cfg.LogFormats = append(r.cfg.LogFormats, f)
	return nil
}

// accessLog is ngx_stream_log_set_log.
func (r *ngxReader) accessLog(b *ngxBlock, d nginx.Directive) error {
	if d.Args[0] == "off" {
		if len(d.Args) > 1 {
			return invalidParameter(d.Args[1])
		}
		b.logsOff = true
		return nil
	}
	path, err := ngxWord(d)
	if err == nil {
		err = ngxTexts(d.Args...)
	}
	switch {
	case err != nil:
		return err
	case len(d.Args) == 1:
		return errors.New("log format is not specified")
	case len(b.logs) == maxAccessLogs:
		return errTooManyLogs
	}
	l := AccessLog{Position: place(d), Path: path}
	var ok bool
	if l.Format, ok = r.cfg.logFormat(d.Args[1]); !ok {
		return fmt.Errorf(`unknown log format "%s"`, d.Args[1])
	}
	for _, word := range d.Args[2:] {
		if err := accessLogParameter(&l, word); err != nil {
			return err
		}
	}
	if err := r.buffers.define(l); err != nil {
		return err
	}
	b.logs = append(b.logs, l)
	return nil
}

func accessLogParameter(l *AccessLog, word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	if hasValue {
		name += "="
	}
	switch name {
	case "buffer=":
		n, err := parseSize(value)
		if err != nil || n == 0 {
			return fmt.Errorf(`invalid buffer size "%s"`, value)
		}
		l.Buffer = int(min(n, maxLogBuffer))
	case "flush=":
		t, err := parseTime(value, millis)
		if err != nil || t == 0 {
			return fmt.Errorf(`invalid flush time "%s"`, value)
		}
		l.Flush = t
	case "gzip", "gzip=":
		if l.Buffer == 0 {
			l.Buffer = gzipBuffer
		}
		l.Gzip = 1
		if hasValue {
			n, ok := atoi(value, 9)
			if !ok || n == 0 {
				return fmt.Errorf(`invalid compression level "%s"`, value)
			}
			l.Gzip = int(n)
		}
	case "if=":
		l.If = value
		if value == "" {
			l.If = "0" // nothing is logged, either
		}
	default:
		return invalidParameter(word)
	}
	return nil
}

// openLogFileCache is ngx_stream_log_open_file_cache, but for what comes of it.
func (r *ngxReader) openLogFileCache(_ *ngxBlock, d nginx.Directive) error {
	var files uint64
	off := false
	for _, word := range d.Args {
		name, value, _ := strings.Cut(word, "=")
		ok := false
		switch name {
		case "max":
			files, ok = atoi(value, math.MaxInt64)
		case "min_uses":
			_, ok = atoi(value, math.MaxInt64)
		case "inactive", "valid":
			_, err := parseTime(value, seconds)
			ok = err == nil
		case "off":
			off = word == "off"
			ok = off
		}
		if !ok {
			return fmt.Errorf(`invalid "open_log_file_cache" parameter "%s"`, word)
		}
	}
	if !off && files == 0 {
		return errors.New(`"open_log_file_cache" must have "max" parameter`)
	}
	r.notice(d, d.Name, "log files stay open")
	return nil
}
