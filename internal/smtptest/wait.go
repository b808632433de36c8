package smtptest

import (
	"testing"
	"time"
)

// Eventually polls until cond holds, and fails the test if it still does not
// when the time is over. cond runs on the caller's goroutine, at least twice.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	if !poll(within, cond) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

// poll asks cond at growing distances, at once first and last at the deadline.
func poll(within time.Duration, cond func() bool) bool {
	const longest = 20 * time.Millisecond
	deadline := time.Now().Add(within)
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		if cond() {
			return true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		time.Sleep(min(pause, left))
	}
}
