package reactor

import (
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain gives each loop that a test runs a processor, and the tests some:
// loops wait beside the scheduler.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(16)
	os.Exit(m.Run())
}

// recorder is a Handler that passes on what it is told.
type recorder struct {
	ready   func(Token, uint32)
	expired func(uint32)
}

func (r *recorder) Ready(t Token, events uint32) { r.ready(t, events) }
func (r *recorder) Expired(index uint32)         { r.expired(index) }

func startLoop(t *testing.T, h Handler) *Loop {
	t.Helper()
	l, err := NewLoop(h)
	require.NoError(t, err)
	go l.Run()
	t.Cleanup(l.Stop)
	return l
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s within 20 s", what)
		panic("unreachable")
	}
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { Close(fds[1]) })
	return fds[0], fds[1]
}

// TestPostWakesASleepingLoop posts from another goroutine, thousands of times
// while the loop goes to sleep and wakes. A wake-up that is lost (asleep set
// after the mailbox was looked into, say) makes it hang.
func TestPostWakesASleepingLoop(t *testing.T) {
	t.Parallel()
	l := startLoop(t, &recorder{})
	for i := range 5000 {
		got := make(chan int, 1)
		l.Post(func() { got <- i })
		require.Equal(t, i, await(t, got, "post"))
	}
}

func TestReadinessTimersAndChores(t *testing.T) {
	t.Parallel()
	events := make(chan uint32, 8)
	fired := make(chan uint32, 8)
	r := &recorder{expired: func(i uint32) { fired <- i }}
	r.ready = func(_ Token, ev uint32) { events <- ev }
	l := startLoop(t, r)
	a, b := pair(t)
	chore := make(chan bool, 1)
	l.Post(func() {
		l.Add(a, MakeToken(KindUser, 1, 0, 0), Stream)
		l.Timers.Arm(9, l.Now()+150)
		l.After(30, func() { chore <- true })
	})
	require.NotZero(t, await(t, events, "first event")&Writable)
	_, errno := Send(b, []byte("x"))
	require.Zero(t, errno)
	require.NotZero(t, await(t, events, "data")&Readable)
	ShutdownWrite(b)
	require.NotZero(t, await(t, events, "end of stream")&PeerShut)
	await(t, chore, "chore")
	require.Equal(t, uint32(9), await(t, fired, "timer"))
	l.Post(func() { l.CloseLater(a) })
}

// TestAgainWaitsForOthers shows that a handler that asks to go on is called
// again after the events that are waiting, not before.
func TestAgainWaitsForOthers(t *testing.T) {
	t.Parallel()
	order := make(chan Token, 16)
	r := &recorder{}
	l, err := NewLoop(r)
	require.NoError(t, err)
	a, _ := pair(t)
	c, _ := pair(t)
	busy, other := MakeToken(KindUser, 1, 0, 0), MakeToken(KindUser, 2, 0, 0)
	rounds := 0
	r.ready = func(tok Token, _ uint32) {
		order <- tok
		if tok == busy && rounds < 2 {
			rounds++
			l.Again(busy)
		}
	}
	l.Add(a, busy, Stream)
	l.Add(c, other, Stream)
	go l.Run()
	defer l.Stop()
	got := []Token{await(t, order, "event"), await(t, order, "event"), await(t, order, "event"), await(t, order, "event")}
	require.Equal(t, []Token{busy, other, busy, busy}, got)
	Close(a)
	Close(c)
}

func TestPipesAreBoundedAndTrimmed(t *testing.T) {
	t.Parallel()
	p := Pipes{Limit: 2}
	a, errno := p.Get()
	require.Zero(t, errno)
	b, errno := p.Get()
	require.Zero(t, errno)
	_, errno = p.Get()
	require.Equal(t, unix.EAGAIN, errno)
	p.Put(a)
	p.Put(b)
	p.Trim() // both were lent since the start
	require.Equal(t, 2, p.Open())
	b, _ = p.Get()
	p.Put(b)
	p.Trim() // one was never needed since the last
	require.Equal(t, 1, p.Open())
	p.Close()
	require.Equal(t, 0, p.Open())
}

func TestSockaddr(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"127.0.0.1:25", "[2001:db8::1]:10025", "[fe80::1%3]:25", "255.255.255.255:65535"} {
		var sa Sockaddr
		want := netip.MustParseAddrPort(s)
		sa.SetTCP(want)
		require.Equal(t, want, sa.TCP())
	}
	var sa Sockaddr
	sa.SetTCP(netip.MustParseAddrPort("[::ffff:192.0.2.1]:25"))
	require.Equal(t, "192.0.2.1:25", sa.TCP().String())
	require.Error(t, sa.SetUnix(string(make([]byte, 108))))
	require.NoError(t, sa.SetUnix("/run/x"))
	require.False(t, sa.TCP().IsValid())
}
