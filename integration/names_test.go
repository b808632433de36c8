package integration

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// A host name stands for all its addresses, found at the start and at each
// reload. One that cannot be looked up for the moment keeps those it had, with
// a warning; one that has never been found stops the start, and leaves the
// running configuration alone at a reload. T2.
//
// Fails if a failed lookup fails the reload, or if an answer in another order is
// another one.
func TestHostNames(t *testing.T) {
	t.Parallel()
	// Two addresses with the same port: a name has several, but one port.
	port := fmt.Sprint(smtptest.FreePort(t))
	for host, name := range map[string]string{"127.0.0.1:": "a", "127.0.0.2:": "b"} {
		ln, err := net.Listen("tcp", host+port)
		require.NoError(t, err)
		ledger.Serve(t, ln, smtptest.Script{Name: name})
	}

	d := startDNS(t)
	d.set("gw.example.test", "127.0.0.1")
	addr := freeAddr(t)
	config := func(names ...string) string {
		var servers []string
		for _, name := range names {
			servers = append(servers, server(name+":"+port))
		}
		return workers(1) + upstream("mail", servers...) + proxy(addr, "mail")
	}

	nobody := d.launch(t).Start(t, config("gw.example.test", "nosuch.example.test"))
	require.Equal(t, 1, nobody.Exit(patience))
	require.Contains(t, nobody.Log(), nobody.ConfigPath()+
		`:7:3: host not found in upstream "nosuch.example.test:`+port+`": no such host: check the spelling, DNS or /etc/hosts`)

	p := d.launch(t).Start(t, config("gw.example.test"))
	p.Ready()
	require.Equal(t, "aa", visits(t, addr, 2))

	d.set("gw.example.test", "127.0.0.1", "127.0.0.2")
	hangUp(t, p)
	require.ElementsMatch(t, []byte("ab"), []byte(visits(t, addr, 2)))

	d.set("gw.example.test", "127.0.0.2", "127.0.0.1")
	hangUp(t, p)
	require.Equal(t, "ab", visits(t, addr, 2), "the rotation goes on, whatever the order of the answer")

	d.fail(true)
	hangUp(t, p)
	p.Await(`\[warn\] host name cannot be resolved now, keeping its addresses \{"host": "gw.example.test", "addresses": \["127.0.0.1", "127.0.0.2"\]`, 1)
	require.ElementsMatch(t, []byte("ab"), []byte(visits(t, addr, 2)))
	hangUp(t, p)
	require.ElementsMatch(t, []byte("ab"), []byte(visits(t, addr, 2)), "kept for more than one reload")

	d.fail(false)
	d.set("gw.example.test", "127.0.0.2")
	hangUp(t, p)
	require.Equal(t, "bb", visits(t, addr, 2))

	p.Configure(config("gw.example.test", "nosuch.example.test"))
	p.Signal(syscall.SIGHUP)
	p.Await("reload failed, keeping the running configuration.*host not found in upstream", 1)
	require.Equal(t, "bb", visits(t, addr, 2))
}

// HUPs that come during a reload make one further reload, whatever their
// number, and no session waits for either: names are looked up beside the
// event loops.
//
// Fails if each HUP makes a reload of its own, and if those during a reload are
// forgotten.
func TestHangUpsCoalesce(t *testing.T) {
	t.Parallel()
	d := startDNS(t)
	d.set("gw.example.test", "192.0.2.1")
	a := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Sessions: 20}
	config := func(other string) string {
		return upstream("mail", server(a.Addr())) + upstream("other", server(other)) + proxy(client.Addr, "mail")
	}
	p := d.launch(t).Start(t, config("192.0.2.1:25"))
	p.Ready()

	release := d.block()
	t.Cleanup(release)
	p.Configure(config("gw.example.test:25"))
	p.Signal(syscall.SIGHUP)
	smtptest.Eventually(t, patience, "the reload has asked for the name", func() bool { return d.questions() > 0 })
	p.Configure(config("gw.example.test:26"))
	for range 20 {
		p.Signal(syscall.SIGHUP)
		require.NoError(t, sent(p))
	}
	client.Run(t.Context())
	requireAll(t, client, a)
	require.Zero(t, p.Count("reload done"))
	release()
	p.Await(`"server": "gw.example.test:26"`, 1)
	p.Await("reload done", 2)

	hangUp(t, p) // a third one, of the 20, would have come before
	require.Equal(t, 3, p.Count("reload done"))
}

// sent waits until a process has taken the signal sent to it last: a second one
// of its kind would otherwise merge with it in the kernel.
func sent(p *smtptest.Process) error {
	for deadline := time.Now().Add(patience); ; {
		pending, err := pendingSignals(p.Pid())
		if err != nil || pending == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d takes no signals", p.Pid())
		}
	}
}

// A stop waits for the lookups neither of a reload nor of a start, which has then
// failed for nobody but who waits for it to go to the background.
//
// Fails if the lookups are not cancelled by the signal.
func TestStopDuringLookups(t *testing.T) {
	t.Parallel()
	config := proxy(freeAddr(t), "127.0.0.1:25")
	for _, test := range []struct {
		name, first, then string // what the process starts with, and reloads
		signal            syscall.Signal
		code              int
		said              string
	}{
		{"reload", config, config + upstream("other", server("gw.example.test:25")), syscall.SIGTERM, 0, `signal received, stopping {"signal": "terminated"}`},
		{"start", config + upstream("other", server("gw.example.test:25")), "", syscall.SIGTERM, 0, `start given up {"reason": "terminated signal received"}`},
		{"start, quit", config + upstream("other", server("gw.example.test:25")), "", syscall.SIGQUIT, 0, `start given up {"reason": "quit signal received"}`},
		{"start, background", "daemon = true\n" + config + upstream("other", server("gw.example.test:25")), "", syscall.SIGINT, 1, "start given up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := startDNS(t)
			t.Cleanup(d.block())
			p := d.launch(t).Start(t, test.first)
			if test.then != "" {
				p.Ready()
				p.Configure(test.then)
				p.Signal(syscall.SIGHUP)
			}
			smtptest.Eventually(t, patience, "the name has been asked for", func() bool { return d.questions() > 0 })

			start := time.Now()
			p.Signal(test.signal)
			require.Equal(t, test.code, p.Exit(patience), p.Log())
			require.Less(t, time.Since(start), 4*time.Second, "a lookup gives up after 5 s")
			require.Contains(t, p.Log(), test.said)
			require.Zero(t, p.Count(`reload done|reload failed|emerg|error\]`), p.Log())
		})
	}
}
