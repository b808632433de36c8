package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// passed are listeners that pass to a gated one, or to one that wants a PROXY
// header, and what they pass to; each is an address.
type passed struct {
	plain, fronted, variable, bare string // to gated
	toFronted                      string
	gated, wanting                 string
	server, log                    string
}

// nginxConf is the configuration of all, or of those that pass alone.
func (p passed) nginxConf(targets bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
daemon off;
worker_processes 2;
error_log stderr notice;
events {}
stream {
    smtp on;
    set_real_ip_from 127.0.0.0/8;
    log_format line '$status $session_end $server_port $remote_addr $proxy_protocol_tlv_authority';
    access_log %s line;
    map $remote_addr $target { default %s; }
    server { listen %s; pass %[4]s; }
    server { listen %[5]s proxy_protocol; pass %[4]s; }
    server { listen %[6]s; pass $target; }
    server { listen %[7]s; pass %[4]s; smtp off; }
    server { listen %[8]s; pass %[9]s; }
`, p.log, p.gated, p.plain, p.gated, p.fronted, p.variable, p.bare, p.toFronted, p.wanting)
	if targets {
		fmt.Fprintf(&b, "server { listen %s; proxy_pass %s; }\nserver { listen %s proxy_protocol; proxy_pass %[2]s; }\n", p.gated, p.server, p.wanting)
	}
	return b.String() + "}\n"
}

// dialAs begins with a PROXY header for a client, with an extension.
func dialAs(header string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			_, err = c.Write([]byte(header))
		}
		return c, err
	}
}

// Mail goes through pass to a gated server, also where the one port or the other
// wants a PROXY header; once its target is gone, the client is told so where there is
// a gate, and closed where there is none. In both syntaxes: the TOML is what
// --explain makes of the nginx.conf.
//
// Fails if Pass is not printed, if Commit gives a route its ports too late or those
// of before, or if a session that was passed is logged by its first port.
func TestPass(t *testing.T) {
	t.Parallel()
	program := smtptest.Build(t)
	const (
		header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x19\xcb\x00\x71\x05\xc6\x33\x64\x01\x04\xd2\x00\x19\x02\x00\x0amx.example"
		claims = "203.0.113.5"
	)
	for _, syntax := range []string{"nginx.conf", "smtplb.toml"} {
		t.Run(syntax, func(t *testing.T) {
			t.Parallel()
			store, dir := mx(t, "a"), shortDir(t)
			p := passed{
				plain: freeAddr(t), fronted: freeAddr(t), variable: freeAddr(t), bare: freeAddr(t), toFronted: freeAddr(t),
				gated: freeAddr(t), wanting: freeAddr(t), server: store.Addr(), log: filepath.Join(dir, "access"),
			}
			path := filepath.Join(dir, syntax)
			write := func(targets bool) {
				text, conf := []byte(p.nginxConf(targets)), filepath.Join(dir, "nginx.conf")
				require.NoError(t, os.WriteFile(conf, text, 0o600))
				if path != conf {
					out := outcomeOf(t, exec.Command(program, "--explain", "-c", conf))
					require.Zero(t, out.code, out.stderr)
					require.NoError(t, os.WriteFile(path, []byte(out.stdout), 0o600))
				}
			}
			write(true)
			process := smtptest.Launch{Args: []string{"-c", path}}.Start(t, "# not read: the last -c counts\n")
			process.Ready()

			lines := 0
			logged := func(want string, n int) {
				t.Helper()
				lines += n
				var all []string
				smtptest.Eventually(t, patience, fmt.Sprintf("%d lines", lines), func() bool {
					text, _ := os.ReadFile(p.log)
					all = strings.SplitAfter(string(text), "\n")
					return len(all) > lines
				})
				require.Len(t, all, lines+1)
				for _, line := range all[lines-n : lines] {
					require.Contains(t, line, want)
				}
			}
			portOf := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
			const sessions = 10
			for _, x := range []struct{ through, header, port, client string }{
				{p.plain, "", p.gated, "127.0.0.1 -"},
				{p.variable, "", p.gated, "127.0.0.1 -"},
				{p.bare, "", p.gated, "127.0.0.1 -"},
				{p.fronted, header, p.gated, claims + " mx.example"},
				{p.toFronted, header, p.wanting, claims + " mx.example"},
			} {
				client := &ledger.Client{Addr: x.through, Sessions: sessions, Concurrency: 2}
				if x.header != "" {
					client.Dial = dialAs(x.header)
				}
				client.Run(t.Context())
				requireAll(t, client, of{client, store})
				logged(fmt.Sprintf("/relay/closed %s %s\n", portOf(x.port), x.client), sessions)
			}

			write(false)
			hangUp(t, process)
			require.Contains(t, process.Log(), "pass: no server listens on "+p.gated)
			for through, saw := range map[string]string{p.plain: "421 4.3.2 ", p.variable: "421 4.3.2 ", p.toFronted: "421 4.3.2 ", p.bare: ""} {
				said := toEnd(open(t, "tcp", through, ""))
				if saw == "" {
					require.Equal(t, "EOF", said)
				} else {
					require.Regexp(t, "^"+saw+".*\r\nEOF$", said)
				}
				logged("200 us/pass/no-port "+portOf(through)+" 127.0.0.1 -\n", 1)
			}
			requireRefused(t, p.gated)

			write(true)
			hangUp(t, process)
			require.Equal(t, "aaa", visits(t, p.plain, 3))
		})
	}
}

// A port that passes to another, and then to a new one in its place, over and over,
// loses no session: those that began before find the port that has been closed.
//
// Fails if a Pass finds no port that is closed.
func TestPassMoves(t *testing.T) {
	t.Parallel()
	store := mx(t, "a")
	client := &ledger.Client{Addr: freeAddr(t), Concurrency: 4}
	client.Dial = dialAs("PROXY UNKNOWN\r\n")
	targets := [2]string{freeAddr(t), freeAddr(t)}
	config := func(n int) string {
		to := targets[n%2]
		return workers(2) + upstream("mail", server(store.Addr())) +
			fmt.Sprintf("[[server]]\nlisten = { address = %q, proxy_protocol = true }\nset_real_ip_from = '127.0.0.0/8'\nproxy_protocol_timeout = '60s'\npass = %q\n", client.Addr, to) +
			proxy(to, "mail")
	}
	process := smtptest.Start(t, config(0))
	stop := run(t, client)
	const reloads = 10
	for n := range reloads {
		more(t, client, 10)
		early := open(t, "tcp", client.Addr, "") // and its header comes late
		reload(t, process, config(n+1))
		smtptest.Eventually(t, patience, "the former target is closed", func() bool {
			l, err := net.Listen("tcp", targets[n%2])
			if err == nil {
				l.Close()
			}
			return err == nil
		})
		require.Regexp(t, `^220 .*\r\n221 .*\r\nEOF$`, toEnd(begin(t, early, "PROXY UNKNOWN\r\nQUIT\r\n")))
	}
	more(t, client, 10)
	stop()
	requireAll(t, client, store)
	require.NotContains(t, process.Log(), "panicked")
	require.NotContains(t, process.Log(), "port not found")
}
