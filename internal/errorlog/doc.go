// Package errorlog is the logs of a process: zap loggers that write lines in
// nginx's manner to files, stderr and syslog servers, and never wait for any.
//
//	logs, err := errorlog.Open(errorlog.Target{Path: "stderr", Level: errorlog.Notice})
//	logs.Logger().Info("reload done", zap.Int("sessions", n))
//	// 2026/11/22 00:05:24 [notice] reload done {"sessions": 12}
//	log, err := logs.Log(targets...) // of a server that has its own
//	log.Release()                    // when its configuration ends
//	err = logs.Reopen()              // SIGUSR1
//	err = logs.Close(time.Second)    // the last lines, or a second
//
// # Targets
//
// A log has any number of targets, each with a level, and a record is encoded
// once for all of them. The process's own log may get others (Reconfigure);
// those of servers are made for a configuration. Whatever names a path shares
// one open file and one queue.
//
// # Levels
//
// nginx has eight levels, zap has seven of which three end the program. The
// methods a package calls all day carry nginx's ordinary levels:
//
//	nginx    zap                           for
//	debug    Log(errorlog.Debug, ...)      what only a developer reads
//	info     Debug                         each session
//	notice   Info                          life cycle, state changes
//	warn     Warn                          degraded
//	error    Error                         a human must act
//	crit     Log(errorlog.Crit, ...)       a resource is exhausted
//	alert    Log(errorlog.Alert, ...)      a limit or a bug hurts all sessions
//	emerg    Log(errorlog.Emerg, ...)      the process cannot run so
//
// So a level of notice shows what zap calls Info and above. DPanic, Panic and
// Fatal keep zap's meaning, and nothing here uses them.
//
// # Lines
//
// A record is one line whatever its fields and message contain: every byte
// that is not printable text is escaped, and the fields stay valid JSON. A
// stack goes into a field (zap.Stack); the logger takes none by itself.
//
// Whoever reads the log of an nginx.conf expects nginx's lines: NameProcess adds
// what they have in front of the message, and a record without fields is its
// message and nothing else.
//
// # Syslog
//
// "syslog:server=unix:/dev/log,facility=mail,tag=smtplb,nohostname" sends each
// line as a datagram, in the format of RFC 3164 and with nginx's parameters:
//
//	server      address, address:port (514 if there is none) or unix:path; needed
//	facility    local7 if there is none
//	tag         the program's name if there is none
//	severity    accepted and not used: it is the record's level
//	nohostname  leaves the host's name out, as a local daemon expects it
//
// A daemon that is not there or takes nothing loses lines as a file does; the
// next line tries again.
//
// # Never waiting
//
// A record goes into a bounded queue in memory for each of its files, and one
// goroutine writes the queue to the file. If the file takes nothing (a full pipe,
// a hung disk) its queue fills and further records are dropped there, and there
// alone; if a write fails, what was to be written is dropped. Dropped records are counted, and a line says how many as
// soon as the file takes one again. Nothing waits for a file to take a line
// except Sync and Close, as long as they are told to, and Reopen, Reconfigure and
// Release, which give the old files a second.
//
// main ignores SIGPIPE: for a write to a closed stderr the Go runtime would
// end the process otherwise.
package errorlog
