// Package stream is the data plane: it accepts clients, connects each to a
// server of its route's upstream group and relays bytes both ways, untouched,
// until both sides are done.
//
// An Engine runs a few workers. A worker is one event loop on one goroutine,
// and a session stays on one worker for its life: nothing in a session is
// locked. Only the choice of a server takes a lock, its group's, once for each
// connection. Everything an Engine exports may be called from any goroutine
// and reaches the workers through their mailboxes.
//
// The life of a session:
//
//	accept ──► connecting ──► greeting ──► relaying ──► lingering ──► gone
//	  │    ▲      ▲  │           │            ▲ both halves done, or a reason to stop:
//	  └────┘      └──┴───────────┘            │ log line, server released
//	  header       next upstream              └ bytes flow: copied (dialogue) or spliced (bulk)
//
// A session has two ends (client, server: a descriptor and what epoll has said
// of it) and two halves (up: client to server; down: server to client: what has
// been read and not yet written, and the counters). relay.go is about halves,
// pace.go about how fast they may go, session.go about the life, connect.go about
// reaching a server, gate.go about its greeting, header.go about the PROXY protocol
// on both sides, accept.go about getting clients, and port.go about their routes.
// admit.go is about who is served, in nginx's order: assignments, limits (limit.go,
// zone.go), rules (access.go), and then a group or an address (destination.go), the
// text of return or another port (pass.go; address.go reads what variables have
// become for both); reply.go about our own words to a client
// that gets no server; end.go about how sessions end. What variables are evaluated by is in
// record.go, and accesslog.go writes lines of them. A session of a route without
// variables has no record and pays for none of that. epoch.go says when the last
// session of an earlier configuration has gone.
//
// What it does not do: once a byte of a server has gone to the client it never
// changes, adds or holds back a byte, and it does not read the mail it carries.
package stream
