package integration

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// An outsider is one who has a word in what goes to the logs.
type outsider struct {
	// conf is what the configuration needs. It may start peers.
	conf func(o *outsides) string
	// play is repeated until the error log has its line, since that leaves out
	// what comes too fast; nil where it comes by itself.
	play func(o *outsides)
}

// outsides are all outsiders of one process.
type outsides struct {
	t      *testing.T
	p      *smtptest.Process
	errors records
	dir    string
	mark   string // of the present row, by which its text is known again
	logs   string // the tables of all access logs
	base   string // the configuration
	addr   string // where the row's server listens
}

const (
	// forged is what a record of another process might be. It would begin a line.
	forged = "2001/02/03 04:05:06 [emerg] 7#7: forged"
	// victim is an address that no field of a record may show.
	victim = "203.0.113.66"
)

// words are what an outsider says where a line feed ends it: a mark, the end of
// what quotes it and fields of its own, and bytes that a terminal acts on, that
// look like a line's end, or that are no text at all.
func (o *outsides) words() string {
	return o.mark + `" while x, client: ` + victim + `, "client": "` + victim + "\x1b[2J\x00\x08\x7f\x9b1m\u009b1m\u2028\u202e\xc0\xff\r \\\"\\n"
}

// text is the same where nothing ends it, and longer than any log should be.
func (o *outsides) text() string {
	return o.mark + "\r\n" + forged + "\n" + o.words() + strings.Repeat("\n"+forged+"\xff", 2000)
}

// path is the row's, of what the configuration takes for one.
func (o *outsides) path() string { return o.dir + "/" + o.mark + "\"\u202e\u2028é\\" }

// server is the row's server, which has all access logs.
func (o *outsides) server(pass string, lines ...string) string {
	return proxy(o.addr, pass, append(lines, "access_log = ["+o.logs+"]")...)
}

// fronted is a server whose clients come with a PROXY header.
func (o *outsides) fronted(pass string) string {
	return proxy(fmt.Sprintf("{ address = %q, proxy_protocol = true }", o.addr), pass,
		"set_real_ip_from = ['127.0.0.0/8']", "access_log = ["+o.logs+"]")
}

// behind is fronted, with a server that greets.
func behind(play func(*outsides)) outsider {
	return outsider{conf: func(o *outsides) string { return o.fronted(o.answering("220 mx", nil)) }, play: play}
}

// call is a client of the row's server that says something, and hears its end.
func (o *outsides) call(words string) {
	c, err := net.Dial("tcp", o.addr)
	require.NoError(o.t, err)
	defer c.Close()
	_, _ = io.WriteString(c, words)
	require.NoError(o.t, c.SetReadDeadline(time.Now().Add(patience)))
	_, _ = io.Copy(io.Discard, c)
}

// listen is a client that hears a line and leaves.
func (o *outsides) listen() {
	c, err := net.Dial("tcp", o.addr)
	require.NoError(o.t, err)
	defer c.Close()
	require.NoError(o.t, c.SetReadDeadline(time.Now().Add(patience)))
	_, _ = bufio.NewReader(c).ReadString('\n')
}

// answering is a server that says a greeting, then to each command what answers
// have for its verb, and closes after QUIT.
func (o *outsides) answering(greeting string, answers map[string]string) string {
	return serveRaw(o.t, func(c net.Conn) {
		in := bufio.NewReader(c)
		said := greeting
		for {
			if _, err := io.WriteString(c, said+"\r\n"); err != nil {
				return
			}
			line, err := in.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "QUIT") {
				return
			}
			said = "250 ok"
			verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if words, ok := answers[verb]; ok {
				said = words
			}
		}
	})
}

// greets is a session whose server greets with these words.
func greets(greeting said) outsider {
	return outsider{
		conf: func(o *outsides) string { return o.server(o.answering(greeting(o), nil)) },
		play: func(o *outsides) { o.listen() },
	}
}

// said is a text of a row.
type said = func(*outsides) string

// probed is a server that is probed, with a greeting unless it is nil, and answers
// by verbs. Before its first probe it is out, so that also a good one is told.
func probed(check string, greeting said, answers map[string]said) outsider {
	return outsider{conf: func(o *outsides) string {
		first, all := "220 mx", map[string]string{}
		if greeting != nil {
			first = greeting(o)
		}
		for verb, answer := range answers {
			all[verb] = answer(o)
		}
		return o.checked(o.answering(first, all), check)
	}}
}

func (o *outsides) checked(addr, check string) string {
	return checkedUpstream(o.mark, "check = { interval = '200ms', fall = 1, rise = 1, default_down = true"+check+" }", server(addr)) +
		o.server(o.mark)
}

func agentSaying(words said) outsider {
	return outsider{conf: func(o *outsides) string {
		line := words(o) + "\n"
		addr := serveRaw(o.t, func(c net.Conn) { _, _ = io.WriteString(c, line) })
		_, port, err := net.SplitHostPort(addr)
		require.NoError(o.t, err)
		return fmt.Sprintf("[[upstream]]\nname = %q\nagent = { port = %s, interval = '200ms' }\nservers = [ '127.0.0.1:1' ]\n%s",
			o.mark, port, o.server(o.mark))
	}}
}

// header is a PROXY header of version 2 that names a client of IPv6, whose 16
// bytes are anything, with extensions.
func header(client, extensions string) string {
	n := 36 + len(extensions)
	client = (client + strings.Repeat(" ", 16))[:16]
	return "\r\n\r\n\x00\r\nQUIT\n\x21\x21" + string([]byte{byte(n >> 8), byte(n)}) + client + client + "\x04\xd2\x00\x19" + extensions
}

func extension(kind byte, value string) string {
	return string([]byte{kind, byte(len(value) >> 8), byte(len(value))}) + value
}

func saying(prefix string) said {
	return func(o *outsides) string { return prefix + o.words() }
}

// refuse has the program read a configuration that it does not take.
func (o *outsides) refuse(before, after string) {
	n := o.errors.count("reload failed")
	o.p.Configure(before + "\n" + o.base + after)
	o.p.Signal(syscall.SIGHUP)
	smtptest.Eventually(o.t, patience, "the configuration is refused", func() bool { return o.errors.count("reload failed") > n })
}

// certified is a certificate that has ended, of this name.
func certified(t *testing.T, name string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: strings.ToValidUTF8(name, "?"), Organization: []string{"a\nb"}},
		NotAfter:     time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// mark stands in the table for the row's own; see outsides.
const mark = "MARK"

// outsiders has a row for each place where text of the outside comes in, and what
// the error log has of it in our format and in nginx's: a pattern, "" for nothing.
// In the access logs is a record for each session, of all variables.
//
// What can get into the error log was found by looking through every call of a
// zap.Logger, every message of a journal (internal/stream/log.go, ngxlog.go), and
// all that makes a healthcheck.Result, an upstream.AgentWord, a reason of
// accesslog's losses and a conf.ParseError; what into an access log, by
// script.builtins. No row have addresses as text, which are printed from numbers;
// names that a resolver is asked for, which are the configuration's; and the summary
// of servers that are not up, whose reasons are those of the probes.
var outsiders = []struct {
	name string
	outsider
	ours, nginx string
}{
	{"greeting, refusal", greets(saying("554 5.7.1 ")), mark, mark},
	{"greeting, 421", greets(saying("421 4.3.2 ")), mark, mark},
	{"greeting, lines", greets(func(o *outsides) string {
		return "554-" + o.words() + "\r\n554-" + forged + "\r\n554 " + o.words()
	}), mark, mark},
	{"greeting, not SMTP", greets((*outsides).words), mark, mark},
	{"greeting, too long", greets(func(o *outsides) string { return o.mark + strings.Repeat("\x1b", 20_000) }), mark, mark},

	{"header, none", behind(func(o *outsides) { o.call(o.text()) }), "malformed PROXY", `broken header: "MARK\\x0D\\x0A2001`},
	{"header, cut short", behind(func(o *outsides) { o.call("PROXY TCP4 " + o.text()) }), "malformed PROXY", `broken header: "PROXY TCP4 MARK`},
	{"header, version 2", behind(func(o *outsides) { o.call("\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x01" + o.text()) }),
		"malformed PROXY", `broken header: "\\x0D\\x0A\\x0D\\x0A`},
	{"header, unknown", behind(func(o *outsides) { o.call("PROXY UNKNOWN \x1b\x00\"\xff\r\nQUIT\r\n") }), "", ""},
	{"header, extensions", behind(func(o *outsides) {
		o.call(header(o.mark, extension(0x01, o.words())+extension(0x02, o.words())+extension(0xea, o.words())) + "QUIT\r\n")
	}), "", ""},
	{"header, a record for an address", behind(func(o *outsides) { o.call(header("\n"+forged, "") + "QUIT\r\n") }), "", ""},
	{"header, all bytes", behind(func(o *outsides) {
		var bytes [256]byte
		for i := range bytes {
			bytes[i] = byte(i)
		}
		for i := 0; i < len(bytes); i += 16 {
			o.call(header(string(bytes[i:]), "") + "QUIT\r\n")
		}
	}), "", ""},
	{"client before the greeting", outsider{
		conf: func(o *outsides) string {
			return o.server(serveRaw(o.t, func(c net.Conn) { toEnd(c) }), "smtp_pregreet = 'reject'")
		},
		play: func(o *outsides) { o.call(o.text()) },
	}, "client spoke before", "client spoke before"},

	{"variable, a group", outsider{
		conf: func(o *outsides) string { return o.fronted("$copy") },
		play: func(o *outsides) { o.call(header(o.mark+"\n\x1b[2J\xff\", c", "")) },
	}, mark, mark},
	{"variable, a host", outsider{
		conf: func(o *outsides) string { return o.fronted("$copy") },
		play: func(o *outsides) { o.call(header(o.mark+"\n\x1b\"\xff:25   ", "")) },
	}, mark, mark},
	{"variable, a log", outsider{
		conf: func(o *outsides) string {
			o.logs = fmt.Sprintf("{ path = '%s/$copy', format = 'none' }, %s", o.dir, o.logs)
			return o.fronted(o.answering("220 mx", nil))
		},
		play: func(o *outsides) { o.call(header(o.mark+"\n\x1b[2J\xff\"  ", "") + "QUIT\r\n") },
	}, mark, mark},
	{"path of a server", outsider{
		conf: func(o *outsides) string { return o.server("unix:" + o.path()) },
		play: func(o *outsides) { o.call("") },
	}, mark, mark},
	{"path of a listener", outsider{
		conf: func(o *outsides) string {
			o.addr = "unix:" + o.path()
			return o.server(o.answering("220 mx", nil))
		},
		play: func(o *outsides) {
			c := open(o.t, "unix", o.path(), "QUIT\r\n")
			toEnd(c)
			c.Close()
		},
	}, mark, mark},

	{"probe, greeting", probed("", saying("554 "), nil), mark, mark},
	{"probe, lines", probed("", func(o *outsides) string { return "421-" + o.words() + "\r\n421 " + o.words() }, nil), mark, mark},
	{"probe, not SMTP", probed("", (*outsides).words, nil), mark, mark},
	{"probe, EHLO refused", probed("", nil, map[string]said{"EHLO": saying("550 "), "HELO": saying("550 ")}), mark, mark},
	{"probe, EHLO answered", probed("", nil, map[string]said{"EHLO": saying("250 ")}), mark, mark},
	{"probe, RCPT refused", probed(", rcpt_to = 'a@example.org'", nil, map[string]said{"RCPT": saying("450 ")}), mark, mark},
	{"probe, behind STARTTLS", probed(", tls = 'starttls'", nil, map[string]said{
		"EHLO":     func(*outsides) string { return "250-mx\r\n250 STARTTLS" },
		"STARTTLS": saying("220 go\r\n"),
	}), mark, mark},
	{"probe, no TLS", probed(", tls = 'on'", (*outsides).words, nil), "TLS: ", "TLS: "},
	{"probe, certificate", outsider{conf: func(o *outsides) string {
		config := certified(o.t, o.words())
		return o.checked(serveRaw(o.t, func(c net.Conn) { _ = tls.Server(c, config).Handshake() }), ", tls = 'on'")
	}}, "certificate has ended.*MARK", "certificate has ended.*MARK"},
	{"agent, unknown words", agentSaying((*outsides).words), mark, mark},
	{"agent, a word", agentSaying(saying("drain ")), "agent: drain MARK", "agent: drain MARK"},
	{"agent, a description", agentSaying(saying("drain # ")), "agent: drain # MARK", "agent: drain # MARK"},

	{"configuration, a key", outsider{play: func(o *outsides) {
		o.refuse(fmt.Sprintf("%s = 1\n", o.mark)+`"\u001b[2J\u009b\n`+forged+`" = 1`, "")
	}}, mark, mark},
	{"configuration, a value", outsider{play: func(o *outsides) {
		o.refuse(`pid = "`+o.mark+`\n`+forged+`\u001b\u202e"`, "")
	}}, mark, mark},
	{"configuration, a host", outsider{play: func(o *outsides) {
		o.refuse("", proxy("127.0.0.1:1", o.mark+"\u202e\u0085.invalid:25"))
	}}, mark, mark},
}
