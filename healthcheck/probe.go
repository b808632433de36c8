package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"smtplb/internal/proxyproto"
	"smtplb/internal/smtp"
)

// outcome is what a probe has found out, before anybody counts it.
type outcome struct {
	good  bool
	soft  bool   // not good: a living server refuses for the moment
	why   string // printable
	cert  *x509.Certificate
	agent AgentReport
	fault string // if not "", the outcome is ours and not the server's, and says nothing of it
}

// stepError is why a step of a probe has failed.
type stepError struct {
	why string // printable
	// code is that of the server's last reply, by which to part from it; 0 if
	// there is nothing left to be said.
	code int
	// local means that we could not try.
	local bool
}

func (e *stepError) Error() string { return e.why }

func (e *stepError) outcome() outcome {
	if e.local {
		return outcome{fault: e.why}
	}
	return outcome{soft: e.code/100 == 4, why: e.why}
}

// probe is one visit to a server. It belongs to one goroutine.
type probe struct {
	Settings

	ctx    context.Context // ends with the time of the probe, and then conn is closed
	conn   net.Conn        // to speak on: tcp, or TLS over it
	cert   *x509.Certificate
	agent  AgentReport
	reader smtp.Reader
	rest   []byte // of buf: has come and was not looked at yet
	buf    [512]byte
}

// examine visits a server and returns when the connection is closed. Nothing of
// it outlives s.Timeout or ctx.
func examine(ctx context.Context, dial dialFunc, s Settings) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	p := &probe{Settings: s, ctx: ctx}

	began := time.Now()
	conn, err := dial(ctx, s.Network, s.Address)
	if err != nil {
		return p.lost("connect", "no connection", began, err).outcome()
	}
	defer conn.Close()
	p.conn = conn
	// Closing is the one way to end any wait, whatever deadlines are set.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		close(closed)
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	why, err := p.run()
	o := outcome{good: true, why: why}
	code := 0
	if err != nil {
		failed := err.(*stepError)
		o, code = failed.outcome(), failed.code
	}
	o.cert, o.agent = p.cert, p.agent
	if (o.good || code != 0) && !p.Agent {
		p.part(code)
	}
	return o
}

// run does all but the goodbye. Any error is a *stepError.
func (p *probe) run() (why string, err error) {
	if p.Agent {
		return p.askAgent()
	}
	if p.Header != NoHeader {
		if _, err := p.conn.Write(p.header()); err != nil {
			return "", p.lost("PROXY header", "PROXY header not taken", time.Now(), err)
		}
	}
	if !p.SMTP {
		return "connected", nil
	}
	return p.dialogue()
}

func (p *probe) header() []byte {
	if p.Header == V2 {
		return proxyproto.AppendV2(nil, netip.AddrPort{}, netip.AddrPort{})
	}
	return proxyproto.AppendV1(nil, addrPort(p.conn.LocalAddr()), addrPort(p.conn.RemoteAddr()))
}

// addrPort is the address of an end of TCP; it is not valid for any other.
func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// handshake turns the connection to TLS.
func (p *probe) handshake() error {
	began := time.Now()
	conn := tls.Client(p.conn, &tls.Config{
		// Whether to trust the server is between it and the client. The same
		// goes for how old its TLS is.
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10,
	})
	if err := conn.HandshakeContext(p.ctx); err != nil {
		return p.lost("TLS", "no TLS handshake", began, err)
	}
	p.conn = conn
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		p.cert = certs[0]
	}
	return nil
}

// lost explains why a step that began then was broken off: by what is missing
// if the time of the probe has run out, else by the error.
func (p *probe) lost(step, missing string, began time.Time, err error) *stepError {
	var errno syscall.Errno
	switch {
	case p.ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		took := time.Since(began).Round(100 * time.Millisecond)
		return &stepError{why: fmt.Sprintf("%s in %v", missing, took)}
	case errors.As(err, &errno):
		return &stepError{why: step + ": " + errno.Error(), local: isLocal(errno)}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &stepError{why: step + ": the server has closed the connection"}
	}
	return &stepError{why: step + ": " + smtp.Printable([]byte(err.Error()), smtp.LogLimit)}
}

// isLocal reports whether an error says that our side is short of something,
// and nothing of the server.
func isLocal(errno syscall.Errno) bool {
	switch errno {
	case syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, // no port left, or no address of the family
		syscall.EMFILE, syscall.ENFILE, // no descriptor
		syscall.ENOBUFS, syscall.ENOMEM:
		return true
	}
	return false
}
