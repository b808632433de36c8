package integration

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// What variables become in sessions. Each value belongs to a client of its own,
// by a map of addresses of the loopback network.

// valueOf is a map block, by which $name is the nth value for the client valueFrom.
func valueOf(name string, values []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "map $remote_addr $%s {\n", name)
	for i, v := range values {
		fmt.Fprintf(&b, "\t%s %q;\n", valueFrom(i), v)
	}
	return b.String() + "}\n"
}

func valueFrom(n int) string { return fmt.Sprintf("127.77.0.%d", n+1) }

// complaints are the messages of a log about values, each as often as it is there.
func complaints(s side) (all []string) {
	for _, m := range regexp.MustCompile(`\*\d+ ((?:invalid|no) [^,]*")?(no resolver[^,]*)?, client`).FindAllStringSubmatch(s.log(), -1) {
		all = append(all, m[1]+m[2])
	}
	slices.Sort(all)
	return all
}

// complainAlike waits until both sides have logged the same about values: so many
// messages.
func complainAlike(t *testing.T, sides []side, n int) {
	t.Helper()
	for _, s := range sides {
		smtptest.Eventually(t, patience, s.name+" has complained", func() bool { return len(complaints(s)) >= n })
		require.Len(t, complaints(s), n)
	}
	require.Equal(t, complaints(sides[0]), complaints(sides[1]))
}

// A server sees the address that the value is, with its port if it has one, or
// the host's own if it is none; and no server is connected to from an address that
// cannot be had.
//
// Fails if a port of 0 is taken, if "off" turns binding off without a word, or if
// a session without a source fails.
func testValuesOfBind(t *testing.T) {
	server := serveRaw(t, func(c net.Conn) { _, _ = io.WriteString(c, addrSeen(c)) })
	values := []string{
		"127.0.0.9", "", "off", "nobody", "127.0.0.9:0", "127.0.0.9:99999", "127.0.0.9:", " 127.0.0.9", "127.1",
		"::1", "[::1]", "[::1]:25", "10.99.99.99", "unix:", "unix:/x", "localhost", "127.0.0.9:$six",
	}
	ports := [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	sides := beside(t, ports[0], valueOf("source", values)+fmt.Sprintf(`
server { listen $host:%[1]d; proxy_pass %[3]s; proxy_bind $source; }
server { listen $host:%[2]d; proxy_pass %[3]s; proxy_bind $remote_addr; }`, ports[0], ports[1], server))
	for i, v := range values {
		want := "127.0.0.1"
		switch v {
		case "127.0.0.9":
			want = v
		case "::1", "[::1]:25", "10.99.99.99":
			want = ""
		}
		if v == "127.0.0.9:$six" {
			for _, s := range sides {
				require.Equal(t, fmt.Sprintf("127.0.0.9:%d", s.six)+"EOF", toEnd(openFrom(t, valueFrom(i), s.at(ports[0]), "")), s.name)
			}
			continue
		}
		alike(t, sides, want+"EOF", func(s side) string { return toEnd(openFrom(t, valueFrom(i), s.at(ports[0]), "")) })
	}
	alike(t, sides, "127.77.0.99EOF", func(s side) string { return toEnd(openFrom(t, "127.77.0.99", s.at(ports[1]), "")) })
	complainAlike(t, sides, 11)
}

// addrSeen is the address of a peer, with a port that is not the kernel's choice.
func addrSeen(c net.Conn) string {
	a := c.RemoteAddr().(*net.TCPAddr)
	if a.IP.String() == "127.0.0.9" && a.Port < 32768 {
		return a.String()
	}
	return a.IP.String()
}

// A session goes to the upstream of that name, or to the address; to another
// name only if another server has it with that port.
//
// Fails if an address is not taken for one, if the name of an upstream has
// letters other than of ASCII in lower case, if one is found by its name and
// a port, or if a refused session is not refused in nginx's words.
func testValuesOfPass(t *testing.T) {
	named := func(name string) string {
		return serveRaw(t, func(c net.Conn) { _, _ = io.WriteString(c, name) })
	}
	direct, group, hosted := named("direct"), named("group"), named("hosted")
	socket := openDir(t) + "/s"
	smtptest.Serve(t, openSocket(t, socket), func(c net.Conn) { _, _ = io.WriteString(c, "socket") })
	known := "localhost:" + portIn(hosted)
	values := []struct{ text, want string }{
		{direct, "direct"}, {"GROUP", "group"}, {"GRÖUP", "group"}, {"unix:" + socket, "socket"}, {known, "hosted"}, {smtptest.Refused(t), ""},
		{"group:25", ""}, {"localhost:1", ""}, {"localhost", ""}, {"", ""}, {"127.0.0.1", ""}, {"127.0.0.1:0", ""}, {"[::1", ""}, {"[::x]:1", ""},
		{"[::1]", ""}, {"a/b:1", ""}, {":25", ""}, {"::1:25", ""}, {"unix:", ""}, {"unix:/none", ""}, {"255.255.255.255:1", ""},
	}
	var texts []string
	for _, v := range values {
		texts = append(texts, v.text)
	}
	ports := [2]int{smtptest.FreePort(t), smtptest.FreePort(t)}
	sides := beside(t, ports[0], valueOf("to", texts)+fmt.Sprintf(`
upstream group { server %[2]s; }
upstream grÖup { server %[2]s; }
server { listen $host:%[1]d; proxy_pass $to; }
server { listen $host:%[3]d; proxy_pass %[4]s; }`, ports[0], group, ports[1], known))
	for i, v := range values {
		alike(t, sides, v.want+"EOF", func(s side) string { return toEnd(openFrom(t, valueFrom(i), s.at(ports[0]), "")) })
	}
	complainAlike(t, sides, 14)
}
