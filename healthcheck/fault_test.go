package healthcheck

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// What is our own fault says nothing of the server, and is said once a minute.
// Fails if isLocal is always false.
func TestLocalErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.EADDRNOTAVAIL} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zapcore.DebugLevel)
				f := newField(0)
				f.fail("s:25", errno)
				c := start(zap.New(core), f.dial)
				defer c.Stop()
				var r reporter
				c.Update([]Target{aim("s:25", &r)})
				pass(50 * time.Second)
				require.Zero(t, r.count())
				require.Greater(t, len(f.visits("s:25")), 40)
				require.Len(t, logs.TakeAll(), 1)
			})
		})
	}
}

// The log of a failing server. Fails if the count goes on, or names the wrong
// bound.
func TestLogOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		f := newField(0)
		f.fail("s:25", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH})
		c := start(zap.New(core), f.dial)
		defer c.Stop()
		r := reporter{waiting: true}
		c.Update([]Target{aim("s:25", &r)})
		pass(4*time.Second + 500*time.Millisecond)
		entries := logs.TakeAll()
		require.GreaterOrEqual(t, len(entries), 4)
		for i, e := range entries[:4] {
			require.Equal(t, zapcore.DebugLevel, e.Level)
			want := map[string]any{"upstream": "up", "peer": "s:25", "reason": "connect: no route to host"}
			if i < 3 {
				want["count"] = fmt.Sprintf("%d of 3", i+1)
			}
			require.Equal(t, want, e.ContextMap())
		}
	})
}

type panicker struct{ n int }

func (p *panicker) Probed(Result) time.Duration { p.n++; panic("on purpose") }

// Neither a Reporter nor a probe that panics stops the others. Fails without
// the recover of each.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(0)
		c := newChecker(t, func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "panic:25" {
				panic("on purpose")
			}
			return f.dial(ctx, network, address)
		})
		var p panicker
		var well, unwell reporter
		c.Update([]Target{aim("a:25", &p), aim("b:25", &well), aim("panic:25", &unwell)})
		pass(time.Minute)
		require.Greater(t, p.n, 3)
		require.Greater(t, well.count(), 3)
		require.Zero(t, unwell.count())
	})
}
