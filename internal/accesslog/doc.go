// Package accesslog writes the lines of access_log: to files, standard streams
// and syslog servers, gzipped if wanted, and never makes a session wait.
//
//	logs := accesslog.NewSet(logger)
//	log, err := logs.Open(accesslog.Target{Path: "/var/log/smtplb/access.log", Buffer: 64 << 10, Flush: time.Second})
//	log.Write(line)                // by any session's loop
//	err = logs.Reopen()            // SIGUSR1, and a reload
//	log.Release()                  // when a configuration ends
//	err = logs.Close(time.Second)  // the last lines, or a second
//
// # Logs and configurations
//
// A Set belongs to the process. Two uses of the same Target, in one
// configuration or in that before and that after a reload, are one Log with one
// open file; it is closed when its last user releases it.
//
// # Lines
//
// What a session writes is one line, in the order of the writes. A line feed
// inside becomes \x0A, and what is beyond MaxLine is cut off: nginx has neither,
// since its own escaping leaves no line feed unless told so, and one line never
// gets so long in practice.
//
// # Buffers
//
// Lines are written when as many wait as Buffer says, when the first has waited
// for Flush, when the log is opened anew or closed. Unlike nginx's, a write may
// be somewhat longer than the buffer, and never breaks a line. Without Buffer
// lines go out at once, several in one write if they come faster than the file
// takes them. With Gzip each write is a member of its own (RFC 1952 section
// 2.2), so that zcat reads the file at any time.
//
// # Paths with variables
//
// Where a path has variables, each line brings its own (WriteTo). At most 64 of
// the files are open at a time, and the first line that comes ten seconds after
// one was opened, whatever its path, closes it.
//
// # Losses
//
// If a device takes nothing, up to four megabytes of lines wait, and the next
// ones are lost; if a write fails, its lines are lost. nginx waits in the first
// case, and no session of that process goes on. Once a second at most the
// logger is told of each log how many, and the last reason.
package accesslog
