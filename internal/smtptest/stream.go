package smtptest

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Digest says what a byte stream was: two are equal if the streams were.
type Digest struct {
	N   int64
	Sum [sha256.Size]byte
}

func (d Digest) String() string { return fmt.Sprintf("%d bytes, sha256 %x", d.N, d.Sum[:6]) }

// Sink reads r to its end. With an error, the digest is of what came before.
func Sink(r io.Reader) (Digest, error) {
	h := hasher{sha256.New(), 0}
	// The buffer is given so that no splice into the hash is tried.
	_, err := io.CopyBuffer(&h, struct{ io.Reader }{r}, make([]byte, 64<<10))
	return h.digest(), err
}

// Source writes n pseudo-random bytes to w, in segments of random sizes of 1 to
// segment bytes; each seed makes another stream. With an error, the digest is of
// what w took before.
func Source(w io.Writer, n int64, segment int, seed uint64) (Digest, error) {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data, sizes := rand.NewChaCha8(key), rand.New(rand.NewPCG(seed, 1))
	h := hasher{sha256.New(), 0}
	buf := make([]byte, min(int64(segment), n))
	for h.n < n {
		part := buf[:min(1+sizes.Int64N(int64(segment)), n-h.n)]
		_, _ = data.Read(part) // never fails, nor does a hash
		m, err := w.Write(part)
		_, _ = h.Write(part[:m])
		if err != nil {
			return h.digest(), err
		}
	}
	return h.digest(), nil
}

// Echo sends back what comes, until the peer's end of file; then it sends its
// own. It is a handler for Serve.
func Echo(c net.Conn) {
	if _, err := io.Copy(c, c); err == nil {
		_ = CloseWrite(c) // fails only if the peer is gone
	}
}

// Abort closes c with RST: what c has not sent yet is lost, and the peer gets
// "connection reset by peer" once it has read what came before. A unix socket
// knows no reset and is just closed.
func Abort(c net.Conn) error {
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return c.Close()
}

// CloseWrite sends end of file on c, which can still be read.
func CloseWrite(c net.Conn) error {
	h, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("half-close %T: it has no CloseWrite", c)
	}
	return h.CloseWrite()
}

// RcvBuf is a Control function, of a net.Dialer or net.ListenConfig, that gives
// the socket a receive buffer of about n bytes before its window is agreed.
// Connections inherit it from their listener. A peer with such a socket that
// reads nothing soon takes nothing.
func RcvBuf(n int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return setInt(c, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	}
}

// hasher counts and hashes what is written to it.
type hasher struct {
	hash.Hash
	n int64
}

func (h *hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.Hash.Write(p)
}

func (h *hasher) digest() Digest {
	d := Digest{N: h.n}
	h.Sum(d.Sum[:0])
	return d
}
