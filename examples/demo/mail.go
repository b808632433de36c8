package main

import (
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"
)

// sessionTimeout bounds a whole session.
const sessionTimeout = 10 * time.Second

// dial connects to a mail server and takes its greeting.
func dial(addr string) (*textproto.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, sessionTimeout)
	if err != nil {
		return nil, err
	}
	s := textproto.NewConn(conn)
	if err = conn.SetDeadline(time.Now().Add(sessionTimeout)); err == nil {
		_, _, err = s.ReadResponse(220)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("greeting of %s: %w", addr, err)
	}
	return s, nil
}

// deliver sends a message and returns the name of the server that took it, as
// sampleserver says it in its reply, "2.0.0 mx1 has it".
func deliver(addr, from, to string) (server string, err error) {
	s, err := dial(addr)
	if err != nil {
		return "", err
	}
	defer s.Close()
	message := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: demo\r\n\r\nHello!\r\n.", from, to)
	var reply string
	for _, step := range []struct {
		line string
		code int
	}{
		{"EHLO demo.example.org", 250},
		{"MAIL FROM:<" + from + ">", 250},
		{"RCPT TO:<" + to + ">", 250},
		{"DATA", 354},
		{message, 250},
		{"QUIT", 221},
	} {
		if err := s.PrintfLine("%s", step.line); err != nil {
			return "", err
		}
		_, text, err := s.ReadResponse(step.code)
		if err != nil {
			return "", err
		}
		if step.line == message {
			reply = text
		}
	}
	words := strings.Fields(reply)
	if len(words) < 2 {
		return "", fmt.Errorf("no server's name in the reply %q", reply)
	}
	return words[1], nil
}
