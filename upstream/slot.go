package upstream

import "net/netip"

// Slot is what a Method sees of a server: one element of the dense array of
// the primary or of the backup servers, in the order of the configuration.
type Slot struct {
	Weight    int // at least 1; as configured, or in hundredths of that, see Config.Agents
	Effective int // 0..Weight: what failures have left of the weight
	Current   int // smooth round robin's running credit
	Conns     int // sessions that hold this server, connecting ones included

	// Latency is how many ms the next session is expected to take to the moment
	// that a TimedMethod goes by; 0 if that is not known, and for any other.
	Latency int64

	// Eligible says that this session may have this server now: it is fit
	// enough, and not tried before.
	Eligible bool

	down        bool
	maxConns    int   // 0: no limit; with what the agent says
	maxPending  int   // 0: no limit
	maxFails    int   // 0: failures never take it out
	failTimeout int64 // seconds
	slowStart   int64 // seconds; 0: none

	fails    int
	accessed int64 // when it last failed
	checked  int64 // when it last failed, or was picked after its window

	health   State // StateUp, or why it is not
	agent    State // StateUp, or what the agent's word has made of it
	returned int64 // when it came back, the begin of its slow start; 0: that is over
	credit   int64 // see admit
	pending  int   // connects under way that are counted; see crowded
	peer     *Peer

	times
}

// configure takes over a server's parameters and leaves its live state. The
// weight and max_conns are for Group.obey.
func (s *Slot) configure(c Server) {
	s.peer.weight = max(c.Weight, 1)
	s.peer.maxConns = c.MaxConns
	s.down = c.Down
	s.maxPending = c.MaxPending
	s.maxFails = c.MaxFails
	s.failTimeout = c.FailTimeout
	s.slowStart = c.SlowStart
}

// weigh changes the weight; the effective one keeps its share of it.
func (s *Slot) weigh(weight int) {
	if s.Weight == 0 {
		s.Effective = weight
	} else {
		s.Effective = s.Effective * weight / s.Weight
	}
	s.Weight = weight
}

// full reports that max_conns is reached.
func (s *Slot) full() bool {
	return s.maxConns > 0 && s.Conns >= s.maxConns
}

// failed reports that the server has used up max_fails. It stays so after its
// window, until a connection succeeds.
func (s *Slot) failed() bool {
	return s.maxFails > 0 && s.fails >= s.maxFails
}

// unavailable reports that failures keep the server out now: for fail_timeout
// and up to a second more, since times are whole seconds.
func (s *Slot) unavailable(now int64) bool {
	return s.failed() && now-s.checked <= s.failTimeout
}

// take counts a session. The first one after the window starts the window
// anew: until it has succeeded, it is the only one to try the server, nginx's
// half-open circuit of one live client per fail_timeout.
func (s *Slot) take(now int64) {
	if now-s.checked > s.failTimeout {
		s.checked = now
	}
	s.Conns++
}

// fail counts a failure.
func (s *Slot) fail(now int64) {
	s.fails++
	s.accessed = now
	s.checked = now
	if s.maxFails > 0 {
		s.Effective = max(0, s.Effective-s.Weight/s.maxFails)
	}
}

// pass forgets failures, if the server was picked after the window of the last
// one. Otherwise failures add up, whatever succeeds between them.
func (s *Slot) pass() {
	s.peer.accuser = netip.Addr{}
	if s.accessed < s.checked {
		s.fails = 0
	}
}
