package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// dns is a name server of a test's own, on an address of 127.0.0.0/8, for
// programs that launch starts. It knows names and their IPv4 addresses; what it
// does not know does not exist.
type dns struct {
	conn net.PacketConn

	mu    sync.Mutex // protects below
	names map[string][]string
	sick  bool            // answers SERVFAIL
	gate  <-chan struct{} // answers wait until it is closed; nil: they do not
	asked int             // questions that came
}

func startDNS(t testing.TB) *dns {
	t.Helper()
	d := &dns{names: map[string][]string{}}
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.%d.%d.%d:53", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		if d.conn, err = net.ListenPacket("udp", addr); err == nil {
			break
		}
	}
	require.NoError(t, err)
	t.Cleanup(func() { d.conn.Close() })
	go d.serve()
	return d
}

// set gives a name its addresses; without any, it does not exist.
func (d *dns) set(name string, addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name] = addrs
}

// fail makes every question fail for the time being (SERVFAIL), or no more.
func (d *dns) fail(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sick = on
}

// block holds all answers back until release is called.
func (d *dns) block() (release func()) {
	gate := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (d *dns) questions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// launch runs the program so that it asks this name server and no other: in a
// mount namespace of its own, with its own resolv.conf.
func (d *dns) launch(t testing.TB) smtptest.Launch {
	t.Helper()
	dir := t.TempDir()
	host, _, err := net.SplitHostPort(d.conn.LocalAddr().String())
	require.NoError(t, err)
	binary := smtptest.Build(t)
	resolvConf, script := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "run")
	require.NoError(t, os.WriteFile(resolvConf, []byte("nameserver "+host+"\n"), 0o644))
	// A child that another test forks meanwhile would hold the script open for
	// writing, and it could not be run (ETXTBSY, golang.org/issue/22315).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil,
		"#!/bin/sh\nexec unshare --mount /bin/sh -c 'mount --bind %s /etc/resolv.conf && exec %s \"$@\"' smtplb \"$@\"\n",
		resolvConf, binary), 0o755))
	return smtptest.Launch{Binary: script}
}

func (d *dns) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		d.mu.Lock()
		d.asked++
		reply, gate := d.reply(buf[:n]), d.gate
		d.mu.Unlock()
		go func() {
			if gate != nil {
				<-gate
			}
			_, _ = d.conn.WriteTo(reply, from)
		}()
	}
}

// reply answers a message with one question (RFC 1035 section 4).
func (d *dns) reply(query []byte) []byte {
	const header, typeA = 12, 1
	const noError, servFail, nxDomain = 0, 2, 3
	var labels []string
	end := header
	for query[end] != 0 {
		size := int(query[end])
		labels = append(labels, string(query[end+1:end+1+size]))
		end += 1 + size
	}
	question := query[header : end+5] // with type and class
	addrs, known := d.names[strings.Join(labels, ".")]
	code := noError
	switch {
	case d.sick:
		code = servFail
	case !known || len(addrs) == 0:
		code = nxDomain
	}
	if code != noError || binary.BigEndian.Uint16(question[len(question)-4:]) != typeA {
		addrs = nil
	}
	r := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(query)) // id
	r = binary.BigEndian.AppendUint16(r, uint16(0x8180|code))               // response, recursion
	for _, count := range []int{1, len(addrs), 0, 0} {
		r = binary.BigEndian.AppendUint16(r, uint16(count))
	}
	r = append(r, question...)
	for _, addr := range addrs {
		r = append(r, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 1, 0, 4) // the question's name, IN, 1 s, 4 bytes
		r = append(r, net.ParseIP(addr).To4()...)
	}
	return r
}
