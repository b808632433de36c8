package reactor

// Token names what a descriptor was registered for: a kind, a slot, and the
// slot's generation, so that an event of an earlier tenant is recognised. It
// travels through the kernel as epoll data.
//
//	63        40 39     32 31         2 1    0
//	generation | attempt  | index      | kind
type Token uint64

// Kind tells descriptors of one slot apart. Values above KindUser are the
// embedder's own; there is room for three.
type Kind uint8

const (
	kindWake Kind = iota // the loop's mailbox
	// KindUser is the first kind of the embedder.
	KindUser
)

const (
	maxIndex       = 1<<30 - 1
	generationBits = 24
)

// MakeToken packs a token. attempt tells successive descriptors of one slot
// and kind apart (a session's first and second server); it may wrap, since it
// only has to differ within one batch of events.
func MakeToken(k Kind, index, generation uint32, attempt uint8) Token {
	return Token(generation)<<40 | Token(attempt)<<32 | Token(index)<<2 | Token(k)
}

// Kind returns the token's kind.
func (t Token) Kind() Kind { return Kind(t & 3) }

// Index returns the slot.
func (t Token) Index() uint32 { return uint32(t) >> 2 }

// Attempt returns the attempt that MakeToken was given.
func (t Token) Attempt() uint8 { return uint8(t >> 32) }

// Generation returns the slot's generation.
func (t Token) Generation() uint32 { return uint32(t >> 40) }
