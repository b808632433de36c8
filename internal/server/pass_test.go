package server

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"smtplb/conf"
)

// Who is always passed to where nobody listens, or in a circle, is warned of once,
// and of a pass with variables nothing is known.
//
// Fails if checkPasses compares the text, knows no wildcard or takes that of the
// other family, does not end, or warns of each address of a server.
func TestPassesAreChecked(t *testing.T) {
	t.Parallel()
	c, err := conf.Parse("t.toml", []byte(`
server = [
  { listen = "127.0.0.1:1", return = "x" },
  { listen = 2, return = "x" },
  { listen = "[::]:3", return = "x" },
  { listen = "unix:/run/a", return = "x" },

  { listen = "127.0.0.1:11", pass = "127.0.0.1:1" },
  { listen = "127.0.0.1:12", pass = "10.0.0.1:2" },
  { listen = "127.0.0.1:13", pass = "[2001:DB8::1]:3" },
  { listen = "127.0.0.1:14", pass = "unix:/run//a" },
  { listen = "127.0.0.1:15", pass = "127.0.0.1:16" },
  { listen = "127.0.0.1:16", pass = "127.0.0.1:17" },
  { listen = "127.0.0.1:17", pass = "$remote_addr:1" },

  { listen = "127.0.0.1:21-23", pass = "127.0.0.2:1" },
  { listen = "127.0.0.1:24", pass = "[::1]:2" },
  { listen = "127.0.0.1:25", pass = "127.0.0.1:3" },
  { listen = "127.0.0.1:26", pass = "unix:/run/b" },
  { listen = "127.0.0.1:27", pass = "127.0.0.1:25" },

  { listen = "127.0.0.1:31", pass = "127.0.0.1:31" },
  { listen = "127.0.0.1:32", pass = "127.0.0.1:33" },
  { listen = "127.0.0.1:33", pass = "127.0.0.1:32" },
  { listen = "127.0.0.1:34", pass = "127.0.0.1:32" },
]`))
	require.NoError(t, err)
	c.Warnings = nil
	require.NoError(t, Check(context.Background(), c))
	const nobody, circle = "; sessions that are passed there fail", " are passed on from here more than 10 times, or in a circle, and fail"
	require.Equal(t, []string{
		"t.toml:16:40: pass: no server listens on 127.0.0.2:1" + nobody,
		"t.toml:17:37: pass: no server listens on [::1]:2" + nobody,
		"t.toml:18:37: pass: no server listens on 127.0.0.1:3" + nobody,
		"t.toml:19:37: pass: no server listens on unix:/run/b" + nobody,
		"t.toml:22:37: pass: sessions" + circle,
		"t.toml:23:37: pass: sessions" + circle,
		"t.toml:24:37: pass: sessions" + circle,
		"t.toml:25:37: pass: sessions" + circle,
	}, c.Warnings)
}
