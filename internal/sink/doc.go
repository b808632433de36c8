// Package sink is where log lines go: a file, a standard stream or a syslog
// server, behind a queue that never makes anyone wait.
//
//	d, err := sink.Open(path, sink.Format{})
//	q := sink.NewQueue(d, sink.Options{Room: 1 << 20, Lost: count})
//	q.Add(line)
//	q.Close(time.Second) // to write the rest
//	q.Wait(time.Second)
//
// A line is appended to a bounded buffer in memory, and one goroutine writes
// what has come together with one write. If the device takes nothing (a full
// pipe, a hung disk) the buffer fills and further lines are lost; if a write
// fails, what was to be written is lost. Lost lines are counted by who owns the
// queue. Only Sync and Wait wait, as long as they are told to.
//
// Two logs have their lines here: errorlog, which makes them of zap's records,
// and accesslog, which gets them from sessions.
package sink
