package accesslog

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// reportInterval is how often at most the losses of a log are told.
const reportInterval = time.Second

// losses counts what logs lose and tells the logger, in a goroutine of its own
// (run) since the one that writes a log may be blocked, and a session's must
// not wait.
type losses struct {
	logger *zap.Logger
	wake   chan struct{} // holds one token while there may be losses
	quit   chan struct{}
	done   chan struct{} // closed when run has ended

	mu    sync.Mutex      // protects below
	byLog map[string]loss // by the log's path; not yet told
}

type loss struct {
	lines  uint64
	reason error // the last
}

func newLosses(logger *zap.Logger) *losses {
	l := &losses{
		logger: logger,
		wake:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
		byLog:  make(map[string]loss),
	}
	go l.run()
	return l
}

func (l *losses) add(path string, lines uint64, reason error) {
	l.mu.Lock()
	l.byLog[path] = loss{l.byLog[path].lines + lines, reason}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // run has a token to take and will see this too
	}
}

// run tells at once of the first loss, and then once an interval.
func (l *losses) run() {
	defer close(l.done)
	for {
		select {
		case <-l.wake:
		case <-l.quit:
			return
		}
		l.tell()
		select {
		case <-time.After(reportInterval):
		case <-l.quit:
			return
		}
	}
}

func (l *losses) tell() {
	l.mu.Lock()
	all := l.byLog
	l.byLog = make(map[string]loss)
	l.mu.Unlock()
	for path, loss := range all {
		l.logger.Error("access log lines lost", zap.String("path", path), zap.Uint64("lines", loss.lines), zap.NamedError("reason", loss.reason))
	}
}

// stop ends run and tells the rest.
func (l *losses) stop() {
	close(l.quit)
	<-l.done
	l.tell()
}
