package peers

import (
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settleTimeout bounds how long Postfix may take to store what it has accepted.
const settleTimeout = time.Minute

// PostfixOptions says how a Postfix differs from the usual one. The zero value
// is the usual one.
type PostfixOptions struct {
	// Domain is the one Postfix takes mail for, whatever the local part; empty
	// means example.test. Recipients elsewhere are refused.
	Domain string
	// STARTTLS makes Postfix offer it, with a certificate nobody has signed.
	STARTTLS bool
	// Postscreen puts postscreen(8) before smtpd(8). A client it does not know
	// gets a greeting of two lines, two seconds apart, and can send no mail if it
	// speaks between them. What postscreen has learnt outlives a Restart.
	Postscreen bool
	// Main holds further settings of main.cf. They override those made here.
	Main map[string]string
}

// PostfixServer is a running Postfix that stores the mail it accepts.
type PostfixServer struct {
	Daemon

	dir string
}

// Postfix's unprivileged users. It refuses to run if any two of them share a
// user or a group; these are on every Debian.
const (
	mailOwner   = "mail"
	setgidGroup = "daemon"
	mailboxUser = "nobody"
)

// queueDirs are the directories under queue_directory with their modes: those
// that postfix-files lists as needed to receive and deliver.
var queueDirs = map[string]os.FileMode{
	"active": 0o700, "bounce": 0o700, "corrupt": 0o700, "defer": 0o700, "deferred": 0o700,
	"flush": 0o700, "hold": 0o700, "incoming": 0o700, "maildrop": 0o730, "private": 0o700,
	"public": 0o710, "saved": 0o700, "trace": 0o700,
}

// Postfix starts a Postfix on an address of its own and waits until it listens.
// It is killed when the test ends.
func Postfix(t testing.TB, o PostfixOptions) *PostfixServer {
	t.Helper()
	master := Path(t, "postfix-master")
	dir := tempDir(t, "postfix")
	etc := filepath.Join(dir, "etc")
	s := &PostfixServer{
		Daemon: Daemon{
			Addr:    ReserveAddr(t),
			t:       t,
			name:    "postfix",
			command: []string{master, "-c", etc},
			logFile: filepath.Join(dir, "log"),
			env: []string{
				"MAIL_CONFIG=" + etc,
				// Without these two, what master says before postlogd runs goes to
				// syslog, and why it does not start is never known.
				"POSTLOG_SERVICE=" + filepath.Join(dir, "queue/public/postlog"),
				"POSTLOG_HOSTNAME=localhost",
			},
		},
		dir: dir,
	}
	s.makeDirs()
	s.writeMasterCf(o)
	s.writeMainCf(o)
	t.Cleanup(s.Kill)
	s.start()
	return s
}

func (s *PostfixServer) makeDirs() {
	s.t.Helper()
	owner, group, mailbox := lookupID(s.t, mailOwner), lookupGroup(s.t, setgidGroup), lookupID(s.t, mailboxUser)
	mkdir := func(name string, mode os.FileMode, uid, gid int) {
		s.t.Helper()
		path := filepath.Join(s.dir, name)
		if err := os.Mkdir(path, mode); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			s.t.Fatalf("%v (test peers need root)", err)
		}
		if err := os.Chmod(path, mode); err != nil { // despite the umask
			s.t.Fatal(err)
		}
	}
	mkdir("etc", 0o755, 0, 0)
	mkdir("data", 0o700, owner, 0)
	mkdir("mail", 0o700, mailbox, 0)
	mkdir("queue", 0o755, 0, 0)
	mkdir("queue/pid", 0o755, 0, 0)
	for name, mode := range queueDirs {
		gid := 0
		if name == "public" || name == "maildrop" {
			gid = group
		}
		mkdir(filepath.Join("queue", name), mode, owner, gid)
	}
}

// writeMasterCf configures the services that receive and store. There is no
// smtp client among them: no mail can leave.
func (s *PostfixServer) writeMasterCf(o PostfixOptions) {
	s.t.Helper()
	listener := s.Addr + " inet n - n - - smtpd"
	if o.Postscreen {
		listener = s.Addr + ` inet n - n - 1 postscreen
smtpd     pass        -  -  n  -    -    smtpd
dnsblog   unix        -  -  n  -    0    dnsblog
tlsproxy  unix        -  -  n  -    0    tlsproxy`
	}
	s.write("etc/master.cf", fmt.Sprintf(`
%s
cleanup   unix        n  -  n  -    0    cleanup
qmgr      unix        n  -  n  300  1    qmgr
tlsmgr    unix        -  -  n  1000 1    tlsmgr
rewrite   unix        -  -  n  -    -    trivial-rewrite
bounce    unix        -  -  n  -    0    bounce
defer     unix        -  -  n  -    0    bounce
trace     unix        -  -  n  -    0    bounce
error     unix        -  -  n  -    -    error
retry     unix        -  -  n  -    -    error
virtual   unix        -  n  n  -    -    virtual
anvil     unix        -  -  n  -    1    anvil
proxymap  unix        -  -  n  -    -    proxymap
postlog   unix-dgram  n  -  n  -    1    postlogd
`, listener))
}

func (s *PostfixServer) writeMainCf(o PostfixOptions) {
	s.t.Helper()
	if o.Domain == "" {
		o.Domain = "example.test"
	}
	root := fetched(s.t, "root")
	mailbox := lookupID(s.t, mailboxUser)
	main := map[string]string{
		"compatibility_level": "3.6",

		// Whatever is compiled in as a path points elsewhere. The daemons get
		// their libraries and this file by the environment alone.
		"daemon_directory":      filepath.Join(root, "usr/lib/postfix/sbin"),
		"command_directory":     filepath.Join(root, "usr/sbin"),
		"shlib_directory":       "no",
		"meta_directory":        filepath.Join(s.dir, "etc"),
		"queue_directory":       filepath.Join(s.dir, "queue"),
		"data_directory":        filepath.Join(s.dir, "data"),
		"maillog_file":          s.logFile,
		"maillog_file_prefixes": s.dir,
		"import_environment":    "MAIL_CONFIG LD_LIBRARY_PATH",
		"export_environment":    "MAIL_CONFIG LD_LIBRARY_PATH",
		"mail_owner":            mailOwner,
		"setgid_group":          setgidGroup,

		// One domain, one mailbox for all its recipients; nothing else.
		"myhostname":               "mx." + o.Domain,
		"mydestination":            "",
		"mynetworks":               "",
		"inet_interfaces":          "127.0.0.1",
		"inet_protocols":           "ipv4",
		"alias_maps":               "",
		"alias_database":           "",
		"virtual_mailbox_domains":  o.Domain,
		"virtual_mailbox_base":     filepath.Join(s.dir, "mail"),
		"virtual_mailbox_maps":     "static:" + maildir,
		"virtual_mailbox_limit":    "0",
		"virtual_uid_maps":         fmt.Sprintf("static:%d", mailbox),
		"virtual_gid_maps":         fmt.Sprintf("static:%d", mailbox),
		"smtpd_relay_restrictions": "reject_unauth_destination",
		"default_transport":        "error:no mail leaves a test",
		"relay_transport":          "error:no mail leaves a test",
		"notify_classes":           "",

		// No name server is asked, and a test may connect as fast as it can.
		"smtpd_peername_lookup":               "no",
		"smtpd_client_connection_count_limit": "0",
		"in_flow_delay":                       "0",
		"message_size_limit":                  "0",
	}
	if o.STARTTLS {
		s.write("etc/tls.pem", selfSigned(s.t, "mx."+o.Domain))
		main["smtpd_tls_chain_files"] = filepath.Join(s.dir, "etc/tls.pem")
		main["smtpd_tls_security_level"] = "may"
	}
	if o.Postscreen {
		main["postscreen_greet_wait"] = "2s"
		main["postscreen_greet_action"] = "enforce"
		main["postscreen_access_list"] = "" // not even loopback is trusted
		main["postscreen_dnsbl_sites"] = "" // no name server is asked
	}
	maps.Copy(main, o.Main)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&text, "%s = %s\n", name, main[name])
	}
	s.write("etc/main.cf", text.String())
}

// write writes a file under s.dir and dates it back: Postfix waits two seconds
// for a main.cf that has just changed, since it may not be whole.
func (s *PostfixServer) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		s.t.Fatal(err)
	}
}

// Restart starts Postfix again on the same address, with the mail it has; a
// running one is killed.
//
// A namespace numbers its processes as the one before did, and virtual(8) names
// a file in tmp/ by its number and the second: a delivery that was cut off would
// stand in the way of one that begins in the same second.
func (s *PostfixServer) Restart() {
	s.t.Helper()
	s.Kill()
	if err := os.RemoveAll(filepath.Join(s.dir, "mail", maildir, "tmp")); err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

// Settle waits until all mail that Postfix has accepted is stored. The server
// must run, and nobody must send to it meanwhile.
func (s *PostfixServer) Settle() {
	s.t.Helper()
	deadline := time.After(settleTimeout)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for s.queued() {
		select {
		case <-s.exited:
			s.t.Fatalf("settle postfix: it has ended\n%s", s.logEnd())
		case <-deadline:
			s.t.Fatalf("settle postfix: mail still in the queue after %v\n%s", settleTimeout, s.logEnd())
		case <-poll.C:
		}
	}
}

// queued reports whether a message is in the queue. A message moves from
// incoming to active and, if it cannot be stored, through deferred back to
// incoming; looking in this order none is overlooked on its way.
func (s *PostfixServer) queued() bool {
	s.t.Helper()
	for _, name := range []string{"incoming", "active", "deferred", "incoming", "active"} {
		found := false
		err := filepath.WalkDir(filepath.Join(s.dir, "queue", name), func(_ string, e os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // moved on
			}
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if os.IsNotExist(err) {
				return nil
			}
			// A file without this bit is still being received, or was when
			// Postfix was killed.
			const accepted = 0o100
			if err == nil && info.Mode()&accepted != 0 {
				found = true
				err = filepath.SkipAll
			}
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
		if found {
			return true
		}
	}
	return false
}

func lookupID(t testing.TB, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return atoi(t, u.Uid)
}

func lookupGroup(t testing.TB, name string) int {
	t.Helper()
	g, err := user.LookupGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	return atoi(t, g.Gid)
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
