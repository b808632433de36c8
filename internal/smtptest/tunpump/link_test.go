package tunpump

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
)

// connect joins a client on the far side to a server on the near side.
func connect(t *testing.T, l *Link) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp4", netip.AddrPortFrom(l.Near(), 0).String())
	require.NoError(t, err)
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client, err = l.Dial(ctx, "tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	deadline := time.Now().Add(30 * time.Second)
	require.NoError(t, client.SetDeadline(deadline))
	require.NoError(t, server.SetDeadline(deadline))
	return client, server
}

// pingPong measures n exchanges of one byte and returns the sorted times.
func pingPong(t *testing.T, client, server net.Conn, n int) []time.Duration {
	t.Helper()
	echoed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(server, server, int64(n))
		echoed <- err
	}()
	var times []time.Duration
	for range n {
		begin := time.Now()
		_, err := client.Write([]byte{1})
		require.NoError(t, err)
		_, err = io.ReadFull(client, make([]byte, 1))
		require.NoError(t, err)
		times = append(times, time.Since(begin))
	}
	require.NoError(t, <-echoed)
	slices.Sort(times)
	return times
}

// Fails when the pump delivers at once (no sleep in send), or one delay late.
// Closeness is asked of the best exchange: a busy machine spoils some.
func TestRoundTripIsTheDelayTwice(t *testing.T) {
	t.Parallel()
	const delay = 25 * time.Millisecond
	l := New(t, Config{Delay: delay})

	begin := time.Now()
	client, server := connect(t, l)
	require.GreaterOrEqual(t, time.Since(begin), 2*delay, "connecting takes a round trip")

	require.Equal(t, l.Far().String(), client.LocalAddr().(*net.TCPAddr).IP.String())
	require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String(), "nothing translates addresses")

	rtt := pingPong(t, client, server, 40)
	t.Log(smtptest.Summarize(rtt))
	require.GreaterOrEqual(t, rtt[0], 2*delay)
	require.Less(t, rtt[0], 3*delay)
	toFar, toNear := l.Stats()
	require.Zero(t, toFar.Dropped+toNear.Dropped)
}

// Fails when receive forgets to drop, and when send garbles or swallows.
func TestBulkSurvivesLoss(t *testing.T) {
	t.Parallel()
	l := New(t, Config{Delay: 2 * time.Millisecond, Loss: 0.02, Seed: 1})
	client, server := connect(t, l)

	const size = 4 << 20
	sent := make(chan smtptest.Digest, 1)
	go func() {
		d, err := smtptest.Source(client, size, 64<<10, 1)
		if err == nil {
			err = smtptest.CloseWrite(client)
		}
		if err != nil {
			t.Errorf("send: %v", err)
		}
		sent <- d
	}()
	got, err := smtptest.Sink(server)
	require.NoError(t, err)
	require.Equal(t, <-sent, got)
	require.EqualValues(t, size, got.N)

	toFar, toNear := l.Stats()
	t.Logf("to far %+v, to near %+v", toFar, toNear)
	require.GreaterOrEqual(t, toNear.Sent, int64(size/mtu), "all of it crossed the link")
	share := float64(toNear.Dropped) / float64(toNear.Sent)
	require.InDelta(t, 0.02, share, 0.01)
	require.NotZero(t, retransmitted(t, client.(*net.TCPConn)), "TCP is end to end: its sender repairs the loss")
}

// retransmitted is the number of segments that the kernel sent again on c.
func retransmitted(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	var info *unix.TCPInfo
	var ierr error
	require.NoError(t, raw.Control(func(fd uintptr) {
		info, ierr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}))
	require.NoError(t, ierr)
	return info.Total_retrans
}

func TestNothingCrossesWhenAllIsLost(t *testing.T) {
	t.Parallel()
	l := New(t, Config{Loss: 1})
	ln, err := net.Listen("tcp4", netip.AddrPortFrom(l.Near(), 0).String())
	require.NoError(t, err)
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = l.Dial(ctx, "tcp", ln.Addr().String())
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	smtptest.Eventually(t, 20*time.Second, "something was sent", func() bool {
		_, toNear := l.Stats()
		return toNear.Sent > 0
	})
	_, toNear := l.Stats()
	require.Equal(t, toNear.Sent, toNear.Dropped)
}

// Fails when Cut leaves one direction open, and when it does not mend.
func TestCut(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	client, server := connect(t, l)
	pingPong(t, client, server, 1)

	l.Cut(true)
	for _, c := range []net.Conn{client, server} {
		_, err := c.Write([]byte{2})
		require.NoError(t, err, "the kernel takes it, and nobody tells")
	}
	for _, c := range []net.Conn{client, server} {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}

	l.Cut(false)
	for _, c := range []net.Conn{client, server} {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
		got := make([]byte, 1)
		_, err := io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, []byte{2}, got, "sent again")
	}
}

// Fails when exchange leaves the near side's socket in place: the near side has
// no such address.
func TestListenOnFarSide(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	ln, err := l.Listen(0)
	require.NoError(t, err)
	smtptest.Serve(t, ln, smtptest.Echo)

	c, err := net.DialTimeout("tcp", ln.Addr().String(), 20*time.Second)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	require.Equal(t, l.Near().String(), c.LocalAddr().(*net.TCPAddr).IP.String())
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, smtptest.CloseWrite(c))
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}

// Fails when live unlocks its thread: some goroutine of the loop then runs on
// it and finds the far namespace's devices.
func TestFarThreadServesNobodyElse(t *testing.T) {
	t.Parallel()
	here, err := os.Readlink("/proc/thread-self/ns/net")
	require.NoError(t, err)
	for range 5 {
		l, err := open(Config{})
		require.NoError(t, err)
		var there string
		require.NoError(t, l.Do(func() (err error) {
			there, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}))
		require.NotEqual(t, here, there)
		l.close()
		found := make(chan string)
		for range 8 {
			go func() {
				ns, _ := os.Readlink("/proc/thread-self/ns/net")
				found <- ns
			}()
		}
		for range 8 {
			require.Equal(t, here, <-found)
		}
	}
}

// Fails when close leaves a device's descriptor open. Devices are known by
// their index, since another link may take the name at once.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	l, err := open(Config{})
	require.NoError(t, err)
	device, err := net.InterfaceByName(l.nearTun.name)
	require.NoError(t, err)
	ln, err := l.Listen(0)
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	l.close()

	_, err = net.InterfaceByIndex(device.Index)
	require.Error(t, err, "the device is gone")
	_, err = l.Listen(0)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestLinksDoNotCollide(t *testing.T) {
	t.Parallel()
	a, b := New(t, Config{}), New(t, Config{})
	require.NotEqual(t, a.Near(), b.Near())
	require.NotEqual(t, a.nearTun.name, b.nearTun.name)
	for _, l := range []*Link{a, b} {
		client, server := connect(t, l)
		pingPong(t, client, server, 1)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ device, near, far string }{
		{"smtplb0", "198.18.0.1", "198.18.0.2"},
		{"smtplb1", "198.18.0.5", "198.18.0.6"},
		{"smtplb64", "198.18.1.1", "198.18.1.2"},
		{"smtplb32767", "198.19.255.253", "198.19.255.254"},
	} {
		near, far, err := addresses(c.device)
		require.NoError(t, err)
		require.Equal(t, c.near, near.String())
		require.Equal(t, c.far, far.String())
	}
	_, _, err := addresses("smtplb32768")
	require.Error(t, err)
}

func TestOnlyIPv4TCPCrosses(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	_, err := l.Dial(t.Context(), "udp", netip.AddrPortFrom(l.Near(), 9).String())
	require.ErrorContains(t, err, "only TCP over IPv4")
	want := errors.New("mine")
	require.ErrorIs(t, l.Do(func() error { return want }), want)
}
