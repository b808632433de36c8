package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/conf"
)

// What is wrong with an entry of a block, or odd about it, is said where that
// stands, as by nginx: a block may have thousands.
//
// Fails if the place is the block's.
func TestPlacesOfEntries(t *testing.T) {
	t.Parallel()
	c, err := conf.Parse("t.toml", []byte(`
server = { listen = "127.0.0.1:1", return = "x" }
[[map]]
source = "$remote_addr"
variable = "a"
default = "0"
entries = [
  ["a", "1"],
  ["A", "2"],
]
[[geo]]
variable = "b"
default = "0"
[geo.entries]
"10.0.0.1/8" = "1"
"10.0.0.0/33" = "2"
[[geo]]
variable = "c"
ranges = true
entries = { "10.0.0.0-10.0.0.9" = "1",
  "10.0.0.9" = "2" }
[[split_clients]]
source = "$remote_addr"
variable = "d"
[split_clients.parts]
"50%" = "1"
"51%" = "2"
`))
	require.NoError(t, err)
	require.EqualError(t, Check(t.Context(), c), `t.toml:9:3: conflicting parameter "a"
t.toml:16:1: invalid network "10.0.0.0/33"
t.toml:21:3: invalid range "10.0.0.9"
t.toml:27:1: percent total is greater than 100%`)
	require.Contains(t, c.Warnings, "t.toml:15:1: low address bits of 10.0.0.1/8 are meaningless")
}
