package sink

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	syslogPrefix = "syslog:"
	syslogPort   = "514"
	// longestSocketPath is what sockaddr_un holds beside its final zero.
	longestSocketPath = 107
)

// Format is what syslog wants to know of a line and cannot read in the path.
type Format struct {
	// Severity is a line's severity, 0 to 7; nil takes the path's, info if it
	// names none.
	Severity func(line []byte) int
	// Longest bounds the bytes of a line in its datagram, the rest is cut off;
	// 0 is no bound.
	Longest int
}

// facilities are in the order of their numbers (RFC 3164 section 4.1.1), with
// nginx's names.
var facilities = strings.Fields(`kern user mail daemon auth intern lpr news uucp clock authpriv
	ftp ntp audit alert cron local0 local1 local2 local3 local4 local5 local6 local7`)

// Severities likewise: a name's index is its number.
var Severities = strings.Fields("emerg alert crit error warn notice info debug")

// syslogAddress is what the parameters of a path "syslog:…" say.
type syslogAddress struct {
	network, address string
	facility         int
	severity         int
	tag              string
	noHost           bool
}

func syslogParameters(path string) (string, bool) { return strings.CutPrefix(path, syslogPrefix) }

// parseSyslog reads "server=…,facility=…". Errors are in nginx's words.
func parseSyslog(text string) (syslogAddress, error) {
	a := syslogAddress{facility: -1, severity: -1}
	for parameter := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(parameter, "=")
		var err error
		duplicate := false
		switch {
		case strings.HasPrefix(parameter, "server="):
			duplicate = a.network != ""
			a.network, a.address, err = parseServer(value)
		case strings.HasPrefix(parameter, "facility="):
			duplicate = a.facility >= 0
			if a.facility = slices.Index(facilities, value); a.facility < 0 {
				err = fmt.Errorf("unknown syslog facility %q", value)
			}
		case strings.HasPrefix(parameter, "severity="):
			duplicate = a.severity >= 0
			if a.severity = slices.Index(Severities, value); a.severity < 0 {
				err = fmt.Errorf("unknown syslog severity %q", value)
			}
		case strings.HasPrefix(parameter, "tag="):
			duplicate = a.tag != ""
			a.tag, err = value, checkTag(value)
		case parameter == "nohostname":
			a.noHost = true
		default:
			err = fmt.Errorf("unknown syslog parameter %q", parameter)
		}
		if duplicate {
			err = fmt.Errorf("duplicate syslog %q", name)
		}
		if err != nil {
			return syslogAddress{}, err
		}
	}
	if a.network == "" {
		return syslogAddress{}, errors.New("no syslog server specified")
	}
	if a.facility < 0 {
		a.facility = slices.Index(facilities, "local7")
	}
	if a.severity < 0 {
		a.severity = slices.Index(Severities, "info")
	}
	if a.tag == "" {
		a.tag = programTag()
	}
	return a, nil
}

func parseServer(text string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		switch {
		case path == "":
			return "", "", fmt.Errorf("no path in the unix domain socket in syslog server %q", text)
		case len(path) > longestSocketPath: // it could be opened, but no line could be sent
			return "", "", fmt.Errorf("too long path in the unix domain socket in syslog server %q", text)
		}
		return "unixgram", path, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil { // there is no port
		host, port = strings.Trim(text, "[]"), syslogPort
	}
	if host == "" {
		return "", "", fmt.Errorf("no host in syslog server %q", text)
	}
	if n, err := net.LookupPort("udp", port); err != nil || n == 0 {
		return "", "", fmt.Errorf("invalid port in syslog server %q", text)
	}
	return "udp", net.JoinHostPort(host, port), nil
}

const longestTag = 32 // RFC 3164 section 4.1.3

func checkTag(tag string) error {
	if len(tag) > longestTag {
		return fmt.Errorf("syslog tag length exceeds %d", longestTag)
	}
	if strings.ContainsFunc(tag, notInTag) {
		return errors.New(`syslog "tag" only allows alphanumeric characters and underscore`)
	}
	return nil
}

func notInTag(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_'
}

// programTag is the name by which the program was called, as far as a tag may
// have it.
func programTag() string {
	name := filepath.Base(os.Args[0])
	if end := strings.IndexFunc(name, notInTag); end >= 0 {
		name = name[:end]
	}
	return name[:min(len(name), longestTag)]
}

// syslog is the device that sends each line as a datagram. Only Close and
// SetWriteDeadline may be called beside another of its methods.
type syslog struct {
	to     syslogAddress
	format Format
	host   string
	line   []byte // reused

	mu       sync.Mutex // protects below; never held over a system call that may wait
	conn     net.Conn   // nil: to be dialled
	deadline time.Time  // of all writing, once the sink is to end; until then a slow daemon is waited for
}

// openSyslog looks the server's name up, but does not need the server: it may
// start later than we do, and it is not worth less than our lines.
func openSyslog(parameters string, format Format) (Device, error) {
	to, err := parseSyslog(parameters)
	if err != nil {
		return nil, err
	}
	if to.network == "udp" {
		a, err := net.ResolveUDPAddr("udp", to.address)
		if err != nil {
			return nil, fmt.Errorf("host not found in syslog server %q: %w", to.address, err)
		}
		to.address = a.String()
	}
	s := &syslog{to: to, format: format}
	if !to.noHost {
		host, _ := os.Hostname()
		s.host = strings.ToLower(host) + " "
	}
	return s, nil
}

func (s *syslog) Name() string { return syslogPrefix + "server=" + s.to.address }

// Write sends the lines of p. It returns an error at the first that could not
// be sent, with n as the bytes of those that were: the writer counts the rest
// as lost, and comes back with the next ones.
func (s *syslog) Write(p []byte) (n int, err error) {
	for line := range bytes.Lines(p) {
		if err := s.send(line); err != nil {
			return n, err
		}
		n += len(line)
	}
	return n, nil
}

func (s *syslog) send(line []byte) error {
	s.line = s.appendHeader(s.line[:0], line)
	text := bytes.TrimSuffix(line, []byte{'\n'})
	if s.format.Longest > 0 {
		text = text[:min(len(text), s.format.Longest)]
	}
	s.line = append(s.line, text...)
	for try := 0; ; try++ {
		conn, fresh, err := s.dial()
		if err != nil {
			return err
		}
		_, err = conn.Write(s.line)
		if err == nil {
			return nil
		}
		s.hangUp()
		// A daemon that was started anew has made another socket of that name. And
		// a UDP socket tells the answer to an earlier line (ICMP) at the next.
		if fresh || try > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// dial returns the connection, and whether it is a new one.
func (s *syslog) dial() (conn net.Conn, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		// Neither a datagram socket nor a literal address makes this wait.
		if s.conn, err = net.Dial(s.to.network, s.to.address); err != nil {
			s.conn = nil
			return nil, false, err
		}
		return s.conn, true, s.conn.SetWriteDeadline(s.deadline)
	}
	return s.conn, false, nil
}

func (s *syslog) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// SetWriteDeadline bounds all writing from now on, one under way included.
func (s *syslog) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.conn == nil {
		return nil
	}
	return s.conn.SetWriteDeadline(t)
}

func (s *syslog) Close() error {
	s.hangUp()
	return nil
}

// appendHeader appends what RFC 3164 has before the text: "<191>Nov 22 04:52:59
// host tag: ".
func (s *syslog) appendHeader(dst, line []byte) []byte {
	severity := s.to.severity
	if s.format.Severity != nil {
		severity = s.format.Severity(line)
	}
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, int64(s.to.facility*8+severity), 10)
	dst = append(dst, '>')
	dst = time.Now().AppendFormat(dst, time.Stamp)
	dst = append(dst, ' ')
	dst = append(dst, s.host...)
	dst = append(dst, s.to.tag...)
	return append(dst, ": "...)
}
