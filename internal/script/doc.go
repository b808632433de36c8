// Package script is the part of the configuration that is evaluated for each
// session: variables, and texts that contain them.
//
//	scope := script.NewScope(script.Process{Version: "1.22.1", Hostname: host, PID: pid})
//	err := scope.Map(script.Map{Variable: "$pool", Source: "$remote_addr", Entries: []script.Entry{
//		{Key: "default", Value: "mx"},
//		{Key: "127.0.0.1", Value: "local"},
//	}})
//	err = scope.Build() // names may be used before they are defined; here they are known
//	pass, err := scope.Compile("$pool")
//	line, err := scope.Format(script.EscapeDefault, "$remote_addr [$time_local] $pool $status")
//
//	session.Begin(scope)
//	session.Facts.Client = client
//	name = pass.Append(name[:0], session)
//	buf = line.Append(buf, session)
//
// A Scope belongs to one configuration, is built once and never changes again,
// so any number of goroutines may evaluate by it. A Session belongs to one
// goroutine, which fills its Facts; begun again and again, it is the memory of
// one session after the other, and evaluation does not allocate but where a
// regular expression with groups matches. What is evaluated for a session must
// have been compiled by the scope it was begun with.
//
// # What is nginx's
//
// The language ($name, ${name}, $1 to $9 of the last regular expression that
// matched), the formats of the values, case-insensitive names, which value is
// cached for a session and which is volatile, the order in which a map, a geo
// block and split_clients are searched, and the words of the errors: those of
// ngx_stream_script.c, ngx_stream_variables.c, ngx_stream_map_module.c,
// ngx_stream_geo_module.c, ngx_stream_split_clients_module.c,
// ngx_stream_set_module.c and ngx_stream_log_module.c.
//
// Those about TLS are known, and never set. Beyond nginx there are
// $smtp_banner_time, $smtp_banner_code and $session_end. A configuration that
// defines a variable of one of these names keeps its own.
//
// # What differs
//
// Regular expressions are those of Go's regexp, which takes time linear in the
// key, so that no client can make a pattern expensive. What only PCRE has does
// not compile: look-around, back-references, atomic groups and possessive
// quantifiers, \h, \R, \Z, (?x). Three things compile and mean something else:
// $ is the very end and does not match before a final newline, \s does not
// match a vertical tab, and beyond ASCII a dot is a character of UTF-8 and not
// a byte, and has a case.
//
// Where a text has $1 before a variable whose evaluation matches anew, $1 is of
// the new match; nginx then ends the session.
//
// A variable that can evaluate itself is refused here, and so is the extension of a
// PROXY header by a name that none has; nginx finds out in the session. A built-in
// variable is looked up whenever it is used, while nginx keeps the first value of
// some that go on changing, as $bytes_sent. Addresses are written in their canonical
// form, also those of a PROXY header, which nginx repeats as they were written; the
// obsolete form ::192.0.2.1 is not used.
package script
