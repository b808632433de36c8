package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// Sockets of the same addresses that failed reloads have opened, one after the
// other, are all waited for: none can close as long as there is no room for sessions.
// With reuseport, the first do not keep the second from being opened. A reload waits
// for them no longer because they are many.
//
// Fails if the second take the places of the first, so that a log could end before
// the sessions of those who wait there; or if each address waits for itself.
func TestEverySocketThatClosesIsAwaited(t *testing.T) {
	t.Parallel()
	const failed, addresses = 2, 5
	r := newLogRun(t)
	r.SetMaxSessions(0)
	port := smtptest.FreePort(t)
	r.apply(fmt.Sprintf("events {}\nstream { server { listen %d reuseport; return ok; } }\n", port))
	var listens strings.Builder
	for i := range addresses {
		fmt.Fprintf(&listens, "listen 127.0.0.%d:%d reuseport;\n", i+1, port)
	}
	fmt.Fprintf(&listens, "listen 192.0.2.1:%d;\n", port) // no address of this host
	begin := time.Now()
	for range failed {
		_, _, err := r.prepare("events {}\nstream { server {\n" + listens.String() + "return ok; } }\n")
		require.ErrorContains(t, err, "192.0.2.1")
	}
	require.Less(t, time.Since(begin), addresses*addresses*closeWait/2)
	require.Len(t, r.closing, failed*addresses)
	r.SetMaxSessions(1)
	for closed := range r.closing {
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			require.Fail(t, "a socket is still open")
		}
	}
}
