package main

import (
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// start runs a server; its output can be read once the test has sent its mail.
func start(t *testing.T) (addr string, out *strings.Builder) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	out = new(strings.Builder)
	s := &server{name: "mx1", out: out, counts: make(map[string]int)}
	ended := make(chan error)
	go func() { ended <- s.serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		require.ErrorIs(t, <-ended, net.ErrClosed)
	})
	return ln.Addr().String(), out
}

// Fails when a message is counted for another sender, or before it is complete.
func TestCountsBySender(t *testing.T) {
	t.Parallel()
	addr, out := start(t)
	// 19 bytes with a line end counted as one.
	body := []byte("Subject: x\r\n\r\n.hello\r\n")
	for _, from := range []string{"a@example.com", "b@example.com", "a@example.com"} {
		require.NoError(t, smtp.SendMail(addr, nil, from, []string{"x@example.com", "y@example.com"}, body))
	}
	require.Equal(t, ""+
		"mx1: <a@example.com> to <x@example.com>, <y@example.com>, 19 bytes; message 1 from this sender, 1 in all\n"+
		"mx1: <b@example.com> to <x@example.com>, <y@example.com>, 19 bytes; message 1 from this sender, 2 in all\n"+
		"mx1: <a@example.com> to <x@example.com>, <y@example.com>, 19 bytes; message 2 from this sender, 3 in all\n",
		out.String())
}

func TestDialogue(t *testing.T) {
	t.Parallel()
	addr, out := start(t)
	c, err := textproto.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	for _, step := range []struct {
		say  string
		code int
	}{
		{"", 220},
		{"helo me", 250},
		{"RCPT TO:<x@example.com>", 503},
		{"DATA", 503},
		{"MAIL FROM:<> SIZE=100", 250},
		{"DATA", 503},
		{"RCPT TO:<x@example.com>", 250},
		{"RSET", 250},
		{"DATA", 503},
		{"NOOP", 250},
		{"WHAT", 500},
		{"QUIT", 221},
	} {
		if step.say != "" {
			require.NoError(t, c.PrintfLine("%s", step.say))
		}
		_, _, err := c.ReadResponse(step.code)
		require.NoError(t, err, "%q", step.say)
	}
	_, err = c.ReadLine()
	require.ErrorIs(t, err, io.EOF)
	require.Empty(t, out.String())
}

func TestHalfAMessageDoesNotCount(t *testing.T) {
	t.Parallel()
	addr, out := start(t)
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\nhalf\r\n")
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(all), "line of its own\r\n"))
	require.Empty(t, out.String())
}
