// SPDX-License-Identifier: BSD-3-Clause

package flowtable

import (
	"crypto/rand"
	"encoding/binary"
	"unsafe"

	"github.com/overflowd/overflowd/internal/flow"
)

// A seed is the secret of a hash: NH (Black, Halevi, Krawczyk, Krovetz, Rogaway,
// "UMAC: Fast and Secure Message Authentication", CRYPTO '99, section 4) over the
// key in words of 32 bits, and multiply-shift (Dietzfelbinger et al., "A reliable
// randomized algorithm for the closest-pair problem", Journal of Algorithms 25,
// 1997) of its sum. Two keys that one chooses without knowing the seed fall into
// one of n sets with a chance of at most 2/n + 2^-32. It takes a third of the
// instructions of hash/maphash, and less than that on processors of 32 bits, as it
// needs no more than their multiplication of 32 by 32 bits.
type seed struct {
	words [10]uint32
	last  uint64 // odd
}

func newSeed() (s seed) {
	var b [48]byte
	rand.Read(b[:]) // never fails: crypto/rand
	for i := range s.words {
		s.words[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	s.last = binary.NativeEndian.Uint64(b[40:]) | 1
	return s
}

// words is a flow.Key as it is hashed and compared: as a whole, a key would be
// compared by a function, and fields by fields. Keys have to be aligned to words
// of 32 bits, as those in an Entry and in a packet.Packet are, beside such words.
type words struct {
	addresses [4]uint64
	ports     uint32
	protocol  uint16 // and family
}

func wordsOf(k *flow.Key) *words { return (*words)(unsafe.Pointer(k)) }

// hash is of a key. Its upper half is to be used for the set.
func (s *seed) hash(k *flow.Key) uint64 {
	a, w := (*[8]uint32)(unsafe.Pointer(k)), &s.words
	x := wordsOf(k)
	h := uint64(a[0]+w[0])*uint64(a[1]+w[1]) + uint64(a[4]+w[4])*uint64(a[5]+w[5]) +
		uint64(x.ports+w[8])*uint64(uint32(x.protocol)+w[9])
	if k.Family != flow.IPv4 { // whose other words are all 0
		h += uint64(a[2]+w[2])*uint64(a[3]+w[3]) + uint64(a[6]+w[6])*uint64(a[7]+w[7])
	}
	return h * s.last
}
