package errorlog

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// encode is one record as it goes to the file.
func encode(t *testing.T, entry zapcore.Entry, fields ...zap.Field) string {
	t.Helper()
	buf, err := newEncoder(func() string { return "" }).EncodeEntry(entry, fields)
	require.NoError(t, err)
	return string(appendLine(nil, buf.Bytes()))
}

func TestLine(t *testing.T) {
	t.Parallel()
	entry := zapcore.Entry{Time: time.Date(2026, 11, 22, 0, 5, 24, 1e8, time.Local), Level: Notice, Message: "peer down"}
	require.Equal(t, "2026/11/22 00:05:24 [notice] peer down\n", encode(t, entry))

	entry.LoggerName = "healthcheck"
	require.Equal(t, `2026/11/22 00:05:24 [notice] healthcheck: peer down {"peer": "10.0.0.1:25", "took": "1.5s", "fails": 3, "error": "refused"}`+"\n",
		encode(t, entry, zap.String("peer", "10.0.0.1:25"), zap.Duration("took", 1500*time.Millisecond),
			zap.Int("fails", 3), zap.Error(errors.New("refused"))))
}

// TestLineHasNoStack: a stack in an entry would be lines of its own. In a
// field it is escaped.
func TestLineHasNoStack(t *testing.T) {
	t.Parallel()
	entry := zapcore.Entry{Level: Error, Message: "panic", Stack: "main.main\n\tmain.go:1"}
	requireOneLine(t, encode(t, entry, zap.Stack("stack")))
}

// hostile are the texts a peer, a file name or an error may bring along: each
// byte alone, each byte between others, all of them, and runes that a terminal
// acts on or that look like a line's end.
func hostile() []string {
	var all []byte
	texts := []string{
		"\u0085\u2028\u2029", "\u202ekcehc\u202c", "\u009b31m", "\u00ad\u200b\ufeff", "\U000e0001\U0001f600",
		"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x80", `"`, `\`, `\u000a`, `{"a": "b"}`,
		"220 x\r\n2026/11/22 00:05:24 [emerg] forged",
	}
	for b := range 256 {
		all = append(all, byte(b))
		texts = append(texts, string([]byte{byte(b)}), string([]byte{'a', byte(b), 'z'}))
	}
	return append(texts, string(all))
}

func requireOneLine(t *testing.T, line string) {
	t.Helper()
	require.True(t, strings.HasSuffix(line, "\n"), "%q", line)
	line = strings.TrimSuffix(line, "\n")
	require.True(t, utf8.ValidString(line), "%q", line)
	for i, r := range line {
		require.False(t, r < 0x20 || r >= 0x7f && r < 0xa0, "raw %#x at %d of %q", r, i, line)
		require.NotContains(t, "\u2028\u2029\u202e\ufeff\U000e0001", string(r), "in %q", line)
	}
}

// TestLineHostile puts each hostile text everywhere that a record has text.
// Fails if appendLine copies the record unchanged (0x7f in a field, a line feed
// in the message), or escapes only below 0x20, or only ASCII.
func TestLineHostile(t *testing.T) {
	t.Parallel()
	for _, text := range hostile() {
		line := encode(t, zapcore.Entry{Level: Info, LoggerName: text, Message: text})
		requireOneLine(t, line)

		line = encode(t, zapcore.Entry{Level: Info, Message: "session"},
			zap.String("string", text), zap.ByteString("bytes", []byte(text)), zap.String(text+"key", "value"),
			zap.Strings("strings", []string{text}), zap.Error(errors.New(text)), zap.Any("any", map[string]string{text: text}))
		requireOneLine(t, line)
		var fields map[string]any
		_, object, _ := strings.Cut(line, "session ")
		require.NoError(t, json.Unmarshal([]byte(object), &fields), "%q", line)
		want := strings.ToValidUTF8(text, "")
		got := strings.ReplaceAll(fields["string"].(string), "\ufffd", "")
		require.Equal(t, want, got, "a field must come back as it was, but for bytes that are not UTF-8")
	}
}

// TestLineKeepsText: what can be read stays readable.
func TestLineKeepsText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", "größer als €5, 漢字, 😀"} {
		require.Equal(t, text+"\n", string(appendLine(nil, []byte(text+"\n"))))
		require.Equal(t, text+"\n", string(appendLine(nil, []byte(text))))
	}
	require.Equal(t, `a\u000ab\u007f\u2028\udb40\udc01\ufffdc`+"\n", string(appendLine(nil, []byte("a\nb\x7f\u2028\U000e0001\xffc\n"))))
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	want := zapcore.Level(-128)
	for _, name := range []string{"debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"} {
		level, err := ParseLevel(name)
		require.NoError(t, err)
		require.Greater(t, level, want, "in ascending order")
		require.NotContains(t, []zapcore.Level{zapcore.DPanicLevel, zapcore.PanicLevel, zapcore.FatalLevel, zapcore.InvalidLevel}, level)
		require.Contains(t, encode(t, zapcore.Entry{Level: level}), "["+name+"]")
		want = level
	}
	_, err := ParseLevel("warning")
	require.EqualError(t, err, `unknown log level "warning": want one of debug, info, notice, warn, error, crit, alert, emerg`)
	require.Contains(t, encode(t, zapcore.Entry{Level: zapcore.DPanicLevel}), "[error]")
	require.Contains(t, encode(t, zapcore.Entry{Level: Debug - 1}), "[debug]")
}

// BenchmarkLog is a session's line, from the logger into the queue.
func BenchmarkLog(b *testing.B) {
	log, err := Open(Target{"/dev/null", Info})
	require.NoError(b, err)
	defer log.Close(patience)
	logger := log.Logger()
	b.ReportAllocs()
	for b.Loop() {
		logger.Debug("session ended", zap.String("client", "192.0.2.1:40000"), zap.String("peer", "10.0.0.1:25"),
			zap.Uint64("bytes_in", 12345), zap.Uint64("bytes_out", 678), zap.Duration("took", time.Second))
	}
}
