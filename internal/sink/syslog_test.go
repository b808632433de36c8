package sink

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server whose name nobody knows is found out by a test of the configuration,
// as by nginx, not by the start behind it.
//
// Fails if Check reads the parameters only.
func TestCheckLooksNamesUp(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, Check("syslog:server=a..b"), `host not found in syslog server "a..b:514"`)
	require.NoError(t, Check("syslog:server=127.0.0.1"))
	require.NoError(t, Check("syslog:server=unix:/none"))
}

// TestSyslogParameters holds the texts of nginx 1.22, less "in FILE:LINE".
func TestSyslogParameters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                     `unknown syslog parameter ""`,
		"facility=local0":                      `no syslog server specified`,
		"server=":                              `no host in syslog server ""`,
		"server=unix:":                         `no path in the unix domain socket in syslog server "unix:"`,
		"server=unix:/" + longString(107):      `too long path in the unix domain socket in syslog server "unix:/` + longString(107) + `"`,
		"server=127.0.0.1:99999":               `invalid port in syslog server "127.0.0.1:99999"`,
		"server=127.0.0.1,foo=1":               `unknown syslog parameter "foo=1"`,
		"server=127.0.0.1,facility=x":          `unknown syslog facility "x"`,
		"server=127.0.0.1,severity=x":          `unknown syslog severity "x"`,
		"server=127.0.0.1,tag=a-b":             `syslog "tag" only allows alphanumeric characters and underscore`,
		"server=h,tag=" + longString(33):       `syslog tag length exceeds 32`,
		"server=127.0.0.1,server=127.0.0.1":    `duplicate syslog "server"`,
		"server=h,facility=auth,facility=ftp":  `duplicate syslog "facility"`,
		"server=h,severity=info,severity=crit": `duplicate syslog "severity"`,
		"server=h,tag=a,tag=b":                 `duplicate syslog "tag"`,
	} {
		_, err := parseSyslog(text)
		require.EqualError(t, err, want, text)
		require.EqualError(t, Check("syslog:"+text), want)
	}
	for text, want := range map[string]syslogAddress{
		"server=h":                        {"udp", "h:514", 23, 6, programTag(), false},
		"server=[::1]:99":                 {"udp", "[::1]:99", 23, 6, programTag(), false},
		"server=unix:/" + longString(106): {"unixgram", "/" + longString(106), 23, 6, programTag(), false},
		"server=[::1]":                    {"udp", "[::1]:514", 23, 6, programTag(), false},
		"server=unix:/dev/log,facility=kern,nohostname,tag=a_1,nohostname": {"unixgram", "/dev/log", 0, 6, "a_1", true},
		"severity=crit,server=10.0.0.1:99,tag=,facility=cron":              {"udp", "10.0.0.1:99", 15, 2, programTag(), false},
	} {
		got, err := parseSyslog(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	require.Equal(t, "sink", programTag(), "what a tag may have of sink.test")
}

func longString(n int) string { return strings.Repeat("x", n) }
