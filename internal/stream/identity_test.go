package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/reactor"
	"smtplb/internal/smtptest"
)

// TestByteIdentity is T12: whatever goes in on one side comes out on the other,
// both ways at once, in pieces of 1 byte to 64 KiB, over TCP and unix sockets,
// spliced, copied, and where splice fails in the middle of a stream; 1,000
// sessions each and three of 50 MiB. Some are broken off with bytes in the
// pipe, which nobody else may get.
//
// It fails in mode splice if half.drop pools a pipe that holds bytes; in every
// mode that fails if refuseSplice forgets the pipe; in "short" if flush takes a
// splice to be complete; in "zero" if splice takes 0 for the end of the stream.
func TestByteIdentity(t *testing.T) {
	for _, mode := range []struct {
		name     string
		sessions int
		bulk     int // sessions of 50 MiB
		prepare  func(*worker)
		check    func(*testing.T, Stats)
	}{
		{"splice", 1000, 3, nil, func(t *testing.T, s Stats) {
			require.Greater(t, s.Spliced, 9*s.Copied)
			require.Zero(t, s.Refused)
		}},
		{"copy", 1000, 3, func(w *worker) { w.loop.Pipes.Limit = 0 }, func(t *testing.T, s Stats) {
			require.Zero(t, s.Spliced)
		}},
		{"EPERM", 200, 1, failing(0, unix.EPERM), refusedSome},
		{"EINVAL", 200, 0, failing(0, unix.EINVAL), refusedSome},
		{"ENOSYS", 200, 0, failing(0, unix.ENOSYS), refusedSome},
		{"short", 200, 1, short, func(t *testing.T, s Stats) { require.NotZero(t, s.Spliced) }},
		{"zero", 200, 1, failing(0, 0), refusedSome},
	} {
		t.Run(mode.name, func(t *testing.T) {
			var sum Stats
			for i, link := range links {
				size := int64(0)
				if i < mode.bulk {
					size = 50 << 20
				}
				sum.add(relayed(t, link, mode.sessions/len(links), size, mode.prepare))
			}
			mode.check(t, sum)
		})
	}
}

func refusedSome(t *testing.T, s Stats) {
	require.NotZero(t, s.Refused)
	require.NotZero(t, s.Spliced, "refused from the start")
}

// links are the networks of the client's and the server's side.
var links = [...]struct{ client, server string }{{"tcp", "tcp"}, {"unix", "unix"}, {"tcp", "unix"}, {"unix", "tcp"}}

// failing makes about every fifth splice of a worker return this instead.
func failing(n int, errno syscall.Errno) func(*worker) {
	return func(w *worker) {
		w.calls.splice = func(from, to, size int) (int, syscall.Errno) {
			if rand.IntN(5) == 0 {
				return n, errno
			}
			return reactor.Splice(from, to, size)
		}
	}
}

// short makes every splice of a worker move less than it might.
func short(w *worker) {
	w.calls.splice = func(from, to, size int) (int, syscall.Errno) {
		return reactor.Splice(from, to, 1+rand.IntN(min(size, 20_000)))
	}
}

// relayed runs n sessions over a link, and one of the size besides, and
// compares what the peers sent, what they got, and what the engine counted.
func relayed(t *testing.T, link struct{ client, server string }, n int, size int64, prepare func(*worker)) Stats {
	var book book
	server := smtptest.Serve(t, listen(t, link.server), book.serve)
	g := newRig(t, []string{address(link.server, server.Addr())}, func(p *plan) {
		p.prepare = prepare
		if link.client == "unix" {
			p.listen = "unix:" + t.TempDir() + "/port"
		}
	})
	parallel(t, n+1, 16, func(i int) error {
		if i == 0 && size > 0 {
			return book.client(g, size, 64<<10)
		}
		if i%20 == 1 {
			return breakOff(g)
		}
		segment := 1 << rand.IntN(17)
		return book.client(g, 1+rand.Int64N(20*int64(segment)), segment)
	})
	g.gone(patience)
	for _, a := range g.accounts() {
		require.Equal(t, a.fromClient, a.toServer, a)
		if a.fromClient > headerSize { // not broken off
			require.Equal(t, a.fromServer, a.toClient, a)
		}
	}
	book.compare(t)
	return g.Stats()
}

func address(network, addr string) string {
	if network == "unix" {
		return "unix:" + addr
	}
	return addr
}

// book has both sides of every session, by the seed of its streams.
type book struct {
	mu              sync.Mutex // protects below
	clients, server map[uint64]side
}

// side is what one peer of a session has seen.
type side struct {
	sent, got smtptest.Digest
	err       string
}

func (b *book) note(m *map[uint64]side, seed uint64, s side) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *m == nil {
		*m = make(map[uint64]side)
	}
	(*m)[seed] = s
}

// header begins the client's stream and says what the server is to send.
type header struct {
	Seed, Size, Segment uint64
}

const headerSize = 24

func (b *book) client(g *rig, size int64, segment int) error {
	c, err := g.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	h := header{rand.Uint64(), uint64(size), uint64(segment)}
	if err := binary.Write(c, binary.BigEndian, h); err != nil {
		return err
	}
	b.note(&b.clients, h.Seed, converse(c, size, segment, h.Seed))
	return nil
}

func (b *book) serve(c net.Conn) {
	var h header
	if err := binary.Read(c, binary.BigEndian, &h); err != nil {
		return
	}
	s := converse(c, int64(h.Size), int(h.Segment), ^h.Seed)
	if h.Seed != abandoned {
		b.note(&b.server, h.Seed, s)
	}
}

// compare shows that each side got what the other sent.
func (b *book) compare(t *testing.T) {
	smtptest.Eventually(t, patience, "both sides have ended", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.clients) == len(b.server)
	})
	for seed, c := range b.clients {
		s := b.server[seed]
		require.Empty(t, c.err, "client")
		require.Empty(t, s.err, "server")
		require.Equal(t, c.sent, s.got, "client to server")
		require.Equal(t, s.sent, c.got, "server to client")
	}
}

// converse sends size bytes and its end of stream while it reads to the end.
func converse(c net.Conn, size int64, segment int, seed uint64) (s side) {
	sent := make(chan error, 1)
	go func() {
		var err error
		if s.sent, err = smtptest.Source(c, size, segment, seed); err == nil {
			err = smtptest.CloseWrite(c)
		}
		sent <- err
	}()
	got, err := smtptest.Sink(c)
	if err := errors.Join(err, <-sent); err != nil {
		s.err = err.Error()
	}
	s.got = got
	return s
}

// abandoned is the seed of sessions that are broken off.
const abandoned = 0

// breakOff is a client that asks for more than it reads, and is reset while
// the rest is on its way.
func breakOff(g *rig) error {
	c, err := g.connect(func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { reactor.SetInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10) })
	})
	if err != nil {
		return err
	}
	h := header{abandoned, 8 << 20, 64 << 10}
	if err := binary.Write(c, binary.BigEndian, h); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, 256<<10); err != nil {
		return err
	}
	return smtptest.Abort(c)
}

// TestSmugglingCorpus sends streams that a mail proxy could be tempted to
// change, cut in two at every byte, and gets each back as it was. It fails if
// the relay touches a single byte of them.
func TestSmugglingCorpus(t *testing.T) {
	t.Parallel()
	g := newRig(t, []string{serve(t, smtptest.Echo)})
	corpus := readCorpus(t)
	require.Greater(t, len(corpus), 20)
	c := g.dial()
	for _, want := range corpus {
		for cut := range want {
			go func() {
				c.Write(want[:cut])
				c.Write(want[cut:])
			}()
			got := make([]byte, len(want))
			_, err := io.ReadFull(c, got)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
}

func readCorpus(t *testing.T) (corpus [][]byte) {
	f, err := os.Open("testdata/smuggling.txt")
	require.NoError(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, `"`) {
			s, err := strconv.Unquote(line)
			require.NoError(t, err, line)
			corpus = append(corpus, []byte(s))
		}
	}
	return corpus
}

// TestUrgentDataStaysInTheStream sends bytes with MSG_OOB between others, in
// dialogue and in bulk, both ways. Reads and splices stop short at such a byte
// and no event tells of what is behind it.
//
// Meanwhile signals come, as they do from the Go runtime: with one pending, a read
// at the mark says EAGAIN, whatever is behind it (tcp_recvmsg_locked).
//
// It fails if end.note ignores EPOLLPRI (what is behind the mark is stuck), if a
// socket has no SO_OOBINLINE (the byte is missing), or if copy takes that EAGAIN for
// the end of what is there (stuck, in about every second run).
func TestUrgentDataStaysInTheStream(t *testing.T) {
	quiet := make(chan struct{})
	var signals sync.WaitGroup
	signals.Go(func() { interrupt(quiet) })
	defer signals.Wait()
	defer close(quiet)
	l := listen(t, "tcp")
	g := newRig(t, []string{l.Addr().String()})
	for _, size := range []int{1, 100, 50_000} {
		client, server := g.pair(l)
		for name, way := range map[string][2]net.Conn{"up": {client, server}, "down": {server, client}} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) { sendUrgent(t, way[0], way[1], size) })
		}
	}
}

// sendUrgent sends parts with an urgent byte after each, and wants each part
// before it sends the next; then all of them at once.
func sendUrgent(t *testing.T, from, to net.Conn, size int) {
	require.NoError(t, to.SetDeadline(time.Now().Add(patience)))
	part := bytes.Repeat([]byte("x"), size)
	want := append(append([]byte{}, part...), '!')
	got := make([]byte, len(want))
	for range 20 {
		go func() {
			from.Write(part)
			urgent(from)
		}()
		_, err := io.ReadFull(to, got)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	go func() {
		for range 200 {
			from.Write(part)
			urgent(from)
			from.Write(part)
		}
	}()
	all := make([]byte, 200*(2*size+1))
	_, err := io.ReadFull(to, all)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat(append(want, part...), 200), all)
}

// interrupt sends SIGURG, which means nothing by itself, to all threads of the
// process until quiet is closed.
func interrupt(quiet <-chan struct{}) {
	for {
		threads, _ := os.ReadDir("/proc/self/task")
		for range 100 {
			for _, thread := range threads {
				select {
				case <-quiet:
					return
				default:
				}
				if id, err := strconv.Atoi(thread.Name()); err == nil {
					_ = unix.Tgkill(os.Getpid(), id, unix.SIGURG)
				}
			}
		}
	}
}

func urgent(c net.Conn) {
	raw, _ := c.(*net.TCPConn).SyscallConn()
	_ = raw.Write(func(fd uintptr) bool {
		return unix.Send(int(fd), []byte("!"), unix.MSG_OOB) != unix.EAGAIN
	})
}
