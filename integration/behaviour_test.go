package integration

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
	"smtplb/internal/smtptest/ledger"
)

// A side is nginx or smtplb, running on the same nginx.conf as the other one.
type side struct {
	name string
	host string        // where it listens; its text for $host
	six  int           // its port of [::1]; its text for $six
	dir  string        // for its unix sockets; its text for $dir
	log  func() string // so far
}

// beside runs nginx and smtplb, each with one worker, on the same content of a
// stream block, which listens on port. All that differs is where: $host is
// another address of this machine, $six another port, $dir another directory.
func beside(t *testing.T, port int, stream string) []side {
	t.Helper()
	text := func(s side) string {
		return strings.NewReplacer("$host", s.host, "$six", strconv.Itoa(s.six), "$dir", s.dir).Replace(stream)
	}
	nginx := side{name: "nginx", host: "127.0.0.1", six: smtptest.FreePort(t), dir: openDir(t)}
	nginx.log = peers.NginxStream(t, nginx.at(port), text(nginx)).Log

	smtplb := side{name: "smtplb", host: "127.0.0.2", six: smtptest.FreePort(t), dir: openDir(t)}
	conf := filepath.Join(smtplb.dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, []byte(
		"daemon off;\nworker_processes 1;\nerror_log stderr notice;\nevents {}\nstream {\n"+text(smtplb)+"\n}\n"), 0o600))
	p := smtptest.Launch{Args: []string{"-c", conf}}.Start(t, "# not read: the last -c counts\n")
	p.Ready()
	smtplb.log = p.Log
	return []side{nginx, smtplb}
}

// at is where a side listens with a port.
func (s side) at(port int) string { return net.JoinHostPort(s.host, strconv.Itoa(port)) }

// openDir is a directory with short paths that nginx's worker may enter, too.
func openDir(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// openSocket listens on a unix socket to which nginx's worker may connect, too.
func openSocket(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o777))
	return ln
}

// freeRange is the first of n ports in a row to listen on, claimed as those of
// smtptest.FreePort are.
func freeRange(t *testing.T, n int) int {
	t.Helper()
	free := func(port int) bool {
		claim, err := net.Listen("unix", fmt.Sprintf("@smtptest-port-%d", port))
		if err != nil {
			return false
		}
		t.Cleanup(func() { claim.Close() })
		ln, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			ln.Close()
		}
		return err == nil
	}
	for range 100 {
		first, all := smtptest.FreePort(t), true
		for port := first + 1; all && port < first+n; port++ {
			all = free(port)
		}
		if all {
			return first
		}
	}
	t.Fatalf("find %d free ports in a row", n)
	return 0
}

// visitor is a client of one session.
type visitor struct {
	net.Conn
	in   *bufio.Reader
	name string // of the server that greeted; "-" if the connection was closed without a byte
}

// arrive opens a session and waits for the name of the server.
func arrive(network, addr string) (*visitor, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	v := &visitor{Conn: conn}
	if err = conn.SetDeadline(time.Now().Add(patience)); err == nil {
		err = v.greet()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return v, nil
}

// greet waits for the name.
func (v *visitor) greet() error {
	v.in = bufio.NewReader(v)
	greeting, err := v.in.ReadString('\n')
	switch {
	case err == io.EOF && greeting == "":
		v.name = "-"
	case err != nil:
		return fmt.Errorf("read the greeting: %w", err)
	default:
		v.name = nameIn(strings.TrimPrefix(greeting, "220 "))
	}
	return nil
}

// quit ends the session and waits until the server and the balancer have done
// so, too.
func (v *visitor) quit() error {
	defer v.Close()
	if v.name == "-" {
		return nil
	}
	if _, err := io.WriteString(v, "QUIT\r\n"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, v.in)
	return err
}

const (
	setsVariable = "SMTPLB_BEHAVIOUR_SETS" // how many random sets; "" means defaultSets
	seedVariable = "SMTPLB_BEHAVIOUR_SEED" // "" means 1
	defaultSets  = 300
	setsAtATime  = 100 // in one configuration
)

// Random sets of servers with random parameters, some of which refuse from the
// start and some for a while, get the same of the same sessions from smtplb as
// from nginx, one by one: some sessions end at once, others stay and count for
// max_conns. No fail_timeout ends.
//
// Fails within the sets of the first seed if: the effective weight does not
// recover, or a failure takes another part of it, also with max_fails=0; the last
// of equals wins; a success forgets failures at once; max_fails or max_conns is
// one more; the only server is taken out by failures, or is not when there are
// backups; the third server tried is not remembered; backups take part beside
// primaries, or do not for full ones; down servers take part; or the tries or
// proxy_next_upstream are ignored.
func TestSameServersAsNginx(t *testing.T) {
	t.Parallel()
	seed, sets := variable(t, seedVariable, 1), variable(t, setsVariable, defaultSets)
	t.Logf("%s=%d %s=%d", seedVariable, seed, setsVariable, sets)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	pool := newPool(t)
	sessions, begun := 0, time.Now()
	for first := 0; first < sets; first += setsAtATime {
		n := min(setsAtATime, sets-first)
		t.Run(fmt.Sprintf("%d-%d", first, first+n-1), func(t *testing.T) {
			all := make([]set, n)
			for i := range all {
				all[i] = pool.draw(random)
			}
			for tries := 0; len(all) > 0; tries++ {
				require.Less(t, tries, 5, "nginx takes refused connections for made ones each time")
				var done int
				done, all = pool.compare(t, all)
				sessions += done
			}
		})
	}
	t.Logf("%d sets of servers, %d sessions through each, %v", sets, sessions, time.Since(begun).Round(time.Millisecond))
}

func variable(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// pool is the servers from which all sets are made. Those that are not mx are
// as they are: one is on a unix socket, one closes without a word, which is a
// success to nginx, and at two addresses nobody listens.
type pool struct {
	mx    []*ledger.Server
	addrs []string // of the mx, and then of the others
}

func newPool(t *testing.T) *pool {
	p := &pool{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s := mx(t, name)
		p.mx = append(p.mx, s)
		p.addrs = append(p.addrs, s.Addr())
	}
	dir := openDir(t)
	smtptest.ServeSMTP(t, openSocket(t, filepath.Join(dir, "u")), smtptest.Script{Name: "u"})
	p.addrs = append(p.addrs, "unix:"+filepath.Join(dir, "u"), smtptest.Refused(t), "unix:"+filepath.Join(dir, "nobody"))
	return p
}

// compare runs the sessions of each set through both sides. It returns how many
// there were for each, and the sets that have to be compared again.
func (p *pool) compare(t *testing.T, all []set) (sessions int, again []set) {
	var stream strings.Builder
	for i := range all {
		all[i].port = smtptest.FreePort(t)
		fmt.Fprintf(&stream, "upstream set%[1]d {\n%[2]s}\nserver {\n    listen $host:%[3]d;\n    proxy_pass set%[1]d;\n%[4]s}\n",
			i, all[i].servers, all[i].port, all[i].lines)
	}
	sides := beside(t, all[0].port, stream.String())
	for i, s := range all {
		var names [2]string
		for j, side := range sides {
			var err error
			names[j], err = p.play(side.at(s.port), s.steps)
			require.NoError(t, err, "set %d at %s\n%v", i, side.name, s)
		}
		if names[0] != names[1] && mistaken(sides[0], s.port) {
			t.Logf("set %d: nginx has taken a refused connection for a made one", i)
			again = append(again, s)
			continue
		}
		require.Equal(t, names[0], names[1], "set %d\n%v", i, s)
		sessions += s.sessions()
	}
	return sessions, again
}

// mistaken reports whether nginx's log has a session at a port that went on with
// a connection which was about to be refused. Where the kernel is late to refuse,
// nginx tells the events of a closed connection from those of the next one that
// has its number by a single bit, which is the same again after two.
func mistaken(nginx side, port int) bool {
	const said = `recv\(\) failed \(111: Connection refused\) while proxying .* server: %s,`
	return regexp.MustCompile(fmt.Sprintf(said, regexp.QuoteMeta(nginx.at(port)))).MatchString(nginx.log())
}

// A set is the servers of an upstream and what happens to them.
type set struct {
	servers string // the directives
	lines   string // of the server block
	steps   []step
	port    int
}

// step is one event in the life of a set.
type step struct {
	do doing
	n  int // which mx of the pool, or which of the sessions held, modulo their number
}

type doing byte

const (
	visitOnce doing = 'v' // a session that ends at once
	holdOne   doing = 'h' // a session that stays
	endOne    doing = 'e' // of those that stay
	refuseOne doing = 'r' // an mx refuses from now on
	resumeOne doing = 's' // and no longer
)

func (s step) String() string { return fmt.Sprintf("%c%d", s.do, s.n) }

func (s set) String() string {
	return fmt.Sprintf("upstream {\n%s}\nserver {\n%s}\nsteps %v", s.servers, s.lines, s.steps)
}

func (s set) sessions() (n int) {
	for _, step := range s.steps {
		if step.do == visitOnce || step.do == holdOne {
			n++
		}
	}
	return n
}

func (p *pool) draw(random *rand.Rand) set {
	oneIn := func(n int) bool { return random.IntN(n) == 0 }
	var s set
	var ours []int // mx of this set
	for i := range 1 + random.IntN(6) {
		nth := random.IntN(len(p.addrs))
		if nth < len(p.mx) {
			ours = append(ours, nth)
		}
		params := []string{"fail_timeout=1h"}
		add := func(format string, args ...any) { params = append(params, fmt.Sprintf(format, args...)) }
		if !oneIn(3) {
			add("weight=%d", 1+random.IntN(12))
		}
		if !oneIn(4) {
			add("max_fails=%d", random.IntN(5))
		}
		if oneIn(3) {
			add("max_conns=%d", random.IntN(4))
		}
		if oneIn(7) {
			add("down")
		}
		if i > 0 && oneIn(3) {
			add("backup")
		}
		random.Shuffle(len(params), func(i, j int) { params[i], params[j] = params[j], params[i] })
		s.servers += fmt.Sprintf("    server %s %s;\n", p.addrs[nth], strings.Join(params, " "))
	}
	if oneIn(3) {
		s.lines += fmt.Sprintf("    proxy_next_upstream_tries %d;\n", random.IntN(4))
	}
	if oneIn(8) {
		s.lines += "    proxy_next_upstream off;\n"
	}
	for range 30 + random.IntN(40) {
		k := random.IntN(100)
		switch {
		case k < 60:
			s.steps = append(s.steps, step{visitOnce, 0})
		case k < 78:
			s.steps = append(s.steps, step{holdOne, 0})
		case k < 88:
			s.steps = append(s.steps, step{endOne, random.IntN(12)})
		case len(ours) == 0:
		case k < 94:
			s.steps = append(s.steps, step{refuseOne, ours[random.IntN(len(ours))]})
		default:
			s.steps = append(s.steps, step{resumeOne, ours[random.IntN(len(ours))]})
		}
	}
	return s
}

// play takes the steps against one side and returns the names of the servers,
// session by session. In the end no session is left and every mx is back.
func (p *pool) play(addr string, steps []step) (names string, err error) {
	refusing := make([]bool, len(p.mx))
	var held []*visitor
	defer func() {
		for _, c := range held {
			c.Close()
		}
		for i, is := range refusing {
			if resumed := p.resume(i, is); err == nil {
				err = resumed
			}
		}
	}()
	for i, step := range steps {
		switch step.do {
		case visitOnce, holdOne:
			c, err := arrive("tcp", addr)
			if err != nil {
				return names, fmt.Errorf("step %d after %s: %w", i, names, err)
			}
			names += c.name
			if step.do == holdOne && c.name != "-" {
				held = append(held, c)
			} else if err := c.quit(); err != nil {
				return names, fmt.Errorf("step %d after %s: %w", i, names, err)
			}
		case endOne:
			if len(held) == 0 {
				break
			}
			n := step.n % len(held)
			if err := held[n].quit(); err != nil {
				return names, fmt.Errorf("step %d after %s: %w", i, names, err)
			}
			held = append(held[:n], held[n+1:]...)
		case refuseOne:
			p.mx[step.n].Refuse()
			refusing[step.n] = true
		case resumeOne:
			if err := p.resume(step.n, refusing[step.n]); err != nil {
				return names, err
			}
			refusing[step.n] = false
		}
	}
	return names, nil
}

func (p *pool) resume(i int, refusing bool) error {
	if !refusing {
		return nil
	}
	return p.mx[i].Resume()
}
