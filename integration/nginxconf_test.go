package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/conf"
	"smtplb/integration/peers"
	"smtplb/internal/smtptest"
)

// nginx.conf files, and what nginx and smtplb say of them:
//
//	good     both accept them
//	bad      both refuse them, in the same words and at the same line
//	ours     smtplb accepts them, nginx does not know what it reads
//	refused  nginx accepts them, smtplb refuses them, as their first line says
//
// Fails if any verdict, message, file or line differs.
func TestNginxConf(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"good", "bad", "ours", "refused"} {
		paths, err := filepath.Glob("testdata/nginx/" + kind + "/*.conf")
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, path := range paths {
			path, err := filepath.Abs(path)
			require.NoError(t, err)
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(path), ".conf"), func(t *testing.T) {
				t.Parallel()
				theirs, ours := nginxSays(t, path), smtplbSays(path)
				switch kind {
				case "good":
					require.Empty(t, theirs)
					require.Empty(t, ours)
				case "bad":
					require.NotEmpty(t, theirs)
					require.Equal(t, theirs, ours)
				case "ours":
					require.NotEmpty(t, theirs)
					require.Empty(t, ours)
				case "refused":
					text, err := os.ReadFile(path)
					require.NoError(t, err)
					want, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
					require.Empty(t, theirs)
					require.Contains(t, ours, strings.ReplaceAll(want, "$F", path))
				}
			})
		}
	}
}

// smtplbSays returns the first problem of a configuration, or "".
func smtplbSays(path string) string {
	_, err := conf.Load(path)
	if err == nil {
		return ""
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// nginxSays returns why nginx refuses a configuration, without time and process,
// or "". It has a network, logs and host names of its own, since its -t binds
// addresses, opens logs, and looks up names.
func nginxSays(t *testing.T, path string) string {
	const inside = `set -e
ip link set lo up
ip addr add 10.0.0.254/8 dev lo
mount -t tmpfs tmpfs /var/log && mkdir /var/log/nginx
mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/nginx
mount -t tmpfs tmpfs /run
mount --bind "$1" /etc/hosts
shift
exec "$@"`
	hosts, err := filepath.Abs("testdata/nginx/hosts")
	require.NoError(t, err)
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", inside, "nginx", hosts,
		peers.Path(t, "nginx"), "-t", "-e", "stderr", "-p", t.TempDir(), "-c", path,
		"-g", "load_module "+peers.NginxStreamModule(t)+";")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	m := regexp.MustCompile(`\[(?:emerg|crit)\] \d+#\d+: (.*)`).FindStringSubmatch(string(out))
	require.NotNil(t, m, "%s", out)
	return m[1]
}

// The three configurations of a vendor's guide run as they stand, and what
// --explain says of them runs, too.
//
// Fails if --explain prints what is no configuration, or the gate is off where
// the check says that servers speak SMTP.
func TestExplain(t *testing.T) {
	t.Parallel()
	program, explained := smtptest.Build(t), filepath.Join(shortDir(t), "explained.toml")
	for _, name := range []string{"vendor-failover", "vendor-weights", "vendor-maintenance"} {
		path := filepath.Join("testdata/nginx/ours", name+".conf")
		out := outcomeOf(t, exec.Command(program, "--explain", "-c", path))
		require.Zero(t, out.code, out.stderr)
		require.Contains(t, out.stdout, "\nsmtp = true\n")
		require.NoError(t, os.WriteFile(explained, []byte(out.stdout), 0o600))
		again := outcomeOf(t, exec.Command(program, "--explain", "-c", explained))
		body := func(s string) string { s, _, _ = strings.Cut(s, "\n#"); return s }
		require.Equal(t, body(out.stdout), body(again.stdout))
	}
	broken := outcomeOf(t, exec.Command(program, "--explain", "-c", "testdata/nginx/bad/toml.conf"))
	require.Equal(t, 1, broken.code)
	require.Empty(t, broken.stdout)
	require.Contains(t, broken.stderr, "smtplb: [emerg] ")
}
