// Package errorlog is the process's log: a zap logger that writes lines in
// nginx's manner to stderr or to a file, and never waits for either.
//
//	log, err := errorlog.Open("stderr", errorlog.Notice)
//	log.Logger().Info("reload done", zap.Int("sessions", n))
//	// 2026/11/22 00:05:24 [notice] reload done {"sessions": 12}
//	err = log.Reopen()           // SIGUSR1
//	err = log.Close(time.Second) // the last lines, or a second
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
// A record goes into a bounded queue in memory, and one goroutine writes the
// queue to the file. If the file takes nothing (a full pipe, a hung disk) the
// queue fills and further records are dropped; if a write fails, what was to be
// written is dropped. Dropped records are counted, and a line says how many as
// soon as the file takes one again. Nothing waits for a file to take a line
// except Sync and Close, as long as they are told to, and Reopen and
// Reconfigure, which give the old file a second.
//
// main ignores SIGPIPE: for a write to a closed stderr the Go runtime would
// end the process otherwise.
package errorlog
