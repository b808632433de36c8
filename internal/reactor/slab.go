package reactor

const chunkSize = 128

// Slab hands out slots for values of T at addresses that never move, and
// counts a slot's generations. The zero Slab is ready. One goroutine owns it.
type Slab[T any] struct {
	chunks []*[chunkSize]slot[T]
	free   []uint32 // most recently freed last: hot memory first
	used   int
}

type slot[T any] struct {
	value      T
	generation uint32
	live       bool
}

// Get returns a zeroed slot with its index and generation.
func (s *Slab[T]) Get() (value *T, index, generation uint32) {
	if len(s.free) == 0 {
		s.grow()
	}
	index = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	sl := &s.chunks[index/chunkSize][index%chunkSize]
	sl.live = true
	s.used++
	return &sl.value, index, sl.generation
}

func (s *Slab[T]) grow() {
	base := uint32(len(s.chunks) * chunkSize)
	if base > maxIndex-chunkSize {
		panic("reactor: BUG: slab is full")
	}
	s.chunks = append(s.chunks, new([chunkSize]slot[T]))
	for i := range uint32(chunkSize) {
		s.free = append(s.free, base+chunkSize-1-i)
	}
}

// Put frees a slot: its value is zeroed and its generation moves on, so every
// token made for this tenancy is stale from here.
func (s *Slab[T]) Put(index uint32) {
	sl := &s.chunks[index/chunkSize][index%chunkSize]
	if !sl.live {
		panic("reactor: BUG: slot freed twice")
	}
	var zero T
	sl.value = zero
	sl.live = false
	sl.generation = (sl.generation + 1) & (1<<generationBits - 1)
	s.free = append(s.free, index)
	s.used--
}

// Lookup returns the slot a token was made for, or nil if it has been freed
// since.
func (s *Slab[T]) Lookup(t Token) *T {
	i := t.Index()
	if int(i/chunkSize) >= len(s.chunks) {
		return nil
	}
	sl := &s.chunks[i/chunkSize][i%chunkSize]
	if !sl.live || sl.generation != t.Generation() {
		return nil
	}
	return &sl.value
}

// At returns a live slot by index, or nil.
func (s *Slab[T]) At(index uint32) *T {
	if int(index/chunkSize) >= len(s.chunks) {
		return nil
	}
	sl := &s.chunks[index/chunkSize][index%chunkSize]
	if !sl.live {
		return nil
	}
	return &sl.value
}

// Len returns how many slots are in use.
func (s *Slab[T]) Len() int { return s.used }

// Each calls f for every slot in use. f may free the slot it is given.
func (s *Slab[T]) Each(f func(index uint32, value *T)) {
	for c, chunk := range s.chunks {
		for i := range chunk {
			if chunk[i].live {
				f(uint32(c*chunkSize+i), &chunk[i].value)
			}
		}
	}
}
