package conf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The kinds of values that directives have. Each takes a node and returns what
// it stands for, or why it stands for nothing.

// want is the error of a value that is not even near what is wanted.
func want(what string, n *node) error { return fmt.Errorf("want %s, got %s", what, n.describe()) }

// bad is the error of a value that has the right type but does not parse.
func bad(n *node, err error) error { return fmt.Errorf("%s: %w", n.describe(), err) }

func flag(n *node) (bool, error) {
	b, ok := n.value.(bool)
	if !ok {
		return false, want("true or false", n)
	}
	return b, nil
}

// str is any text in UTF-8 that can stand in a log line.
func str(n *node) (string, error) {
	s, ok := n.value.(string)
	if !ok || s == "" {
		return "", want("a string", n)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", want("a string without control characters", n)
	}
	if !utf8.ValidString(s) {
		return "", want("a string in UTF-8", n)
	}
	return s, nil
}

// anyText is text that may have variables in it, and control characters.
func anyText(n *node) (string, error) {
	s, ok := n.value.(string)
	if !ok {
		return "", want("a text", n)
	}
	if !utf8.ValidString(s) {
		return "", want("a text in UTF-8", n)
	}
	return s, nil
}

// variable is the name of one, which has no dollar where it is defined in TOML
// but in a Config.
func variable(n *node) (string, error) {
	s, err := str(n)
	if err != nil || s[0] == '$' {
		return "", want("the name of a variable, without a dollar", n)
	}
	return "$" + s, nil
}

// variableUse is the name with its dollar.
func variableUse(n *node) (string, error) {
	s, err := str(n)
	if err != nil || s[0] != '$' {
		return "", want(`a variable such as "$realip_remote_addr"`, n)
	}
	return s, nil
}

// clientKey is the word for what most hashes go by.
const clientKey = "client_address"

// hashKey is what a hash goes by.
func hashKey(n *node) (string, error) {
	switch n.value {
	case clientKey, "${remote_addr}":
		return "$remote_addr", nil
	}
	return anyText(n)
}

func number[N int | uint16 | uint64](least, most N) func(*node) (N, error) {
	return func(n *node) (N, error) {
		i, ok := n.value.(int64)
		if !ok || i < int64(least) || i > int64(most) {
			return 0, want(fmt.Sprintf("a number from %d to %d", least, most), n)
		}
		return N(i), nil
	}
}

// size is a number of bytes, or of kilobytes or megabytes as nginx writes them.
func size(least, most int) func(*node) (int, error) {
	return func(n *node) (int, error) {
		s, ok := n.digits()
		if !ok {
			return 0, want(`a size such as "16k"`, n)
		}
		i, err := parseSize(s)
		if err != nil {
			return 0, bad(n, err)
		}
		if i < int64(least) || i > int64(most) {
			return 0, want(fmt.Sprintf("a size from %s to %s", sizeText(least), sizeText(most)), n)
		}
		return int(i), nil
	}
}

// rate is a size for each second, where 0 is no limit, or a text that becomes one.
func rate(n *node) (Rate, error) {
	if text, _ := n.value.(string); strings.Contains(text, "$") {
		_, err := anyText(n)
		return Rate{Text: &Text{n.at, text}}, err
	}
	bytes, err := size(0, maxRate)(n)
	return Rate{Bytes: bytes}, err
}

// socketBuffer is a size of a socket's buffer. The kernel has bounds of its own.
func socketBuffer(n *node) (int, error) { return size(0, maxSocketBuffer)(n) }

// sizeText writes a size as nginx would, if it is a round one.
func sizeText(n int) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dm", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%dk", n>>10)
	}
	return strconv.Itoa(n)
}

// msec is a time down to milliseconds, of at least so many; sec is one in whole
// seconds. Which a directive takes is as in nginx.
func msec(least int) func(*node) (time.Duration, error) {
	return func(n *node) (time.Duration, error) {
		d, err := span(n, millis)
		if err == nil && d < time.Duration(least)*time.Millisecond {
			err = want(fmt.Sprintf("at least %dms", least), n)
		}
		return d, err
	}
}

func sec(n *node) (time.Duration, error) { return span(n, seconds) }

func span(n *node, g grain) (time.Duration, error) {
	s, ok := n.digits()
	if !ok {
		return 0, want(`a time such as "10s"`, n)
	}
	d, err := parseTime(s, g)
	if err != nil {
		return 0, bad(n, err)
	}
	return d, nil
}

// processes is a number of event loops, where 0 is one for each processor.
func processes(n *node) (int, error) {
	if n.value == "auto" {
		return 0, nil
	}
	i, err := number(1, 1024)(n)
	if err != nil {
		return 0, want(`"auto" or a number from 1 to 1024`, n)
	}
	return i, nil
}

var levels = []string{"debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"}

func logLevel(n *node) (string, error) {
	return oneOf(levels...)(n)
}

// oneOf is one of a few words.
func oneOf(words ...string) func(*node) (string, error) {
	return func(n *node) (string, error) {
		s, ok := n.value.(string)
		if !ok || !slices.Contains(words, s) {
			return "", want("one of "+strings.Join(words, ", "), n)
		}
		return s, nil
	}
}

// maxReply leaves room for code, host name and CRLF in the 512 bytes that a
// reply line may have (RFC 5321 section 4.5.3.1.5).
const maxReply = 400

// replyText is text for a line of SMTP: printable ASCII.
func replyText(n *node) (string, error) {
	s, err := str(n)
	if err != nil {
		return "", err
	}
	if len(s) > maxReply || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", want(fmt.Sprintf("up to %d printable ASCII characters", maxReply), n)
	}
	return s, nil
}

// replyWord is a host name as it stands in a reply.
func replyWord(n *node) (string, error) {
	s, err := replyText(n)
	if err == nil && (len(s) > 255 || strings.Contains(s, " ")) {
		return "", want("a host name", n)
	}
	return s, err
}

// maxMailbox leaves room for the angle brackets in the 256 bytes of a path
// (RFC 5321 section 4.5.3.1.3).
const maxMailbox = 254

// recipient is a mailbox as it stands between angle brackets, sender one or
// none, for the null reverse-path.
func recipient(n *node) (string, error) {
	s, err := replyText(n)
	if err != nil || len(s) > maxMailbox || strings.ContainsAny(s, " <>") {
		return "", want(`an address such as "postmaster@example.org"`, n)
	}
	return s, nil
}

func sender(n *node) (string, error) {
	if n.value == "" {
		return "", nil
	}
	return recipient(n)
}

// address is that of a server.
func address(n *node) (Address, error) {
	s, err := str(n)
	if err != nil {
		return Address{}, want(`"host:port", "[ipv6]:port" or "unix:/path"`, n)
	}
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, bad(n, err)
	}
	return a, nil
}

func ports(n *node) (portRange, error) {
	s, ok := n.digits()
	if !ok {
		return portRange{}, want(`a port, "host:port", "[ipv6]:port" or "unix:/path"`, n)
	}
	r, err := parseListen(s)
	if err != nil {
		return portRange{}, bad(n, err)
	}
	return r, nil
}

// bind is a source address, or nil for "off".
func bind(n *node) (*Bind, error) {
	if n.value == "off" {
		return nil, nil
	}
	s, err := str(n)
	if err != nil {
		return nil, want(`an IP address, "address:port", a text with variables, "client", "client:port" or "off"`, n)
	}
	b, err := parseBind(s)
	if err != nil {
		return nil, bad(n, err)
	}
	return &b, nil
}

// onKeepalive finds a vanished peer in four minutes, and speaks often enough
// for NAT boxes and cloud load balancers, which forget connections after some.
var onKeepalive = Keepalive{On: true, Idle: 120 * time.Second, Interval: 30 * time.Second, Count: 4}

func keepalive(n *node) (Keepalive, error) {
	switch v := n.value.(type) {
	case bool:
		if v {
			return onKeepalive, nil
		}
		return Keepalive{}, nil
	case string:
		if v == "kernel" {
			return Keepalive{On: true}, nil
		}
		k, err := parseKeepalive(v)
		if err != nil {
			return Keepalive{}, bad(n, err)
		}
		return k, nil
	}
	return Keepalive{}, want(`true, false, "kernel" or "idle:interval:count"`, n)
}

// parseKeepalive reads nginx's "idle:interval:count". A part left out is the
// kernel's own; the bounds are what setsockopt takes (tcp(7)).
func parseKeepalive(text string) (Keepalive, error) {
	idle, rest, _ := strings.Cut(text, ":")
	interval, count, _ := strings.Cut(rest, ":")
	if idle+interval+count == "" {
		return Keepalive{}, errors.New(`want "idle:interval:count", as in "120s:30s:4"; a part may be left out`)
	}
	k := Keepalive{On: true}
	var err error
	if k.Idle, err = keepaliveTime(idle); err != nil {
		return Keepalive{}, err
	}
	if k.Interval, err = keepaliveTime(interval); err != nil {
		return Keepalive{}, err
	}
	if count != "" {
		n, ok := atoi(count, 127)
		if !ok || n == 0 {
			return Keepalive{}, errors.New("count goes from 1 to 127")
		}
		k.Count = int(n)
	}
	return k, nil
}

func keepaliveTime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := parseTime(text, seconds)
	if err == nil && (d == 0 || d > 32767*time.Second) {
		err = errors.New("idle and interval go from 1s to 32767s")
	}
	return d, err
}
