// Command sampleserver is a small SMTP server to try a balancer with: it takes
// all mail, keeps none of it, and prints who got what.
//
//	sampleserver -listen 127.0.0.1:10025 -name mx1
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"time"
)

// idleLimit is how long a client may be silent (RFC 5321 section 4.5.3.2.7).
const idleLimit = 5 * time.Minute

func main() {
	listen := flag.String("listen", "127.0.0.1:10025", "`address` to listen on")
	name := flag.String("name", "sample", "`name` to greet with")
	flag.Parse()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{name: *name, out: os.Stdout, counts: make(map[string]int)}
	log.Fatal(s.serve(ln))
}

type server struct {
	name string

	mu     sync.Mutex // protects below
	out    io.Writer
	total  int
	counts map[string]int // messages by sender
}

func (s *server) serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			log.Print(err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		go s.session(c)
	}
}

// took counts a message and prints the score of its sender.
func (s *server) took(from string, to []string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.counts[from]++
	fmt.Fprintf(s.out, "%s: <%s> to <%s>, %d bytes; message %d from this sender, %d in all\n",
		s.name, from, strings.Join(to, ">, <"), size, s.counts[from], s.total)
}

// idleConn is a connection whose every read has to bring something in time.
type idleConn struct{ net.Conn }

func (c idleConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// session speaks SMTP (RFC 5321) until the client leaves.
func (s *server) session(conn net.Conn) {
	defer conn.Close()
	in := textproto.NewReader(bufio.NewReader(idleConn{conn}))
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }

	say("220 %s ESMTP sampleserver", s.name)
	var from string
	var to []string // not empty: DATA may come
	var mail bool   // MAIL has come
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "HELO", "EHLO":
			from, to, mail = "", nil, false
			say("250 %s", s.name)
		case "MAIL":
			from, to, mail = mailbox(arg), nil, true
			say("250 2.1.0 sender ok")
		case "RCPT":
			if !mail {
				say("503 5.5.1 MAIL first")
				continue
			}
			to = append(to, mailbox(arg))
			say("250 2.1.5 recipient ok")
		case "DATA":
			if len(to) == 0 {
				say("503 5.5.1 RCPT first")
				continue
			}
			say("354 end with a dot on a line of its own")
			size, err := io.Copy(io.Discard, in.DotReader())
			if err != nil {
				return
			}
			s.took(from, to, size)
			say("250 2.0.0 %s has it", s.name)
			from, to, mail = "", nil, false
		case "RSET":
			from, to, mail = "", nil, false
			say("250 2.0.0 ok")
		case "NOOP":
			say("250 2.0.0 ok")
		case "QUIT":
			say("221 2.0.0 %s says goodbye", s.name)
			return
		default:
			say("500 5.5.2 unknown command")
		}
	}
}

// mailbox takes the address out of "FROM:<a@b> SIZE=1".
func mailbox(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	box, _, _ := strings.Cut(rest, ">")
	return box
}
