package ledger

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/internal/smtptest"
)

// fault is what a bad proxy does to one message.
type fault int

const (
	honest    fault = iota
	lose            // says 250 itself and drops the message
	duplicate       // delivers it twice
	corrupt         // changes a byte of its body
	forge           // changes its id
	hideReply       // delivers it, and closes before the client reads the 250
	withhold        // closes without delivering it
)

// proxy is a store-and-forward proxy in front of one server that treats the
// nth message with a fault, and all others honestly.
type proxy struct {
	server string
	fault  fault
	nth    int64
	count  atomic.Int64
}

// badProxy starts a proxy and returns its address.
func badProxy(t *testing.T, server string, f fault, nth int64) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{server: server, fault: f, nth: nth}
	return smtptest.Serve(t, ln, p.relay).Addr()
}

// relay handles commands in lockstep: each line of the client goes to the
// server, and each reply back.
func (p *proxy) relay(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	fromClient, fromServer := bufio.NewReader(client), bufio.NewReader(server)
	greeting, _ := readReply(fromServer)
	io.WriteString(client, greeting)
	var envelope []string
	for {
		line, err := fromClient.ReadString('\n')
		if err != nil {
			return
		}
		if line != "DATA\r\n" {
			envelope = append(envelope, line)
		}
		io.WriteString(server, line)
		reply, err := readReply(fromServer)
		if err != nil {
			return
		}
		io.WriteString(client, reply)
		if line == "QUIT\r\n" {
			return
		}
		if line != "DATA\r\n" || reply[0] != '3' {
			continue
		}
		message, err := readMessage(fromClient)
		if err != nil {
			return
		}
		if !p.deliver(client, server, fromServer, envelope[len(envelope)-2:], message) {
			return
		}
	}
}

// deliver passes a message on; false ends the session.
func (p *proxy) deliver(client, server net.Conn, fromServer *bufio.Reader, envelope []string, message string) bool {
	f := honest
	if p.count.Add(1) == p.nth {
		f = p.fault
	}
	switch f {
	case lose:
		io.WriteString(client, "250 trust me\r\n")
		return false
	case withhold:
		return false
	case corrupt:
		i := len(message) - 10
		message = message[:i] + "." + message[i+1:]
	case forge:
		message = strings.Replace(message, headerID+": ", headerID+": x", 1)
	}
	io.WriteString(server, message)
	reply, err := readReply(fromServer)
	if err != nil || f == hideReply {
		return false
	}
	if f == duplicate {
		for _, text := range append(envelope, "DATA\r\n", message) {
			io.WriteString(server, text)
			readReply(fromServer)
		}
	}
	io.WriteString(client, reply)
	return true
}

func readReply(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		b.WriteString(line)
		if line[3] == ' ' {
			return b.String(), nil
		}
	}
}

func readMessage(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		b.WriteString(line)
		if line == ".\r\n" {
			return b.String(), nil
		}
	}
}
