package tunpump

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// policyTable is the routing table of DeliverFrom; any but the kernel's own.
const policyTable = 100

// DeliverFrom has the far side take in whatever an address there sends, for
// whomever it is meant, as a host does whose sockets have addresses of others:
//
//	ip rule add from ADDR lookup 100
//	ip route add local default dev lo table 100
func (l *Link) DeliverFrom(addr netip.Addr) error {
	return l.Do(func() error {
		from := addr.As4()
		if err := request(unix.RTM_NEWRULE, unix.FR_ACT_TO_TBL, 32, unix.FRA_SRC, from[:]); err != nil {
			return fmt.Errorf("add a rule for what %v sends: %w", addr, err)
		}
		loopback := binary.NativeEndian.AppendUint32(nil, 1) // the first device of every namespace
		if err := request(unix.RTM_NEWROUTE, unix.RTN_LOCAL, 0, unix.RTA_OIF, loopback); err != nil {
			return fmt.Errorf("add a local route to everywhere: %w", err)
		}
		return nil
	})
}

// request asks the kernel for a rule or a route of policyTable in the calling
// thread's namespace; rtnetlink(7). Both have the same header: struct rtmsg.
func request(kind uint16, action byte, sourceBits byte, attribute uint16, value []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)

	native := binary.NativeEndian
	m := make([]byte, unix.NLMSG_HDRLEN, 64)
	native.PutUint16(m[4:], kind)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	protocol, scope := byte(unix.RTPROT_BOOT), byte(unix.RT_SCOPE_HOST)
	if kind == unix.RTM_NEWRULE {
		protocol, scope = 0, 0
	}
	m = append(m, unix.AF_INET, 0, sourceBits, 0, policyTable, protocol, scope, action, 0, 0, 0, 0)
	m = native.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	m = native.AppendUint16(m, attribute)
	m = append(m, value...)
	native.PutUint32(m, uint32(len(m)))
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.NLMSG_ERROR {
		return fmt.Errorf("no acknowledgement in %d bytes: %w", n, err)
	}
	if code := int32(native.Uint32(messages[0].Data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
