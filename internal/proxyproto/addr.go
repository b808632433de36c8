package proxyproto

import (
	"bytes"
	"net/netip"
	"strings"
)

// The parsers of this file accept what netip.ParseAddr and strconv.ParseUint
// do, but for zones, signs and leading zeros. Those take a string and describe
// what is wrong with it, so bad input would cost allocations.

// parsePort parses a decimal port without leading zeros.
func parsePort(b []byte) (port uint16, ok bool) {
	n, rest := decimal(b, 5)
	if n < 0 || n > 65535 || len(rest) > 0 {
		return 0, false
	}
	return uint16(n), true
}

// parseAddr parses an address of the one family or the other.
func parseAddr(b []byte, v6 bool) (a netip.Addr, ok bool) {
	if v6 {
		return parseIPv6(b)
	}
	ip, ok := parseIPv4(b)
	return netip.AddrFrom4(ip), ok
}

// parseIPv4 parses four decimal numbers without leading zeros, and dots.
func parseIPv4(b []byte) (ip [4]byte, ok bool) {
	for i := range ip {
		if i > 0 {
			if len(b) == 0 || b[0] != '.' {
				return ip, false
			}
			b = b[1:]
		}
		n, rest := decimal(b, 3)
		if n < 0 || n > 255 {
			return ip, false
		}
		ip[i], b = byte(n), rest
	}
	return ip, len(b) == 0
}

// decimal cuts a number of at most so many digits off b; n is negative if
// there is none, or if it has a leading zero.
func decimal(b []byte, digits int) (n int, rest []byte) {
	i := 0
	for i < len(b) && i < digits && '0' <= b[i] && b[i] <= '9' {
		n = 10*n + int(b[i]-'0')
		i++
	}
	if i == 0 || i > 1 && b[0] == '0' {
		return -1, b
	}
	return n, b[i:]
}

// parseIPv6 parses the forms of RFC 4291, section 2.2: groups of up to four
// hexadecimal digits, "::" once for one or more groups of zeros, and an IPv4
// address in place of the last two groups.
func parseIPv6(b []byte) (a netip.Addr, ok bool) {
	var ip [16]byte
	n, gap := 0, -1 // ip[:n] is filled; "::" stands before ip[gap]
	if bytes.HasPrefix(b, []byte("::")) {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if n == len(ip) {
			return a, false
		}
		group, rest := hex(b)
		if group < 0 {
			return a, false
		}
		if len(rest) > 0 && rest[0] == '.' {
			v4, ok := parseIPv4(b)
			if !ok || n > 12 {
				return a, false
			}
			n += copy(ip[n:], v4[:])
			break
		}
		ip[n], ip[n+1] = byte(group>>8), byte(group)
		n += 2
		switch b = rest; {
		case len(b) == 0:
		case bytes.HasPrefix(b, []byte("::")) && gap < 0:
			gap, b = n, b[2:]
		case len(b) > 1 && b[0] == ':':
			b = b[1:] // what follows is a group, or else an error
		default:
			return a, false
		}
	}
	switch {
	case gap < 0:
		return netip.AddrFrom16(ip), n == len(ip)
	case n == len(ip):
		return a, false
	}
	tail := len(ip) - (n - gap)
	copy(ip[tail:], ip[gap:n])
	clear(ip[gap:tail])
	return netip.AddrFrom16(ip), true
}

// hex cuts a group of one to four hexadecimal digits off b; n is negative if
// there is none.
func hex(b []byte) (n int, rest []byte) {
	i := 0
	for i < len(b) && i < 4 {
		digit := strings.IndexByte("0123456789abcdefABCDEF", b[i])
		if digit < 0 {
			break
		}
		if digit > 15 {
			digit -= 6
		}
		n = n<<4 | digit
		i++
	}
	if i == 0 {
		return -1, b
	}
	return n, b[i:]
}
