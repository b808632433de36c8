package integration

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// headerServer tells what comes in a line before it greets.
func headerServer(t *testing.T) (addr string, first chan string) {
	t.Helper()
	first = make(chan string, 1)
	addr = serveRaw(t, func(c net.Conn) {
		var line strings.Builder
		for one := make([]byte, 1); !strings.HasSuffix(line.String(), "\n"); line.WriteByte(one[0]) {
			if _, err := c.Read(one); err != nil {
				break
			}
		}
		first <- line.String()
		_, _ = io.WriteString(c, "220 x\r\n")
		_, _ = io.WriteString(c, toEnd(c))
	})
	return addr, first
}

// anonymous puts words for what differs between sides and clients into a
// header of the PROXY protocol, where each has to be.
func anonymous(header string, s side, c net.Conn) string {
	words := strings.Split(header, " ")
	client, ok := c.LocalAddr().(*net.TCPAddr)
	if len(words) != 6 || !ok {
		return header
	}
	server := c.RemoteAddr().(*net.TCPAddr)
	for i, known := range map[int][2]string{
		3: {s.host, "HOST"},
		4: {strconv.Itoa(client.Port), "CLIENT"},
		5: {strconv.Itoa(server.Port) + "\r\n", "PORT\r\n"},
	} {
		if words[i] == known[0] {
			words[i] = known[1]
		}
	}
	return strings.Join(words, " ")
}

// A server reads the same header and then what the client sends, which may be
// there first.
func testProxyProtocolOut(t *testing.T) {
	server, header := headerServer(t)
	port := smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf(`
proxy_half_close on;
server { listen $host:%d; listen [::1]:$six; listen unix:$dir/in; proxy_pass %s; proxy_protocol on; }`, port, server))
	const text = "220 x\r\nEHLO me\r\nEOFEOF\n"
	alike(t, sides, "PROXY TCP4 127.0.0.1 HOST CLIENT PORT\r\n"+text+
		"PROXY TCP6 ::1 ::1 CLIENT PORT\r\n"+text+
		"PROXY UNKNOWN\r\n"+text, func(s side) string {
		var seen strings.Builder
		for _, dial := range []func() net.Conn{
			func() net.Conn { return openFrom(t, "127.0.0.1", s.at(port), "EHLO me\r\n") },
			func() net.Conn {
				return openFrom(t, "::1", net.JoinHostPort("::1", strconv.Itoa(s.six)), "EHLO me\r\n")
			},
			func() net.Conn { return open(t, "unix", s.dir+"/in", "EHLO me\r\n") },
		} {
			c := dial()
			require.NoError(t, smtptest.CloseWrite(c))
			seen.WriteString(anonymous(<-header, s, c) + toEnd(c) + "\n")
		}
		return seen.String()
	})
}

// A believed balancer before ours says who the client is; who says nothing, or
// nonsense, gets no server. Unlike nginx, smtplb passes on to which address the
// client has come, as the header says, and takes an address that is none for
// nonsense, too.
func testProxyProtocolIn(t *testing.T) {
	server, header := headerServer(t)
	port := smtptest.FreePort(t)
	sides := beside(t, port, fmt.Sprintf(`
set_real_ip_from 127.0.0.0/8;
server { listen $host:%d proxy_protocol; proxy_pass %s; proxy_protocol on; proxy_half_close on; proxy_protocol_timeout 2s; }`, port, server))
	const (
		four  = "PROXY TCP4 192.0.2.1 198.51.100.1 1234 25\r\n"
		six   = "PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n"
		v2    = "\r\n\r\n\x00\r\nQUIT\n"
		ports = "\xc0\x00\x02\x01\xc6\x33\x64\x01\x04\xd2\x00\x19" // and addresses, of four
		hello = "EHLO me\r\n"

		greeted = "220 x\r\nEHLO me\r\nEOFEOF"
		itself  = "PROXY TCP4 127.0.0.1 HOST CLIENT PORT\r\n" + greeted
		told    = "PROXY TCP4 192.0.2.1 HOST 1234 PORT\r\n" + greeted
		none    = "no server, EOF"
	)
	for _, test := range []struct{ name, says, theirs, ours string }{
		{"v1", four + hello, told, four + greeted},
		{"v1-six", six + hello, "PROXY TCP6 2001:db8::1 HOST 1234 PORT\r\n" + greeted, six + greeted},
		{"v1-unknown", "PROXY UNKNOWN\r\n" + hello, itself, itself},
		{"v1-unknown-with-more", "PROXY UNKNOWN 1 2 3 4\r\n" + hello, itself, itself},
		{"v1-no-address", "PROXY TCP4 192.0.2.999 198.51.100.1 1234 25\r\n" + hello, itself, none},
		{"v1-no-port", "PROXY TCP4 192.0.2.1 198.51.100.1 1234567 25\r\n", none, none},
		{"v1-long", "PROXY TCP4 " + strings.Repeat("1", 110) + "\r\n", none, none},
		{"v2", v2 + "\x21\x11\x00\x0c" + ports + hello, told, four + greeted},
		{"v2-local", v2 + "\x20\x00\x00\x00" + hello, itself, itself},
		{"v2-with-more", v2 + "\x21\x11\x00\x10" + ports + "\x04\x00\x01\x00" + hello, told, four + greeted},
		{"v2-no-version", v2 + "\x11\x11\x00\x0c" + ports, none, none},
		{"none", hello, none, none},
		{"silence", "", none, none},
	} {
		t.Run(test.name, func(t *testing.T) {
			apart(t, sides, test.theirs, test.ours, func(s side) string {
				c := openFrom(t, "127.0.0.1", s.at(port), test.says)
				if test.says != "" {
					_ = smtptest.CloseWrite(c) // it may have been reset
				}
				end := toEnd(c)
				select {
				case line := <-header:
					return anonymous(line, s, c) + end
				default:
					// What was not read is answered by a reset.
					return "no server, " + strings.Replace(end, "reset", "EOF", 1)
				}
			})
		})
	}
}

// A server sees the address that it is to see.
func testProxyBind(t *testing.T) {
	server := serveRaw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
	})
	ports := [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	sides := beside(t, ports[0], fmt.Sprintf(`
proxy_bind 127.0.0.9;
server { listen $host:%[1]d; proxy_pass %[3]s; }
server { listen $host:%[2]d; proxy_pass %[3]s; proxy_bind off; }`, ports[0], ports[1], server))
	alike(t, sides, "127.0.0.9EOF 127.0.0.1EOF", func(s side) string {
		return toEnd(open(t, "tcp", s.at(ports[0]), "")) + " " + toEnd(open(t, "tcp", s.at(ports[1]), ""))
	})
}
