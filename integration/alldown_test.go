package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
	"smtplb/internal/smtptest/tunpump"
)

// T8: all servers are down, each in its way, and a thousand clients come by a
// network with a round trip of 50 ms that loses 2 % of its packets. Half of
// them talk before they are greeted. Each reads a whole 421 and then the end of
// the stream, within the time for finding a server; this costs the program next
// to nothing; and once a server is back, clients soon have it.
//
// The network's share of the wait is a round trip and, for the slowest in a
// hundred, one packet that has to be sent again: that takes a second when it is
// the last of the handshake, without which the program knows of no client. More
// are lost for fewer than one in a hundred. The clock starts at the client
// when it is connected, so what delays that does not count. A busy machine has
// as much more time as it is found to be late.
//
// Fails if a client's connection is closed as soon as the reply is written,
// which answers what an early talker has said by a reset, and if servers that
// do not greet have no time-out.
func TestAllServersDown(t *testing.T) {
	t.Parallel()
	const (
		clients     = 1000
		pace        = 10 * time.Millisecond // from one to the next
		delay       = 25 * time.Millisecond
		again       = 1100 * time.Millisecond // a retransmission: a second (RFC 6298 section 2.1), and the kernel's timer is late
		budget      = time.Second
		slack       = 100 * time.Millisecond
		failTimeout = time.Second
		hops        = 4 // to the program and back, each of which a busy machine may make late
	)
	for i, test := range []struct {
		name, fails, lines string
		down, up           func(*testing.T, *ledger.Server)
	}{
		{"refuse", "max_fails = 1", "", func(_ *testing.T, s *ledger.Server) { s.Refuse() },
			func(t *testing.T, s *ledger.Server) { require.NoError(t, s.Resume()) }},
		// By default an early talker's words go to the first server that
		// connects, and it waits for the greeting as long as that server likes.
		// No failure counts, so every client waits for as long as it may.
		{"hang", "max_fails = 0", "smtp_pregreet = 'hold'", scripted(smtptest.Step{Mute: true, Then: smtptest.Linger}), scripted(smtptest.Step{})},
		{"busy", "max_fails = 1", "", scripted(smtptest.Step{Reply: "421 4.3.2 mail system full\r\n"}), scripted(smtptest.Step{})},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, b := mx(t, "a"), mx(t, "b")
			test.down(t, a)
			test.down(t, b)
			link := tunpump.New(t, tunpump.Config{Delay: delay, Loss: 0.02, Seed: uint64(8 + i)})
			addr := netip.AddrPortFrom(link.Near(), uint16(smtptest.FreePort(t))).String()
			p := smtptest.Start(t, workers(2)+
				upstream("mail", server(a.Addr(), test.fails, "fail_timeout = '1s'"), server(b.Addr(), test.fails, "fail_timeout = '1s'"))+
				proxy(addr, "mail", "smtp_greeting_timeout = '300ms'", "proxy_next_upstream_timeout = '1s'", test.lines))

			type result struct {
				took time.Duration
				err  error
			}
			results := make(chan result, clients)
			tick := time.NewTicker(pace)
			defer tick.Stop()
			begun, used := time.Now(), smtptest.CPU(t, p.Pid())
			var late time.Duration // how late this process was at most
			for i, last := 0, begun; i < clients; i++ {
				<-tick.C
				now := time.Now()
				late, last = max(late, now.Sub(last)-pace), now
				go func() {
					took, err := comeInVain(t.Context(), link, addr, i%2 == 0)
					results <- result{took, err}
				}()
			}
			failed := 0
			var waits []time.Duration
			for range clients {
				r := <-results
				if r.err != nil {
					if failed++; failed <= 3 {
						t.Error(r.err)
					}
				}
				waits = append(waits, r.took)
			}
			share := float64(smtptest.CPU(t, p.Pid())-used) / float64(time.Since(begun))
			wait := smtptest.Summarize(waits)
			toFar, toNear := link.Stats()
			t.Logf("421: %v, by up to %v late; %.1f %% of a processor; lost on the way: %d of %d packets to clients, %d of %d from them",
				wait, late, 100*share, toFar.Dropped, toFar.Sent, toNear.Dropped, toNear.Sent)
			require.Zero(t, failed, "clients that did not read a whole 421 and the end, of %d", clients)
			busy := hops * late
			require.LessOrEqual(t, wait.P50, 2*delay+budget+2*slack+busy)
			require.LessOrEqual(t, wait.P99, 2*delay+budget+slack+again+busy)
			require.Less(t, share, 0.1, "of a processor")

			// Times of failures are whole seconds, and a client may be waiting
			// for the server that is still down.
			test.up(t, b)
			back := time.Now()
			smtptest.Eventually(t, failTimeout+time.Second+budget+slack+patience/2, "a client has the server that is back", func() bool {
				return visits(t, addr, 1) == "b"
			})
			t.Logf("first good session %v after a server was back", time.Since(back))
		})
	}
}

// scripted gives a server, which greets as "b" if it does, another greeting.
func scripted(greeting smtptest.Step) func(*testing.T, *ledger.Server) {
	return func(_ *testing.T, s *ledger.Server) {
		s.SetScript(smtptest.Script{Name: "b", Connect: greeting})
	}
}

// comeInVain is a client that wants to be told 421, and then the end of the
// stream. It returns how long it waited for that line, once connected.
func comeInVain(ctx context.Context, link *tunpump.Link, addr string, early bool) (time.Duration, error) {
	c, err := link.Dial(ctx, "tcp4", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	begun := time.Now()
	if err := c.SetDeadline(begun.Add(2 * patience)); err != nil {
		return 0, err
	}
	if early {
		const all = "EHLO client.example.com\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
		if _, err := io.WriteString(c, all); err != nil {
			return 0, err
		}
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	took := time.Since(begun)
	if err != nil || !strings.HasPrefix(line, "421 4.3.2 ") || !strings.HasSuffix(line, "\r\n") {
		return took, fmt.Errorf("want 421, got %q (%w)", line, err)
	}
	if _, err := io.WriteString(c, "QUIT\r\n"); err != nil {
		return took, fmt.Errorf("say QUIT behind a 421: %w", err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		return took, fmt.Errorf("want the end behind a 421, got %q (%w)", rest, err)
	}
	return took, nil
}
