// SPDX-License-Identifier: BSD-3-Clause

package netflow

// heldSets and heldSize bound what is held back: data sets that came before
// their template (RFC 7011, section 9). Longer sets are not held.
const (
	heldSets = 16
	heldSize = 1472 // a datagram in a packet of Ethernet
)

// held is a ring of data sets that wait for their template.
type held struct {
	sets []heldSet
	next int
	buf  [heldSize]byte // of the set that was taken last
}

type heldSet struct {
	header header
	id     uint16
	size   int // 0: free
	data   [heldSize]byte
}

func newHeld() held {
	h := held{sets: make([]heldSet, heldSets)}
	for i := range h.sets {
		h.sets[i].data[0], h.sets[i].data[heldSize-1] = 1, 1 // takes the pages
	}
	return h
}

// add holds a set back, and returns how many were lost by it: this one if it is
// too long, or the oldest.
func (h *held) add(header *header, id uint16, b []byte) (lost uint64) {
	if len(b) > heldSize {
		return 1
	}
	if len(b) == 0 {
		return 0
	}
	s := &h.sets[h.next] // the oldest, if none is free
	for i := range h.sets {
		if free := &h.sets[(h.next+i)%len(h.sets)]; free.size == 0 {
			s = free
			break
		}
	}
	if s.size != 0 {
		lost = 1
		h.next = (h.next + 1) % len(h.sets)
	}
	s.header, s.id, s.size = *header, id, len(b)
	copy(s.data[:], b)
	return lost
}

// take frees a set and returns its data, which are valid until the next call.
func (h *held) take(s *heldSet) []byte {
	n := copy(h.buf[:], s.data[:s.size])
	s.size = 0
	return h.buf[:n]
}

// waiting returns how many sets are held back.
func (h *held) waiting() (n uint64) {
	for i := range h.sets {
		if h.sets[i].size != 0 {
			n++
		}
	}
	return n
}
