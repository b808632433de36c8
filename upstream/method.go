package upstream

// A Method is a way to choose among the servers of one list, the primaries or
// the backups of a group (package balancer has them). Pick returns the index
// of one of the eligible slots, or -1 if none is eligible. It is called with
// the group's lock held and allocates nothing. It may change Effective and
// Current, which are the method's own between failures, may make eligible slots
// ineligible, and changes no other field.
//
// A session asks again after a failure, and also when none was eligible and
// less fit servers are to be had: then with more of them eligible than before.
type Method interface {
	Pick(slots []Slot, s *Session) int
}

// A TimedMethod goes by Slot.Latency, and says of what.
type TimedMethod interface {
	Method
	Measure() Measure
}

// A WeightedMethod does not read Slot.Weight in each Pick, and is told when agents
// have changed weights: of the same servers in the same order. Other methods
// that do not read it, such as those that hash, keep to what is configured.
type WeightedMethod interface {
	Method
	Reweigh(slots []Slot)
}

// Session is what a Method sees of a session, and what it keeps of it from one
// pick to the next.
type Session struct {
	// Key is what the session is hashed by; empty: by nothing. It must be the
	// same for each Next of a turn, and is not used outside of it.
	Key []byte

	// The method's own, zero at the first pick.
	Hash   uint32
	Rounds int
	Misses int
}
