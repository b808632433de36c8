package conf

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Addresses that are refused are in problemCases, each with its message.
func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Address{
		"10.0.0.1:25":         {Host: "10.0.0.1", Port: 25},
		"[2001:DB8:0:0::1]:1": {Host: "2001:db8::1", Port: 1},
		"MX-1.Example.org:25": {Host: "mx-1.example.org", Port: 25},
		"mx.example.org.:25":  {Host: "mx.example.org.", Port: 25},
		"smtp_in:65535":       {Host: "smtp_in", Port: 65535},
		"1and1.example2:25":   {Host: "1and1.example2", Port: 25},
		"unix:/run//a/../b.s": {Path: "/run/b.s"},
	} {
		want.Text = text
		got, err := parseAddress(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	longest := "unix:/" + strings.Repeat("x", maxSocketPath-1)
	_, err := parseAddress(longest)
	require.NoError(t, err)
	_, err = parseAddress(longest + "x")
	require.EqualError(t, err, "path is 108 bytes long; a unix socket's has at most 107")
	_, err = parseAddress("unix:/a\nb")
	require.EqualError(t, err, "want a path without control characters")
	_, err = parseAddress(strings.Repeat("a.", 127) + "b:25")
	require.EqualError(t, err, "host name is longer than 253 bytes")
}

func TestParseListen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Address{
		"25":            {{Text: "25", Port: 25}},
		"*:25":          {{Text: "*:25", Port: 25}},
		"25-25":         {{Text: "25-25", Port: 25}},
		"65534-65535":   {{Text: "*:65534", Port: 65534}, {Text: "*:65535", Port: 65535}},
		"[::1]:1-2":     {{Text: "[::1]:1", Host: "::1", Port: 1}, {Text: "[::1]:2", Host: "::1", Port: 2}},
		"mx:1":          {{Text: "mx:1", Host: "mx", Port: 1}},
		"unix:/a-b:1-2": {{Text: "unix:/a-b:1-2", Path: "/a-b:1-2"}},
	} {
		got, err := parseListen(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got.spread())
	}
}

func TestParseBind(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bind{
		"10.0.0.1":       {Host: "10.0.0.1"},
		"10.0.0.1:25":    {Host: "10.0.0.1", Port: 25},
		"2001:DB8::0:1":  {Host: "2001:db8::1"},
		"[2001:db8::1]":  {Host: "2001:db8::1"},
		"[2001:db8::]:1": {Host: "2001:db8::", Port: 1},
		"client":         {Transparent: true},
		"client:port":    {ClientPort: true, Transparent: true},
	} {
		got, err := parseBind(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "h", "h:25", "client:25", "10.0.0.1:", "10.0.0.1:0", "[::1]x", "[::1", "::1]:25", "[10.0.0.1]:25", "unix:/a", "fe80::1%lo", "::ffff:10.0.0.1"} {
		_, err := parseBind(text)
		require.Error(t, err, text)
	}
}

// nginx 1.22 accepts and refuses the same, but for values that setsockopt
// refuses later.
func TestParseKeepalive(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Keepalive{
		"120s:30s:4":      {Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4},
		"30m::10":         {Idle: 30 * time.Minute, Count: 10},
		"30m":             {Idle: 30 * time.Minute},
		":5":              {Interval: 5 * time.Second},
		"::127":           {Count: 127},
		"32767:32767:127": {Idle: 32767 * time.Second, Interval: 32767 * time.Second, Count: 127},
	} {
		want.On = true
		got, err := parseKeepalive(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", ":", "::", "1m:2:3:4", "0:0:0", "0", "32768", ":0", "::0", "::128", "500ms", "on", "-1"} {
		_, err := parseKeepalive(text)
		require.Error(t, err, text)
	}
}
