package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// screen is what a user sees. Several programs write to it.
type screen struct {
	mu   sync.Mutex // protects text
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// otherPorts is the built-in configuration, in a file, with ports that are free.
// It returns the addresses too, the balancer's first.
func otherPorts(t *testing.T) (config string, addrs []string) {
	t.Helper()
	text, err := os.ReadFile("../../default.toml")
	require.NoError(t, err)
	moved := string(text)
	for _, addr := range []string{"127.0.0.1:2525", "127.0.0.1:10025", "127.0.0.1:10026", "127.0.0.1:10027"} {
		free := net.JoinHostPort("127.0.0.1", strconv.Itoa(smtptest.FreePort(t)))
		require.Equal(t, 1, strings.Count(moved, `"`+addr+`"`), "%s in default.toml", addr)
		moved = strings.Replace(moved, `"`+addr+`"`, `"`+free+`"`, 1)
		addrs = append(addrs, free)
	}
	config = filepath.Join(t.TempDir(), "demo.toml")
	require.NoError(t, os.WriteFile(config, []byte(moved), 0o600))
	return config, addrs
}

// requireGone fails if anything still listens.
func requireGone(t *testing.T, addrs []string) {
	t.Helper()
	for _, addr := range addrs {
		require.NoError(t, available(addr))
	}
}

// The table has the weights and the backup in it. Fails when the balancer picks
// servers in plain turn (11 and 10 messages), when the regular servers are not
// stopped, and without the stop at the end.
func TestTour(t *testing.T) {
	t.Parallel()
	config, addrs := otherPorts(t)
	var out screen
	require.NoError(t, run(t.Context(), options{config: config, once: true, out: &out}))
	var rows []string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "mx") && !strings.Contains(line, ", ") {
			rows = append(rows, strings.Join(strings.Fields(line), " "))
		}
	}
	require.Equal(t, []string{
		"mx1 " + addrs[1] + " weight 2 14 -",
		"mx2 " + addrs[2] + " weight 1 7 -",
		"mx3 " + addrs[3] + " backup 0 6",
	}, rows, out.String())
	requireGone(t, addrs)
}

// After the tour, mail of the user is carried, and seen, until the user stops
// the demo. Fails when the servers are not started again, or silent.
func TestStaysUp(t *testing.T) {
	t.Parallel()
	config, addrs := otherPorts(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out screen
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, options{config: config, out: &out}) }()
	smtptest.Eventually(t, time.Minute, "the hint is there", func() bool {
		return strings.Contains(out.String(), "swaks --server "+addrs[0]+" --to you@example.org")
	})
	server, err := deliver(addrs[0], "me@example.org", "you@example.org")
	require.NoError(t, err)
	smtptest.Eventually(t, 10*time.Second, "the message is seen", func() bool {
		return strings.Contains(out.String(), "\n"+server+": <me@example.org> to <you@example.org>")
	})
	cancel()
	require.NoError(t, <-ended)
	require.Contains(t, out.String(), "stopped {", "the balancer's last line")
	requireGone(t, addrs)
}

// Fails when only the balancer's port is looked at, or a server's failure to
// listen is all there is to read.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	config, addrs := otherPorts(t)
	ln, err := net.Listen("tcp", addrs[2])
	require.NoError(t, err)
	defer ln.Close()
	var out screen
	err = run(t.Context(), options{config: config, out: &out})
	require.ErrorContains(t, err, addrs[2]+" is taken by another program: stop it")
	require.ErrorContains(t, err, "go run ./examples/demo -c")
	requireGone(t, []string{addrs[0], addrs[1], addrs[3]})
}

// Fails when the end of the balancer goes unnoticed.
func TestChildEnds(t *testing.T) {
	t.Parallel()
	config, addrs := otherPorts(t)
	program := filepath.Join(t.TempDir(), "balancer")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho broken\nexit 3\n"), 0o700))
	var out screen
	err := run(t.Context(), options{config: config, balancer: program, out: &out})
	require.EqualError(t, err, "smtplb has ended (exit status 3); what it wrote is above")
	require.Equal(t, "broken\n", out.String())
	requireGone(t, addrs)
}
