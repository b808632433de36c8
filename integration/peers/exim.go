package peers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// EximOptions says how an Exim differs from the usual one. The zero value is the
// usual one.
type EximOptions struct {
	// STARTTLS makes Exim offer it, with a certificate nobody has signed.
	STARTTLS bool
}

// Exim starts an Exim on an address of its own and waits until it listens. It
// takes mail for example.test and forgets it, logs all it can, and is strict with
// clients that do not wait for replies: it offers no early pipelining. It is
// killed when the test ends.
func Exim(t testing.TB, o EximOptions) *Daemon {
	t.Helper()
	dir := tempDir(t, "exim")
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tls := "tls_advertise_hosts ="
	if o.STARTTLS {
		pem := write("tls.pem", selfSigned(t, "mx.example.test"))
		tls = "tls_certificate = " + pem + "\ntls_privatekey = " + pem
	}
	addr := ReserveAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := write("conf", fmt.Sprintf(`
primary_hostname = mx.example.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/%%slog
log_selector = +all
write_rejectlog = no
keep_environment =
local_interfaces = %[2]s
daemon_smtp_ports = %[3]s
smtp_accept_max = 0
smtp_enforce_sync = yes
pipelining_connect_advertise_hosts =
acl_smtp_rcpt = recipient
%[4]s

begin acl
recipient:
  discard domains = example.test
  deny message = no mail leaves a test
`, dir, host, port, tls))

	owner := lookupID(t, mailOwner)
	spool, log := filepath.Join(dir, "spool"), write("mainlog", "")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, spool, log} {
		if err := os.Chown(path, owner, 0); err != nil {
			t.Fatalf("%v (test peers need root)", err)
		}
	}
	d := &Daemon{Addr: addr, t: t, name: "exim", command: becomeExim(t, write, conf), logFile: log}
	t.Cleanup(d.Kill)
	d.start()
	return d
}

// becomeExim returns the command that runs Exim on a configuration. Debian's
// Exim does not start without the user Debian-exim, whom installing the package
// would make: here it is known only in a mount namespace.
func becomeExim(t testing.TB, write func(name, text string) string, conf string) []string {
	t.Helper()
	id := lookupID(t, mailOwner)
	passwd := write("passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nDebian-exim:x:%d:%[1]d::/:/bin/false\n", id))
	group := write("group", fmt.Sprintf("root:x:0:\nDebian-exim:x:%d:\n", id))
	const script = `mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"`
	return []string{
		"unshare", "--mount", "/bin/sh", "-c", script, "exim", passwd, group,
		Path(t, "exim"), "-C", conf, "-bdf",
	}
}
