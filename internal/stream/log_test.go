package stream

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"smtplb/internal/smtptest"
)

// ownLog is a log for a route, and what it was told.
func ownLog() (*Log, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return NewLog(zap.New(core)), logs
}

// A session logs to its route from the beginning to the end, whatever route its
// port has by then, in either of the two manners; nothing about it is said in the
// engine's own log.
//
// Fails if any line goes by the worker's logger, or by the route that the port has
// when the session ends.
func TestSessionLogsToItsRoute(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		nginx bool
		want  int // lines: nginx's are of the client, the server and the end
	}{"own": {false, 1}, "nginx": {true, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, told := ownLog()
			second, toldLater := ownLog()
			l := listen(t, "tcp")
			var route Route
			g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
				p.Log, p.NginxLog = first, test.nginx
				route = p.Route
			})
			client, server := g.pair(l)
			require.True(t, g.comes(relaying))
			route.Group, route.Log, route.NginxLog = g.group, second, test.nginx
			g.port.setRoute(&route)
			for _, c := range []io.Closer{client, server} {
				require.NoError(t, c.Close())
			}
			g.gone(patience)
			require.Equal(t, test.want, told.Len())
			require.Zero(t, toldLater.Len()+g.logs.Len())
		})
	}
}

// What peers can cause is said once a second in each log, so that the trouble of
// one server hides no other's.
//
// Fails if logs share the second.
func TestComplaintsOfEachLog(t *testing.T) {
	t.Parallel()
	first, told := ownLog()
	var route Route
	g := newRig(t, []string{smtptest.Refused(t)}, func(p *plan) {
		p.Log = first
		route = p.Route
	})
	for range 3 {
		talk(t, g.dial(), "")
	}
	second, toldToo := ownLog()
	route.Group, route.Log = g.group, second
	g.port.setRoute(&route)
	talk(t, g.dial(), "")
	g.gone(patience)
	complaints := func(logs *observer.ObservedLogs) int { return logs.FilterLevelExact(zapcore.ErrorLevel).Len() }
	require.NotZero(t, complaints(told))
	require.NotZero(t, complaints(toldToo))
	require.Zero(t, g.logs.Len())
}
