package accesslog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"smtplb/internal/sink"
)

// Target is where lines go and how: what access_log says except for the format
// and the condition. It is the key of a Set.
type Target struct {
	// Path is a file, "stderr", "/dev/stdout" or "syslog:server=…"; with
	// Variable, only the text by which reports name the log.
	Path string
	// Variable says that each line brings its path, with WriteTo.
	Variable bool
	// Buffer is how many bytes may wait to be written together; 0 is none, and
	// lines are written within 10 ms; but 64 KiB with Gzip, as in nginx.
	Buffer int
	// Flush is how long a line may wait in the buffer; 0 is for ever.
	Flush time.Duration
	// Gzip is the level of compression, 1 to 9; 0 is none.
	Gzip int
}

// MaxBuffer bounds Buffer. nginx has no bound.
const MaxBuffer = 64 << 20

// gzipBuffer is Buffer where only Gzip is given.
const gzipBuffer = 64 << 10

func (t Target) withDefaults() Target {
	if t.Gzip != 0 && t.Buffer == 0 {
		t.Buffer = gzipBuffer
	}
	return t
}

// Check tells, in nginx's words where it has them, whether Open would do. It
// makes no file.
func (t Target) Check() error {
	if err := t.checkParameters(); err != nil || t.Variable {
		return err
	}
	return t.hint(sink.Check(t.Path))
}

func (t Target) checkParameters() error {
	t = t.withDefaults()
	buffered := t.Buffer != 0 || t.Flush != 0
	switch {
	case t.Path == "":
		return errors.New("access log without a path")
	case t.Buffer < 0:
		return fmt.Errorf("invalid buffer size %d", t.Buffer)
	case t.Buffer > MaxBuffer:
		return fmt.Errorf("invalid buffer size %d: at most %d", t.Buffer, MaxBuffer)
	case t.Flush < 0:
		return fmt.Errorf("invalid flush time %s", t.Flush)
	case t.Gzip < 0 || t.Gzip > 9:
		return fmt.Errorf("invalid compression level %d", t.Gzip)
	case buffered && strings.HasPrefix(t.Path, "syslog:"):
		return errors.New("logs to syslog cannot be buffered")
	case buffered && t.Variable:
		return errors.New("buffered logs cannot have variables in name")
	case t.Flush != 0 && t.Buffer == 0:
		return fmt.Errorf("no buffer is defined for access_log %q", t.Path)
	}
	return nil
}

// hint says that an error of a file is of this log; one of syslog's parameters
// does.
func (t Target) hint(err error) error {
	if err == nil || !sink.IsFile(t.Path) {
		return err
	}
	return fmt.Errorf("open access log: %w", err)
}
