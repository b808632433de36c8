package stream

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/script"
)

// exchanges are what a client and its server say in turn, over and over.
var exchanges = []struct {
	name      string
	up, down  int // bytes of a command and of its reply
	rounds    int // for TestNothingIsAllocatedPerEvent
	withPipes bool
}{
	{"dialogue", 40, 60, 10_000, true},
	{"splice", 512 << 10, 60, 1000, true},
	{"copy", 512 << 10, 60, 1000, false},
}

// TestNothingIsAllocatedPerEvent counts every allocation of the process over
// thousands of exchanges. It fails if event, or anything below it, allocates.
func TestNothingIsAllocatedPerEvent(t *testing.T) {
	for _, x := range exchanges {
		t.Run(x.name, func(t *testing.T) {
			talk := newBareTalk(t, x.up, x.down, x.withPipes)
			for range x.rounds / 10 {
				talk.exchange()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range x.rounds {
				talk.exchange()
			}
			runtime.ReadMemStats(&after)
			n := after.Mallocs - before.Mallocs
			t.Logf("%d allocations in %d exchanges", n, x.rounds)
			require.Less(t, n, uint64(50), "the runtime's own are a few")
			if st := talk.Stats(); x.up > 16<<10 && x.withPipes {
				require.Greater(t, st.Spliced, st.Copied)
			} else {
				require.Zero(t, st.Spliced)
			}
		})
	}
}

// A session goes from port to port without an allocation, whatever its record holds.
//
// Fails if find makes a key of its own, or forget drops what it gives back.
func TestNothingIsAllocatedToPass(t *testing.T) {
	d := newDiary(t, func(s *script.Scope) error { return s.Set("$word") })
	g := newRig(t, nil, fronted, d.keeps("$word"))
	in := g.another("127.0.0.1:0", func(r *Route) {
		passing(g.port.socket.Addr(), g.port)(r)
		r.HeaderTimeout = patience
	})
	g.dialPort(in, frontAddr)
	require.True(t, g.comes(func(s *session) bool { return s.state == stateHeader }))
	const times = 10_000
	var before, after runtime.MemStats
	pass := in.restRoute().Pass
	to, _ := pass.find(pass.Addr)
	g.ask(func(w *worker) {
		w.sessions.Each(func(_ uint32, s *session) {
			for i := range 2 * times {
				if i == times {
					runtime.ReadMemStats(&before)
				}
				w.keep(s)
				w.move(s, to, pass.Addr)
			}
			runtime.ReadMemStats(&after)
		})
	})
	require.Less(t, after.Mallocs-before.Mallocs, uint64(50), "the runtime's own are a few")
}

// BenchmarkRelay is the time of one exchange, peers included.
func BenchmarkRelay(b *testing.B) {
	for _, x := range exchanges {
		b.Run(x.name, func(b *testing.B) {
			talk := newBareTalk(b, x.up, x.down, x.withPipes)
			b.SetBytes(int64(x.up + x.down))
			b.ReportAllocs()
			for b.Loop() {
				talk.exchange()
			}
		})
	}
}

// bareTalk is a session whose peers are plain blocking descriptors, so that
// nothing but the engine can allocate.
type bareTalk struct {
	*rig
	client, server    int
	up, down, scratch []byte
}

func newBareTalk(t testing.TB, up, down int, withPipes bool) *bareTalk {
	t.Helper()
	l := bareSocket(t)
	require.NoError(t, unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(l, 1))
	name, err := unix.Getsockname(l)
	require.NoError(t, err)
	in4 := name.(*unix.SockaddrInet4)
	addr := netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port))
	talk := &bareTalk{
		rig: newRig(t, []string{addr.String()}, func(p *plan) {
			if !withPipes {
				p.prepare = func(w *worker) { w.loop.Pipes.Limit = 0 }
			}
		}),
		client:  bareSocket(t),
		up:      make([]byte, up),
		down:    make([]byte, down),
		scratch: make([]byte, max(up, down)),
	}
	to := netip.MustParseAddrPort(talk.port.name)
	require.NoError(t, unix.Connect(talk.client, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}))
	talk.server, _, err = unix.Accept(l)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(talk.server) })
	return talk
}

func bareSocket(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	return fd
}

func (k *bareTalk) exchange() {
	k.move(k.client, k.server, k.up)
	k.move(k.server, k.client, k.down)
}

// move sends b and waits for all of it at the other side.
func (k *bareTalk) move(from, to int, b []byte) {
	if n, err := unix.Write(from, b); n != len(b) {
		panic(err)
	}
	for got := 0; got < len(b); {
		n, err := unix.Read(to, k.scratch)
		if n <= 0 {
			panic(err)
		}
		got += n
	}
}
