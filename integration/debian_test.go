package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// The commands of Debian's nginx package, as its files have them, with the
// program at nginx's path, in namespaces of their own: /etc, /run, /var/log and
// /usr/sbin are file systems of the test, with what the machine has there
// linked. Each step ends the script if it fails.
const debianScript = `
set -eu
step() { echo "== $1"; }
overlay() { # a directory becomes one of ours, with links to what was in it
	mkdir -p "$scratch$1" && mount --bind "$1" "$scratch$1" && mount -t tmpfs -o mode=755 none "$1"
	for f in "$scratch$1"/* "$scratch$1"/.[!.]*; do [ ! -e "$f" ] || ln -s "$f" "$1/"; done
}
ip link set lo up
mount -t tmpfs none "$scratch"
overlay /etc; overlay /usr/sbin
mount -t tmpfs -o mode=755 none /run; mount -t tmpfs -o mode=755 none /var/log
rm -f /etc/nginx /etc/init.d /etc/logrotate.d /usr/sbin/nginx
mkdir /etc/nginx /etc/init.d /var/log/nginx
cp "$program" /usr/sbin/nginx
cp "$config" /etc/nginx/nginx.conf
cp "$debian/etc/init.d/nginx" /etc/init.d/

# what systemd runs: "ExecReload=-/usr/sbin/…" in the unit
unit() { sed -n "s/^$1=-\{0,1\}//p" "$debian/lib/systemd/system/nginx.service"; }
run() { command=$(unit "$1"); [ -n "$command" ]; eval "$command"; }
mainpid() { cat "$(unit PIDFile)"; }
greets() { exec 3<>/dev/tcp/127.0.0.1/$1; read -r line <&3; exec 3>&-; [ "${line#220 a}" != "$line" ]; }
logged() { for i in $(seq 200); do grep -q "$1" /var/log/nginx/error.log && return; sleep 0.05; done; cat /var/log/nginx/error.log; return 1; }
gone() { for i in $(seq 200); do [ ! -d /proc/$1 ] && return; sleep 0.05; done; return 1; }

step 'the sample server'
"$sample" -listen 127.0.0.1:10025 -name a & sample=$!
for i in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/10025) 2>/dev/null && break; sleep 0.05; done

step ExecStartPre; run ExecStartPre
[ ! -e /run/nginx.pid ]
step ExecStart; run ExecStart
first=$(mainpid); kill -0 $first; greets 25
step 'nginx -t && nginx -s reload'
sed -i 's/127.0.0.1:25"/127.0.0.1:26"/' /etc/nginx/nginx.conf
nginx -t && nginx -s reload
logged 'reload done'; greets 26
step ExecReload; run ExecReload
[ "$(mainpid)" = $first ]
step 'logrotate'
mv /var/log/nginx/error.log /var/log/nginx/error.log.1
install -m 640 -o www-data -g adm /dev/null /var/log/nginx/error.log
eval "$(sed -n '/postrotate/,/endscript/s/invoke-rc.d nginx \(.*\) >.*/sh \/etc\/init.d\/nginx \1/p' "$debian/etc/logrotate.d/nginx")"
logged 'log reopened'; greets 26
step 'init.d reload, status'
sh /etc/init.d/nginx reload
logged 'reload done'
sh /etc/init.d/nginx status
step ExecStop; run ExecStop
gone $first

step 'init.d start, restart, stop'
sed -i '1i daemon = true' /etc/nginx/nginx.conf # the default in nginx's own language
sh /etc/init.d/nginx start
second=$(mainpid); greets 26
sh /etc/init.d/nginx restart
gone $second
third=$(mainpid); greets 26
sh /etc/init.d/nginx stop
gone $third
kill $sample
echo '== done'
`

// An operator puts the program at nginx's path and changes nothing else: the
// service manager's unit, logrotate, the init script and nginx -t && nginx -s
// reload do what they did, as root with a user for the work.
//
// Fails if the process that start-stop-daemon seeks has another name, if the
// pid file is not where nginx's is, or if the log cannot be opened by the user
// that logrotate gave it to.
func TestDebianStartFiles(t *testing.T) {
	t.Parallel()
	if smtptest.RaceEnabled() {
		t.Skip("with cgo, which the race detector needs, Go cannot change all threads")
	}
	debian, err := filepath.Abs(filepath.Join(filepath.Dir(peers.Path(t, "nginx")), "..", "root"))
	require.NoError(t, err)
	dir := shortDir(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	sample := filepath.Join(dir, "sampleserver")
	out, err := exec.Command("go", "build", "-o", sample, "../examples/sampleserver").CombinedOutput()
	require.NoError(t, err, "%s", out)
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, []byte("user = 'www-data'\nerror_log = '/var/log/nginx/error.log'\n"+
		proxy("127.0.0.1:25", "127.0.0.1:10025")), 0o644))
	scratch := filepath.Join(dir, "scratch")
	require.NoError(t, os.Mkdir(scratch, 0o755))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", debianScript)
	cmd.Env = append(os.Environ(), "program="+smtptest.Build(t), "sample="+sample, "config="+config, "debian="+debian, "scratch="+scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.True(t, strings.HasSuffix(string(out), "== done\n"), "%s", out)
}
