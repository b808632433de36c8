package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// Fails if a stop that waits without end seems to wait not at all.
func TestWithin(t *testing.T) {
	t.Parallel()
	require.Equal(t, zap.String("limit", "none"), within(0))
	require.Equal(t, zap.Duration("limit", time.Minute), within(time.Minute))
}
