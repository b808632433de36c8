package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/script"
)

// rates limits both directions of a rig's sessions.
func rates(up, down int64) func(*plan) {
	return func(p *plan) { p.UploadRate, p.DownloadRate = Rate{Bytes: up}, Rate{Bytes: down} }
}

func withoutPipes(p *plan) { p.prepare = func(w *worker) { w.loop.Pipes.Limit = 0 } }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// closeWrite ends the stream of a TCP connection.
func closeWrite(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() }

// send writes from a goroutine of its own, and then ends the stream.
func send(t *testing.T, to net.Conn, b []byte) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := to.Write(b)
		if err == nil {
			err = closeWrite(to)
		}
		sent <- err
	}()
	t.Cleanup(func() { require.NoError(t, <-sent) })
}

// measured reads to the end and returns the bytes and how many a second there
// were on average since they began to come, in which the last read does not
// count: its rest is not part of the time.
func measured(from net.Conn, begun time.Time) (all []byte, rate float64, err error) {
	b := make([]byte, 256<<10)
	var last time.Time
	var late int
	for {
		n, err := from.Read(b)
		all = append(all, b[:n]...)
		if n > 0 {
			last, late = time.Now(), n
		}
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			if late == len(all) {
				late = 0 // all at once
			}
			return all, float64(len(all)-late) / last.Sub(begun).Seconds(), err
		}
	}
}

// transfer is so many bytes one way at a rate.
type transfer struct {
	rate         int64
	copied, down bool
}

// run moves 4 s' worth and returns the average rate.
func (x transfer) run(t *testing.T) func() (rate float64, err error) {
	t.Helper()
	const other = 1 << 30
	limits := rates(x.rate, other)
	if x.down {
		limits = rates(other, x.rate)
	}
	options := []func(*plan){limits}
	if x.copied {
		options = append(options, withoutPipes)
	}
	l := listen(t, "tcp")
	g := newRig(t, []string{l.Addr().String()}, options...)
	begun := time.Now() // no later than the session's, or a busy machine's rate is too high
	from, to := g.pair(l)
	if x.down {
		from, to = to, from
	}
	want := random(int(x.rate * 4))
	send(t, from, want)
	return func() (float64, error) {
		got, rate, err := measured(to, begun)
		switch st := g.Stats(); {
		case err != nil || !bytes.Equal(want, got):
			err = fmt.Errorf("want %d bytes, got %d or others: %w", len(want), len(got), err)
		case x.copied && st.Spliced > 0, !x.copied && x.rate >= 1_000_000 && st.Spliced < st.Copied:
			err = fmt.Errorf("%d bytes spliced, %d copied", st.Spliced, st.Copied)
		}
		return rate, err
	}
}

// A direction has its rate on average, whether its bytes are spliced or copied,
// and loses none of them. A loaded machine may be too slow, a few times. It fails if
// only one way of moving bytes is booked, if the two rates are mixed up, if a
// rest begins when a late timer fires (the large rates are then missed by half),
// and if reads are not cut to the rate (the small ones are exceeded at once).
func TestRate(t *testing.T) {
	t.Parallel()
	const tries = 5
	var todo []transfer
	for _, down := range []bool{false, true} {
		todo = append(todo, transfer{rate: 100, down: down}, transfer{rate: 20_000, down: down},
			transfer{rate: 2_000_000, down: down}, transfer{rate: 2_000_000, copied: true, down: down})
	}
	for range tries {
		var running sync.WaitGroup
		slow := make(chan transfer, len(todo))
		for _, x := range todo {
			run := x.run(t)
			running.Go(func() {
				rate, err := run()
				switch off := rate/float64(x.rate) - 1; {
				case err != nil || off > 0.05:
					t.Errorf("%+v: %.0f bytes a second (%v)", x, rate, err)
				case off < -0.05:
					t.Logf("%+v: %.0f bytes a second", x, rate)
					slow <- x
				}
			})
		}
		running.Wait()
		close(slow)
		todo = nil
		for x := range slow {
			todo = append(todo, x)
		}
		if len(todo) == 0 {
			break
		}
	}
	require.Empty(t, todo, "too slow each time")
}

// waiting holds when a half of the session may not read for now.
func waiting(s *session) bool { return s.state == stateRelaying && s.waits() }

// Words that came before the greeting are under the rate as all others, and the
// greeting and the answers under theirs. It fails if counting begins with the
// first read of each second, and if a rest of one half stops the other.
func TestRateOfEarlyWords(t *testing.T) {
	t.Parallel()
	w := newWitness(t, good)
	g := newRig(t, []string{w.addr}, gated, rates(100, 100))
	c := g.dial()
	words := early + string(bytes.Repeat([]byte("NOOP\r\n"), 40)) + quit
	began := time.Now()
	_, err := io.WriteString(c, words)
	require.NoError(t, err)
	saw, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, goodGreeting+goodAnswer+goodbye, string(saw))
	c.Close()
	v, err := w.visit(0)
	require.NoError(t, err)
	require.Equal(t, words, v.got())
	// 264 bytes: 100 at once, 100 in the next second, which may begin soon, and
	// the rest a second later.
	took := time.Since(began).Seconds()
	require.Greater(t, took, 0.95)
	require.Less(t, took, patience.Seconds()/2)
}

// While a half rests the session is not idle, whoever is silent; proxy_timeout
// begins anew behind the rest. It fails if deadline looks at s.active alone, or
// if expired takes a half that waits for silence.
func TestRateIsNotIdleness(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	g := newRig(t, []string{l.Addr().String()}, rates(100, 0), func(p *plan) { p.Timeout = 900 * time.Millisecond })
	client, server := g.pair(l)
	began := time.Now()
	want := random(200)
	_, err := client.Write(want)
	require.NoError(t, err)
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, want, got)
	// Read at 0 s and 1 s, rested until 2 s, idle 0.9 s later.
	require.Greater(t, time.Since(began).Seconds(), 2.4)
	client.Close()
	server.Close()
	g.gone(patience)
	require.Equal(t, "idle time-out", g.accounts()[0].end)
}

// A session whose half rests ends by a reset like any other: at once if the
// other half sees it, and else when the rest is over. It fails if the timer is
// not armed for the end of the rest.
func TestRateAndReset(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		down, client bool // which half rests, and who is reset
		end          string
	}{
		"the receiving client": {true, true, "client reset"},
		"the sending client":   {false, true, "client reset"},
		"the receiving server": {false, false, "server reset"},
		"the sending server":   {true, false, "server reset"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "tcp")
			g := newRig(t, []string{l.Addr().String()}, rates(100, 100))
			client, server := g.pair(l)
			from, gone := client, server
			if x.down {
				from = server
			}
			if x.client {
				gone = client
			}
			_, err := from.Write(random(300))
			require.NoError(t, err)
			require.True(t, g.comes(waiting))
			require.NoError(t, gone.(*net.TCPConn).SetLinger(0))
			gone.Close()
			g.gone(patience)
			require.Equal(t, x.end, g.accounts()[0].end)
		})
	}
}

// A stop finds a half resting: what it has not read yet is not forgotten on the
// server's side, whose answer goes on, and not awaited on the client's. It fails
// if CutIdle takes such a session for idle, since its last byte was the server's.
func TestRateAndDrain(t *testing.T) {
	t.Parallel()
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		l := listen(t, "tcp")
		g := newRig(t, []string{l.Addr().String()}, rates(0, 100))
		client, server := g.pair(l)
		want := random(250)
		_, err := server.Write(want)
		require.NoError(t, err)
		require.True(t, g.comes(waiting))
		require.Equal(t, Cut{InGap: 1}, g.CutIdle())
		end, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Empty(t, end)
		server.Close()
		got, err := io.ReadAll(client)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
	t.Run("up", func(t *testing.T) {
		t.Parallel()
		l := listen(t, "tcp")
		g := newRig(t, []string{l.Addr().String()}, rates(100, 0))
		client, server := g.pair(l)
		want := random(250)
		_, err := client.Write(want)
		require.NoError(t, err)
		require.True(t, g.comes(waiting))
		require.Equal(t, Cut{InGap: 1}, g.HalfClose())
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, want[:100], got)
	})
}

// The formula is nginx's: a second's bytes for every second begun, and what was
// not used is not lost. It fails if the second of the start is not counted, or
// if a wait ends before the second that allows more.
func TestPaceAllows(t *testing.T) {
	t.Parallel()
	const second, buffer = 1000, 16 << 10
	var h half
	h.pace.begin(1000, 100*second+900)
	read := func(n int, now int64) {
		h.in += int64(n)
		h.pace.rest(n, now)
	}
	require.Equal(t, 1000, h.allow(100*second+900, buffer))
	read(400, 100*second+900)
	require.Zero(t, h.allow(100*second+1299, buffer))
	require.True(t, h.pace.waits)
	require.Equal(t, 1600, h.allow(101*second+300, buffer), "two seconds have begun")
	read(1600, 101*second+300)
	require.Zero(t, h.allow(102*second+899, buffer))
	require.Equal(t, 1000, h.allow(102*second+900, buffer))
	read(1000, 102*second+900)
	h.pace.rested = 0 // as if the bytes had come before
	require.Zero(t, h.allow(102*second+950, buffer))
	require.Equal(t, int64(103*second), h.pace.until())
	require.Equal(t, buffer, h.allow(200*second, buffer), "not all of it at once")
}

// A size is read as nginx reads the value of proxy_upload_rate.
//
// Fails if a unit needs no number, or what is too large wraps around.
func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "100": 100, "10k": 10 << 10, "10K": 10 << 10, "5000m": 5000 << 20, "3M": 3 << 20,
		"9223372036854775807": math.MaxInt64, "8796093022207m": 8796093022207 << 20,
		"": -1, "k": -1, "bogus": -1, "-1": -1, "1g": -1, " 1": -1, "1k1": -1, "99999999999999999999": -1,
		"9223372036854775808": -1, "8796093022208m": -1,
	} {
		n, ok := parseSize([]byte(text))
		require.Equal(t, want >= 0, ok, text)
		require.Equal(t, max(want, 0), n, text)
	}
}

// Rates are evaluated when the server is known; counting has begun with the
// session.
//
// Fails if they are evaluated before, if one is taken for the other, or if what is
// no size is not logged, or is a limit.
func TestRatesOfValues(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp")
	b := newDiary(t, func(s *script.Scope) error {
		return errors.Join(
			s.Map(script.Map{Variable: "$up", Source: "$upstream_addr", Entries: []script.Entry{
				{Key: l.Addr().String(), Value: "3k"}}}),
			s.Map(script.Map{Variable: "$down", Source: "$remote_addr", Entries: []script.Entry{
				{Key: "127.0.0.1", Value: "4194305k"}, {Key: "127.0.0.2", Value: "none"}}}))
	})
	g := newRig(t, []string{l.Addr().String()}, func(p *plan) {
		p.Scope, p.UploadRate, p.DownloadRate = b.scope, Rate{Value: b.value("$up")}, Rate{Value: b.value("$down")}
	})
	for _, x := range []struct {
		from string
		down int64
	}{{"127.0.0.1", maxRate}, {"127.0.0.2", 0}} {
		c := g.dialFrom(x.from)
		server, err := l.Accept()
		require.NoError(t, err)
		require.True(t, g.comes(relaying))
		g.each(func(s *session) {
			if s.up.pace.rate != 3<<10 || s.down.pace.rate != x.down || s.up.pace.from != s.started/1000 {
				t.Errorf("%s: up %+v, down %+v, started %d", x.from, s.up.pace, s.down.pace, s.started)
			}
		})
		c.Close()
		server.Close()
		g.gone(patience)
	}
	require.Equal(t, 1, g.logs.FilterMessage(`invalid size "none"`).Len())
}
