package sink

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// disk takes room bytes and then gives ENOSPC.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// TestTornLine breaks a write off inside a line: what follows, when there is
// room again, begins on a line of its own, and the torn one is counted. Fails
// without torn.
func TestTornLine(t *testing.T) {
	t.Parallel()
	d := &disk{room: 9}
	w := Writer{To: d}
	require.Equal(t, uint64(2), failed(w.Write([]byte("whole\ntorn\nlost\n"))))
	require.Equal(t, uint64(1), failed(w.Write([]byte("lost\n"))), "no room for the line feed")
	d.room = 100
	require.Zero(t, failed(w.Write([]byte("next\n"))))
	require.Zero(t, failed(w.Write([]byte("last\n"))))
	require.Equal(t, "whole\ntor\nnext\nlast\n", d.String())

	d = &disk{room: 6}
	w = Writer{To: d}
	require.Equal(t, uint64(1), failed(w.Write([]byte("whole\nlost\n"))))
	d.room = 100
	require.Zero(t, failed(w.Write([]byte("next\n"))))
	require.Equal(t, "whole\nnext\n", d.String())
}

func failed(lines uint64, _ error) uint64 { return lines }
