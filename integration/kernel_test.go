package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// States of a TCP socket; linux/include/net/tcp_states.h.
const (
	tcpSynSent = 2
	tcpListen  = 10
)

// socket is an IPv4 TCP socket of this machine.
type socket struct {
	local, remote netip.AddrPort
	inode         uint32
}

// sockets asks the kernel for the sockets in a state, sock_diag(7). The lists
// in /proc hold all others, too, and may be long.
func sockets(t testing.TB, state uint8) []socket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	require.NoError(t, err)
	defer unix.Close(fd)

	const size = unix.NLMSG_HDRLEN + 56 // struct inet_diag_req_v2
	native := binary.NativeEndian
	request := make([]byte, size)
	native.PutUint32(request, size)
	native.PutUint16(request[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request[16], request[17] = unix.AF_INET, unix.IPPROTO_TCP
	native.PutUint32(request[20:], 1<<state)
	require.NoError(t, unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))

	var all []socket
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		require.NoError(t, err)
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		require.NoError(t, err)
		for _, m := range messages {
			require.NotEqual(t, uint16(unix.NLMSG_ERROR), m.Header.Type)
			if m.Header.Type == unix.NLMSG_DONE {
				return all
			}
			d := m.Data // struct inet_diag_msg; addresses and ports in network order
			addr := func(ip, port int) netip.AddrPort {
				return netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[ip:ip+4])), binary.BigEndian.Uint16(d[port:]))
			}
			all = append(all, socket{addr(8, 4), addr(24, 6), native.Uint32(d[68:])})
		}
	}
}

// connecting is the number of connects to a TCP address that are under way on
// this machine.
func connecting(t testing.TB, addr string) int {
	t.Helper()
	n := 0
	for _, s := range sockets(t, tcpSynSent) {
		if s.remote == netip.MustParseAddrPort(addr) {
			n++
		}
	}
	return n
}

// inode is that of the socket that listens on a TCP address of this machine.
func inode(t testing.TB, addr string) uint32 {
	t.Helper()
	for _, s := range sockets(t, tcpListen) {
		if s.local == netip.MustParseAddrPort(addr) {
			return s.inode
		}
	}
	t.Fatalf("nobody listens on %s", addr)
	return 0
}

// borrow returns a copy of a descriptor of another process, that of the socket
// with this inode.
func borrow(t testing.TB, pid int, inode uint32) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if target, _ := os.Readlink(filepath.Join(dir, e.Name())); target != fmt.Sprintf("socket:[%d]", inode) {
			continue
		}
		theirs, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		process, err := unix.PidfdOpen(pid, 0)
		require.NoError(t, err)
		defer unix.Close(process)
		ours, err := unix.PidfdGetfd(process, theirs, 0)
		require.NoError(t, err)
		return ours
	}
	t.Fatalf("process %d has no socket with inode %d", pid, inode)
	return -1
}

// pendingSignals is the set of signals that are sent to a process and not taken
// yet.
func pendingSignals(pid int) (set uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "ShdPnd:")
	_, err = fmt.Sscanf(rest, "%x", &set)
	return set, err
}
