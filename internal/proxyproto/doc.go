// Package proxyproto reads and writes the header of the PROXY protocol, by
// which one proxy tells the next, or the server, who the client is: versions 1
// (a line of text) and 2 (binary) of HAProxy's proxy-protocol.txt.
//
// The data plane peeks at what a trusted front has sent, and consumes the
// header once it is all there; what follows it stays in the socket:
//
//	h, n, state := proxyproto.Parse(peeked)
//	switch state {
//	case proxyproto.More: // peek again when n bytes are there
//	case proxyproto.Malformed: // close the connection
//	case proxyproto.Complete: // consume n bytes
//		if h.Command == proxyproto.Proxy {
//			client, listen = h.Src, h.Dst
//		}
//	}
//
// and before the first byte of each attempt at a server that wants a header,
// one is made anew:
//
//	buf = proxyproto.AppendV2(buf[:0], client, listen)
//
// Nothing here allocates, or looks at a byte behind the header; and nothing keeps a
// reference to the bytes it was given but TLVs.
//
// # Strictness
//
// A header comes from a proxy, which has no excuse for writing it wrong, and
// an address taken from it decides who may relay mail. So a sequence that does
// not match the specification exactly is Malformed: other spacing or line
// ends, a leading zero, the address of another family, a zone; a v1 line
// longer than 107 bytes; a v2 header of an unknown version, command or family,
// too short for its addresses or longer than 4 KiB, or with a TLV (an
// extension) that reaches beyond it. Every prefix of a header is More, so it
// does not matter in which pieces it comes.
//
// Extensions are stepped over, and looked into by whoever asks Extensions for them.
// They are never passed on: a header that goes out says two addresses and nothing
// else.
//
// # What it does not do
//
// It does not decide whose header to believe. The specification forbids to
// guess whether a header is there: the caller knows by the connection's own
// address, before it looks at a byte, that a header must come or must not be
// looked for. Nor does it keep time: whoever waits for the rest of a header
// bounds the wait.
package proxyproto
