// Package process is what concerns the process as a whole rather than its
// sessions: the pid file and signals by it, how many descriptors and pipes it
// may use, the background, whom it runs as and with which rights, and its
// environment.
//
// A start in the order that main has:
//
//	parent := Detached()          // nil, unless a Detach has started us
//	code, err := Detach()         // daemon on: we are the one who waits
//	err = SetEnviron(entries)     // before the first line is logged: TZ
//	RaiseNofile, listeners, log, WritePidFile
//	err = identity.Become(BindService)
//	err = parent.Ready(false)
//
// Its functions are called by main and by a reload, one at a time.
package process
