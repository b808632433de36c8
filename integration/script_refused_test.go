package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/integration/peers"
	"smtplb/internal/script"
)

// What nginx refuses is refused in its words.
func TestScriptRefusedAsNginx(t *testing.T) {
	t.Parallel()
	entry := func(pairs ...string) (list []script.Entry) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, script.Entry{Key: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	aMap := func(source, variable string, pairs ...string) scripts {
		return scripts{maps: []script.Map{{Variable: variable, Source: source, Entries: entry(pairs...)}}}
	}
	hosts := func(pairs ...string) scripts {
		return scripts{maps: []script.Map{{Variable: "$x", Source: "$remote_addr", Hostnames: true, Entries: entry(pairs...)}}}
	}
	geo := func(ranges bool, pairs ...string) scripts {
		return scripts{geos: []script.Geo{{Variable: "$x", Ranges: ranges, Entries: entry(pairs...)}}}
	}
	split := func(pairs ...string) scripts {
		return scripts{splits: []script.Split{{Variable: "$x", Source: "$remote_addr", Parts: entry(pairs...)}}}
	}
	for _, test := range []struct {
		message string // empty if both accept it
		scripts scripts
	}{
		{`unknown "nowhere" variable`, aMap("$nowhere", "$x", "a", "b")},
		{`unknown "nowhere" variable`, aMap("$remote_addr", "$x", "default", "a${Nowhere}b")},
		{`unknown "0" variable`, aMap("$0", "$x")},
		{`invalid variable name`, aMap("a$", "$x")},
		{`invalid variable name`, aMap("$-", "$x")},
		{`invalid variable name "x"`, aMap("a", "x")},
		{`the closing bracket in "a" variable is missing`, aMap("${a-}", "$x")},
		{`the duplicate "Remote_Addr" variable`, aMap("a", "$Remote_Addr")},
		{`the duplicate "hostname" variable`, aMap("a", "$hostname")},
		{`the duplicate "ssl_preread_protocol" variable`, aMap("a", "$ssl_preread_protocol")},
		{`unknown "ssl_xyz" variable`, aMap("$ssl_xyz", "$x")},
		{``, aMap("$ssl_preread_server_name", "$ssl_protocol")},
		{`duplicate default map parameter`, aMap("a", "$x", "default", "1", "default", "2")},
		{`conflicting parameter "a"`, aMap("a", "$x", "a", "1", "A", "2")},
		{``, aMap("a", "$x", `\default`, "1", "default", "2", "*.x", "3", "..", "4", "~a", "5", "~a", "6")},
		{`conflicting parameter ".a.b"`, hosts("a.b", "1", ".a.b", "2")},
		{`conflicting parameter "a.b"`, hosts(".a.b", "1", "a.b", "2")},
		{`conflicting parameter "*.a.b"`, hosts(".a.b", "1", "*.a.b", "2")},
		{`conflicting parameter "a.b.*"`, hosts("a.b.*", "1", "A.b.*", "2")},
		{`invalid hostname or wildcard "a*"`, hosts("a*", "1")},
		{`invalid hostname or wildcard "a..b"`, hosts("a..b", "1")},
		{`invalid hostname or wildcard "*"`, hosts("*", "1")},
		{``, hosts("a.b", "1", "*.a.b", "2", "a.b.*", "3")},
		{`invalid variable name "x"`, scripts{geos: []script.Geo{{Variable: "$x", Source: "x"}}}},
		{`unknown "nowhere" variable`, scripts{geos: []script.Geo{{Variable: "$x", Source: "$nowhere"}}, maps: []script.Map{{Variable: "$y", Source: "$x"}}}},
		{`invalid network "10.0.0.0/33"`, geo(false, "10.0.0.0/33", "1")},
		{`invalid network "proxy"`, geo(false, "proxy", "10.0.0.0/8")},
		{`invalid network "::1%lo"`, geo(false, "::1%lo", "1")},
		{``, geo(false, "10.0.0.1/8", "1", "10.0.0.0/8", "2", "delete", "11.0.0.0/8", "::/0", "3", "255.255.255.255", "4", "010.1..1", "5")},
		{`invalid range "10.0.0.2-10.0.0.1"`, geo(true, "10.0.0.2-10.0.0.1", "1")},
		{`invalid range "10.0.0.0/8"`, geo(true, "10.0.0.0/8", "1")},
		{`invalid range "224.0.0.0-255.255.255.255"`, geo(true, "224.0.0.0-255.255.255.255", "1")},
		{`range "10.0.0.5-10.0.0.20" overlaps "10.0.0.1-10.0.0.9"`, geo(true, "10.0.0.1-10.0.0.9", "1", "10.0.0.5-10.0.0.20", "2")},
		{`range "10.0.0.1-10.1.0.9" overlaps "10.0.0.0-10.0.255.254"`, geo(true, "10.0.0.0-10.0.255.254", "1", "10.0.0.1-10.1.0.9", "2")},
		{``, geo(true, "10.0.0.0-10.1.255.255", "1", "10.0.0.0-10.2.255.255", "2", "10.0.0.3-10.0.0.3", "3", "delete", "1.1.1.1-1.1.1.2")},
		{`invalid percent value "0%"`, split("0%", "1")},
		{`invalid percent value "1.234%"`, split("1.234%", "1")},
		{`invalid percent value "5"`, split("5", "1")},
		{`percent total is greater than 100%`, split("50%", "1", "50.01%", "2")},
		{`percent total is greater than 100%`, split("*", "1", "1%", "2")},
		{``, split("1.%", "1", ".5%", "2", "*", "3")},
	} {
		_, err := test.scripts.scope()
		theirs := nginxRefuses(t, test.scripts.nginx())
		if test.message == "" {
			require.NoError(t, err, test.scripts)
			require.Empty(t, theirs)
			continue
		}
		require.ErrorContains(t, err, test.message)
		require.Contains(t, theirs, test.message)
	}
}

// nginxRefuses returns what nginx -t says of a stream block it does not accept.
func nginxRefuses(t *testing.T, stream string) string {
	t.Helper()
	dir := t.TempDir()
	program := peers.Path(t, "nginx")
	module := filepath.Join(filepath.Dir(program), "../root/usr/lib/nginx/modules/ngx_stream_module.so")
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("load_module %s;\npid %s/pid;\nevents {}\nstream {\n%s}\n", module, dir, stream)
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	out, err := exec.Command(program, "-t", "-e", "stderr", "-p", dir, "-c", conf).CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}
