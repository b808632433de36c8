// Package server turns a conf.Config into a running balancer and changes it
// while it runs.
//
// Prepare builds everything of a configuration beside what is running: it
// resolves names, opens the listening sockets that are new, and finds what
// cannot be done. Nothing that runs is touched until Next.Commit, and Commit
// does not fail; Next.Discard throws the preparation away.
//
//	next, err := srv.Prepare(ctx, config) // err: one line a problem, nothing changed
//	next.Commit()
//
// What stays the same stays: a listener that is in both configurations is
// never closed, a server that is in both keeps its sessions, failures and
// weights, and a session ends on the settings it began with.
//
// A Server's methods belong to one goroutine, main's.
package server
