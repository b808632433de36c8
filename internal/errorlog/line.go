package errorlog

import (
	"bytes"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/sink"
)

// newEncoder makes "2026/11/22 00:05:24 [notice] name: message {fields}\n", with
// what behind returns behind the level.
func newEncoder(behind func() string) zapcore.Encoder {
	return zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		TimeKey:    "time", // keys that are not empty switch the columns on
		LevelKey:   "level",
		NameKey:    "logger",
		MessageKey: "message",
		LineEnding: "\n",
		EncodeTime: zapcore.TimeEncoderOfLayout("2006/01/02 15:04:05"),
		EncodeLevel: func(level zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
			enc.AppendString("[" + levelName(level) + "]" + behind())
		},
		EncodeName: func(name string, enc zapcore.PrimitiveArrayEncoder) {
			if behind() == "" { // nginx's lines know no parts of the process
				enc.AppendString(name + ":")
			}
		},
		EncodeDuration:   zapcore.StringDurationEncoder,
		ConsoleSeparator: " ",
	})
}

// appendLine appends a record as one line of printable text. zap escapes the
// fields as JSON demands, which leaves DEL, the C1 controls, the Unicode line
// separators and the direction marks as they are, and it does not escape the
// message and the name at all. A \u escape is valid in a JSON string, and
// fields have such bytes nowhere else.
func appendLine(dst, record []byte) []byte {
	if n := len(record); n > 0 && record[n-1] == '\n' {
		record = record[:n-1]
	}
	plain := 0 // record[plain:i] needs no escape and is not copied yet
	for i := 0; i < len(record); {
		r, size := rune(record[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(record[i:])
		}
		invalid := r == utf8.RuneError && size == 1
		if !invalid && strconv.IsPrint(r) {
			i += size
			continue
		}
		dst = append(dst, record[plain:i]...)
		dst = appendEscape(dst, r)
		i += size
		plain = i
	}
	dst = append(dst, record[plain:]...)
	return append(dst, '\n')
}

// appendEscape appends r as JSON escapes it (RFC 8259, section 7).
func appendEscape(dst []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return appendEscape(appendEscape(dst, high), low)
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// severityOf reads syslog's severity back from a line; see newEncoder.
func severityOf(line []byte) int {
	_, rest, _ := bytes.Cut(line, []byte(" ["))
	level, _, _ := bytes.Cut(rest, []byte("]"))
	if i := slices.Index(sink.Severities, string(level)); i >= 0 {
		return i
	}
	return slices.Index(sink.Severities, "notice")
}

// lostLine is the line that tells of lost ones, whatever the log's level.
func (s *Set) lostLine(lost uint64) []byte {
	entry := zapcore.Entry{Time: time.Now(), Level: Warn, LoggerName: "errorlog", Message: "log lines dropped"}
	buf, err := newEncoder(s.processName).EncodeEntry(entry, []zapcore.Field{zap.Uint64("lines", lost)})
	if err != nil {
		panic("errorlog: BUG: encode: " + err.Error())
	}
	defer buf.Free()
	return appendLine(nil, buf.Bytes())
}
