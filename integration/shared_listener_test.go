package integration

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// Wildcards and addresses of one port: of nginx and smtplb, the same server has
// the client, and both name the same addresses, to the client and in the log.
// nginx writes IPv4 addresses that came to an IPv6 socket as ::ffff:127.0.0.1.
//
// Fails if the most specific address does not win, if a socket of IPv6 forgets
// that IPv4 comes to it, if the address's own proxy_protocol does not count, or if
// a session is logged as connected to the socket's address, or as the address's
// where the server is named.
func TestSharedListenersAsNginx(t *testing.T) {
	t.Parallel()
	dead := smtptest.Refused(t)
	targets := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"}
	for name, listens := range map[string]string{
		"an address first":  "127.0.0.1:$port *:$port",
		"a wildcard first":  "$port 127.0.0.1:$port 127.0.0.3:$port",
		"both families":     "[::1]:$port $port 127.0.0.2:$port [::]:$port",
		"IPv6 and mapped":   "[::]:$port,ipv6only=off [::ffff:127.0.0.1]:$port [::1]:$port",
		"IPv6 and itself":   "[::1]:$port [::]:$port,ipv6only=off",
		"reuseport of both": "$port,reuseport 127.0.0.1:$port,reuseport",
		"options of one":    "$port,reuseport,backlog=9,so_keepalive=on 127.0.0.1:$port",
		"proxy_protocol":    "$port 127.0.0.1:$port,proxy_protocol 127.0.0.2:$port",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stream strings.Builder
			stream.WriteString("error_log stderr info;\nset_real_ip_from 127.0.0.0/8;\n")
			for i, listen := range strings.Fields(listens) {
				fmt.Fprintf(&stream, "server { listen %s; return \"server %d at $server_addr, client $remote_addr\"; }\n",
					strings.ReplaceAll(listen, ",", " "), i)
			}
			stream.WriteString("server { listen $other; proxy_pass " + dead + "; }\nserver { listen 127.0.0.2:$other; proxy_pass " + dead + "; }\n")
			var said [2]string
			for i, start := range []func(*testing.T, int, string) func() string{startNginx, startSmtplb} {
				port, other := smtptest.FreePort(t), smtptest.FreePort(t)
				log := start(t, port, strings.NewReplacer("$port", strconv.Itoa(port), "$other", strconv.Itoa(other)).Replace(stream.String()))
				for _, target := range targets {
					header := "" // nginx resets who sends more than is read
					if strings.Contains(listens, target+":$port,proxy_protocol") {
						header = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n"
					}
					said[i] += target + ": " + reach(t, net.JoinHostPort(target, strconv.Itoa(port)), header) + "\n"
				}
				for _, target := range []string{"127.0.0.1", "127.0.0.2"} {
					reach(t, net.JoinHostPort(target, strconv.Itoa(other)), "")
				}
				const failure = `connect\(\) failed.*, client: \S+, server: (\S+),`
				smtptest.Eventually(t, patience, "both failures are logged", func() bool {
					return len(regexp.MustCompile(failure).FindAllString(log(), -1)) == 2
				})
				for _, line := range regexp.MustCompile(`client (\S+):\d+ connected to (\S+)|`+failure).FindAllStringSubmatch(log(), -1) {
					said[i] += fmt.Sprintln(line[1:])
				}
				said[i] = strings.NewReplacer(strconv.Itoa(port), "PORT", strconv.Itoa(other), "OTHER").Replace(said[i])
			}
			mapped := regexp.MustCompile(`\[?::ffff:([0-9.]+)\]?`)
			require.Equal(t, mapped.ReplaceAllString(said[0], "$1"), said[1])
		})
	}
}

// reach returns what a server says to a client, and how that ends.
func reach(t *testing.T, addr, header string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		return "refused"
	}
	defer c.Close()
	_, err = c.Write([]byte(header))
	require.NoError(t, err)
	return toEnd(c)
}

func startNginx(t *testing.T, port int, stream string) func() string {
	return peers.NginxStream(t, net.JoinHostPort("127.0.0.2", strconv.Itoa(port)), stream).Log
}

func startSmtplb(t *testing.T, _ int, stream string) func() string {
	t.Helper()
	conf := filepath.Join(shortDir(t), "nginx.conf")
	require.NoError(t, os.WriteFile(conf, []byte("daemon off;\nworker_processes 1;\nerror_log stderr notice;\nevents {}\nstream {\n"+stream+"\n}\n"), 0o600))
	p := smtptest.Launch{Args: []string{"-c", conf}}.Start(t, "# not read: the last -c counts\n")
	p.Ready()
	return p.Log
}

// A wildcard comes and goes beside an address, the address beside a wildcard, and
// wildcards beside each other, while clients of the address send mail: none of
// their sessions fails, and each reload has all that connect from then on served by the most specific address,
// or refused. So it is for a process that has become another user, too, and where
// a reload fails after it has opened the address's own socket.
//
// Fails if an address that loses its wildcard is opened only after that is
// closed, or the wildcard only before; if the socket that a failed reload opened is
// closed with the clients that it got; if a wildcard does not take over from an
// address that goes; and if sockets are not given to the new user.
func TestListenersSharedByReloads(t *testing.T) {
	t.Parallel()
	nobodyElse, err := user.LookupId("65534")
	require.NoError(t, err)
	for name, become := range map[string]string{"same user": "", "other user": "user = '" + nobodyElse.Username + "'\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if become != "" && smtptest.RaceEnabled() {
				t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
			}
			a, b, c := mx(t, "a"), mx(t, "b"), mx(t, "c")
			port := strconv.Itoa(smtptest.FreePort(t))
			beyond := freeAddr(t) // stays, so that there always is a server
			head := become + workers(2) + upstream("a", server(a.Addr())) + upstream("b", server(b.Addr())) +
				upstream("c", server(c.Addr())) + proxy(beyond, "c")
			parts := map[byte]string{
				'1': proxy("127.0.0.1:"+port, "a", "tcp_nodelay = false"),
				'2': proxy("127.0.0.2:"+port, "a"),
				'*': proxy("*:"+port, "b"),
				':': proxy("{ address = '[::]:"+port+"', ipv6only = false }", "c"),
				'!': proxy("192.0.2.1:"+port, "c"), // no address of this host
			}
			config := func(listens string) string {
				text := head
				for _, l := range []byte(listens) {
					text += parts[l]
				}
				return text
			}
			// Who serves 127.0.0.1, 127.0.0.2 and ::1; "-" nobody.
			served := map[string]string{
				"1": "a--", "12": "aa-", "*": "bb-", ":": "ccc", "*:": "bbc",
				"1*": "ab-", "12*": "aa-", "1:": "acc", "12:": "aac", "1*:": "abc",
			}
			p := smtptest.Start(t, config("1*"))
			client := &ledger.Client{Addr: "127.0.0.1:" + port, Concurrency: 4}
			stop := run(t, client)
			for listens := range strings.FieldsSeq("1 1* * 1* 12* 12 : 1: 12 12: * 1*: 1: *: 1 * : 1*: 1* 12: * 1 1*") {
				reload(t, p, config(listens))
				for i, target := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
					addr := net.JoinHostPort(target, port)
					if want := served[listens][i : i+1]; want == "-" {
						requireRefused(t, addr)
					} else {
						require.Equal(t, want, visits(t, addr, 1), "%s of %s", target, listens)
					}
				}
				more(t, client, 5)
				// With all that is wrong in one more, every address needs a socket
				// of its own until the reload has failed.
				p.Configure(config("12!"))
				n := p.Count("reload failed")
				p.Signal(syscall.SIGHUP)
				p.Await("reload failed", n+1)
			}
			stop()
			requireAll(t, client, of{client, a}, of{client, b}, of{client, c})
			require.Zero(t, p.Count("keeps its old options|keeps its owner|already in use"))
		})
	}
}
