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

// words are the addresses of a key as they are hashed and compared. They are of
// 32 bits, as those of IPv4 were just written so, and wider loads would wait for
// the writes. Keys have to be aligned to them, as those in an Entry and in a
// packet.Packet are.
func words(k *flow.Key) *[8]uint32 { return (*[8]uint32)(unsafe.Pointer(k)) }

// sum is NH of the words that a key of IPv4 has.
func (s *seed) sum(a *[8]uint32, k *flow.Key) uint64 {
	return uint64(a[0]+s.words[0])*uint64(a[4]+s.words[1]) +
		uint64(uint32(k.SrcPort)<<16+uint32(k.DstPort)+s.words[2])*uint64(uint32(k.Protocol)<<8+uint32(k.Family)+s.words[3])
}

// mix makes the hash of a sum. The sums of keys in a row are in a row too, and so
// would be their products.
func (s *seed) mix(sum uint64) uint64 { return (sum ^ sum>>32) * s.last }

// rest is NH of the words that are all 0 in keys of IPv4.
func (s *seed) rest(a *[8]uint32) uint64 {
	w := &s.words
	return uint64(a[1]+w[4])*uint64(a[2]+w[5]) + uint64(a[3]+w[6])*uint64(a[5]+w[7]) + uint64(a[6]+w[8])*uint64(a[7]+w[9])
}
