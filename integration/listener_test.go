package integration

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// queue connects n clients to a listener that accepts none of them now. Their
// sessions begin when the returned client runs.
func queue(t *testing.T, addr string, n int) *ledger.Client {
	t.Helper()
	conns := make(chan net.Conn, n)
	for range n {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		conns <- conn
	}
	return &ledger.Client{
		Sessions: n, Concurrency: n,
		Dial: func(context.Context, string, string) (net.Conn, error) { return <-conns, nil },
	}
}

// noGate makes clients above the session limit wait, where the gate would tell
// them to come back.
const noGate = "smtp = false"

// A removed listener serves whom the kernel has accepted for it, also those who
// have to wait until there is room, and refuses everybody else at once. T2.
//
// Fails if a listener is closed with clients in its queue, or if they are given
// up when the session limit is in the way.
func TestListenerRemovedWithClientsWaiting(t *testing.T) {
	t.Parallel()
	const clients = 20
	start := func(t *testing.T, l smtptest.Launch) (p *smtptest.Process, a *ledger.Server, removed, stays, after string) {
		a = mx(t, "a")
		removed, stays = freeAddr(t), freeAddr(t)
		after = workers(2) + upstream("mail", server(a.Addr())) + proxy(stays, "mail", noGate)
		p = l.Start(t, after+proxy(removed, "mail", noGate))
		p.Ready()
		return p, a, removed, stays, after
	}

	// The clients connect while the process is stopped; the signal and the
	// connections are there for it at once.
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		p, a, removed, stays, after := start(t, smtptest.Launch{})
		p.Signal(syscall.SIGSTOP)
		waiting := queue(t, removed, clients)
		p.Configure(after)
		p.Signal(syscall.SIGHUP)
		p.Signal(syscall.SIGCONT)
		p.Await("reload done", 1)
		requireRefused(t, removed)
		waiting.Run(t.Context())
		requireAll(t, waiting, a)
		require.Equal(t, "a", visits(t, stays, 1))
	})

	// The clients connect while there are as many sessions as may be.
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		p, a, removed, stays, after := start(t, smtptest.Launch{NoFile: 110})
		_, line, _ := strings.Cut(p.Log(), `"max_sessions": `)
		limit, err := strconv.Atoi(line[:strings.IndexAny(line, ",}")])
		require.NoError(t, err)
		held := hold(t, &ledger.Client{Addr: stays}, limit)
		waiting := queue(t, removed, clients)
		p.Await("accepting paused", 1)
		reload(t, p, after)
		requireRefused(t, removed)
		require.Equal(t, limit, a.Accepted())
		for _, h := range held {
			require.NoError(t, h.Finish())
		}
		waiting.Run(t.Context())
		requireAll(t, waiting, of{waiting, a})
	})
}

// A listener may be removed and added again as fast as reloads can follow each
// other. Two HUPs without a reload in between change nothing, and the listener
// is not touched.
//
// Fails if a listener is opened while the old one still drains.
func TestListenerRemovedAndAddedAgain(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	path := filepath.Join(shortDir(t), "smtp")
	stays, goes := freeAddr(t), freeAddr(t)
	without := upstream("mail", server(a.Addr())) + proxy(stays, "mail")
	with := without + proxy(goes, "mail") + proxy("unix:"+path, "mail")
	p := smtptest.Start(t, with)
	client := &ledger.Client{Addr: goes}
	unixClient := &ledger.Client{Addr: "unix:" + path}
	held := hold(t, client, 3)
	for range 3 {
		reload(t, p, without)
		requireRefused(t, goes)
		reload(t, p, with)
		held = append(held, hold(t, client, 1)...)
		held = append(held, hold(t, unixClient, 1)...)
	}
	before := inode(t, goes)
	p.Configure(without)
	p.Configure(with)
	hangUp(t, p)
	require.Equal(t, before, inode(t, goes))
	for _, h := range held {
		require.NoError(t, h.Finish())
	}
	require.Zero(t, p.Count("reload failed"))
}

// A changed backlog, keepalive, buffer or fastopen is set on the socket that is
// listening, which stays the same one; connections accepted from then on have it.
//
// Fails if options are set only when a socket is opened, or if it is opened
// anew for them.
func TestListenerOptionsChange(t *testing.T) {
	t.Parallel()
	a := mx(t, "a")
	addr := freeAddr(t)
	config := func(options string) string {
		return upstream("mail", server(a.Addr())) + proxy(fmt.Sprintf("{ address = '%s'%s }", addr, options), "mail")
	}
	type options struct{ backlog, keepalive, idle, interval, count, rcvbuf, sndbuf, fixed, fastopen int }
	const usual = ", backlog = 9"
	p := smtptest.Start(t, config(usual))
	first := inode(t, addr)
	get := func() options {
		fd := borrow(t, p.Pid(), first)
		defer unix.Close(fd)
		option := func(level, name int) int {
			v, err := unix.GetsockoptInt(fd, level, name)
			require.NoError(t, err)
			return v
		}
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		require.NoError(t, err)
		return options{
			int(info.Sacked), // of a listening socket: the length its queue may have
			option(unix.SOL_SOCKET, unix.SO_KEEPALIVE),
			option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
			option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
			option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
			option(unix.SOL_SOCKET, unix.SO_RCVBUF),
			option(unix.SOL_SOCKET, unix.SO_SNDBUF),
			option(unix.SOL_SOCKET, unix.SO_BUF_LOCK),
			option(unix.IPPROTO_TCP, unix.TCP_FASTOPEN),
		}
	}
	kernel := get() // its buffers
	require.Zero(t, kernel.fixed)
	require.Equal(t, options{9, 1, 120, 30, 4, kernel.rcvbuf, kernel.sndbuf, 0, 0}, kernel)
	reload(t, p, config(", backlog = 7, so_keepalive = '60s:10s:3', rcvbuf = '20k', sndbuf = '30k', fastopen = 5"))
	const both = unix.SOCK_RCVBUF_LOCK | unix.SOCK_SNDBUF_LOCK
	require.Equal(t, options{7, 1, 60, 10, 3, 40 << 10, 60 << 10, both, 5}, get()) // the kernel doubles buffers
	require.Equal(t, "a", visits(t, addr, 1))
	reload(t, p, config(", backlog = 2000, so_keepalive = false"))
	changed := get()
	require.Equal(t, []int{2000, 0}, []int{changed.backlog, changed.keepalive})
	reload(t, p, config(usual))
	require.Equal(t, kernel, get())
	require.Equal(t, first, inode(t, addr))
}
