package process

import (
	"os"
	"strings"
)

// SetEnviron leaves those variables of the environment that entries name
// ("NAME"), sets those that they give a value ("NAME=value"), and removes the
// others but a few that were not meant for programs of smtplb's kind: TZ, those
// of the Go runtime, which it has obeyed already, and those by which a service
// manager speaks to the process. Without entries it does nothing.
func SetEnviron(entries []string) error {
	if len(entries) == 0 {
		return nil
	}
	set := make(map[string]string)
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); stays(name) {
			set[name] = value
		}
	}
	for _, entry := range entries {
		name, value, given := strings.Cut(entry, "=")
		if given {
			set[name] = value
		} else if value, ok := os.LookupEnv(name); ok {
			set[name] = value
		}
	}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, ok := set[name]; !ok {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

func stays(name string) bool {
	switch name {
	case "TZ", "NOTIFY_SOCKET":
		return true
	}
	for _, family := range []string{"GO", "LISTEN_", "WATCHDOG_"} {
		if strings.HasPrefix(name, family) {
			return true
		}
	}
	return false
}
