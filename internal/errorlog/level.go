package errorlog

import (
	"fmt"
	"strings"

	"go.uber.org/zap/zapcore"
)

// nginx's levels. The last three leave out zap's DPanic, Panic and Fatal, which
// end the program, and InvalidLevel, at which a Core may panic.
const (
	Debug  = zapcore.DebugLevel - 1
	Info   = zapcore.DebugLevel
	Notice = zapcore.InfoLevel
	Warn   = zapcore.WarnLevel
	Error  = zapcore.ErrorLevel
	Crit   = zapcore.InvalidLevel + 1
	Alert  = zapcore.InvalidLevel + 2
	Emerg  = zapcore.InvalidLevel + 3
)

// levels are in ascending order.
var levels = [...]struct {
	level zapcore.Level
	name  string
}{
	{Debug, "debug"}, {Info, "info"}, {Notice, "notice"}, {Warn, "warn"},
	{Error, "error"}, {Crit, "crit"}, {Alert, "alert"}, {Emerg, "emerg"},
}

// ParseLevel is the level of a name as error_log has it.
func ParseLevel(name string) (zapcore.Level, error) {
	var names []string
	for _, l := range levels {
		if l.name == name {
			return l.level, nil
		}
		names = append(names, l.name)
	}
	return 0, fmt.Errorf("unknown log level %q: want one of %s", name, strings.Join(names, ", "))
}

// levelName is a level's name; one between two of ours has the lower one's.
func levelName(level zapcore.Level) string {
	name := levels[0].name
	for _, l := range levels {
		if l.level <= level {
			name = l.name
		}
	}
	return name
}
