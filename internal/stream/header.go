package stream

import (
	"smtplb/internal/proxyproto"
	"smtplb/internal/reactor"
)

// The PROXY protocol on both sides: who the client is, as a proxy in front of
// us says, and as we say to servers.

// headerTimeout is how long, in ms, a proxy in front may take to send its whole
// header, from accept on.
func (r *Route) headerTimeout() int64 {
	if r.HeaderTimeout == 0 {
		return 5_000 // as Postfix
	}
	return r.HeaderTimeout.Milliseconds()
}

// readHeader waits for the header of a session whose client is a proxy, and
// then goes on with the client it names. The bytes behind the header stay in
// the socket.
func (w *worker) readHeader(s *session) {
	b := w.buffer(proxyproto.MaxLen)
	n, errno := reactor.Peek(int(s.client.fd), b)
	if errno == eagain {
		return
	}
	if errno != 0 || n == 0 {
		w.clientLeft(s, errno != 0)
		return
	}
	h, n, state := proxyproto.Parse(b[:n])
	switch state {
	case proxyproto.More:
		if !s.client.hup {
			return
		}
		fallthrough
	case proxyproto.Malformed:
		w.badHeader(s, malformedHeader, causeBadHeader)
		return
	}
	if got, errno := reactor.Recv(int(s.client.fd), b[:n]); errno != 0 || got != n {
		panic("stream: BUG: bytes that were peeked at are gone")
	}
	if h.Command == proxyproto.Proxy {
		s.front, s.from, s.local = s.from, h.Src, h.Dst
		if s.record != nil && s.route.Scope.UsesExtensions() {
			s.record.tlvs = append(s.record.tlvs[:0], proxyproto.Extensions(b[:n])...)
		}
	}
	w.start(s)
}

// What can be wrong about a header, and what to do about it.
const (
	malformedHeader = "malformed PROXY protocol header" + headerHint
	lateHeader      = "no PROXY protocol header in time" + headerHint
	headerHint      = ": is proxy_protocol on in the proxy, and is its address one of set_real_ip_from?"
)

// badHeader ends a session whose proxy did not introduce its client. Nothing is
// said: it would reach the proxy as if a server had said it to the client.
func (w *worker) badHeader(s *session, why string, c cause) {
	w.complain(s, why)
	w.finish(s, c)
}

// writeHeader tells a server that was just reached who the client is. The
// socket is empty, so all of it is taken or the connection is of no use.
func (w *worker) writeHeader(s *session) bool {
	b := w.header(s)
	if len(b) == 0 {
		return true
	}
	n, errno := reactor.Send(int(s.server.fd), b)
	w.bookHeader(s, n)
	return errno == 0 && n == len(b)
}

// header is what servers are told of the session's client, in the worker's
// buffer.
func (w *worker) header(s *session) []byte {
	if s.to.Header == NoHeader {
		return nil
	}
	if !s.local.IsValid() && s.from.IsValid() {
		s.local, _ = w.connectedTo(s)
	}
	if s.to.Header == HeaderV1 {
		return proxyproto.AppendV1(w.buf[:0], s.from, s.local)
	}
	return proxyproto.AppendV2(w.buf[:0], s.from, s.local)
}
