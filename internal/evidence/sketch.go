// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"github.com/overflowd/overflowd/internal/flow"
)

// What is counted is counted in tables of fixed size, by hashes with a random seed:
// nobody who does not know it can make two things fall together, and whoever sends
// at random makes what was counted least be forgotten. Hashes are NH, as in package
// flowtable.

// A seed is the secret of the hashes.
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

// mix makes the hash of a sum: its upper bits are the good ones.
func (s *seed) mix(sum uint64) uint64 { return (sum ^ sum>>32) * s.last }

// address returns a hash of an address, of 32 bits.
func (s *seed) address(family flow.Family, a *[16]byte) uint32 {
	sum := uint64(binary.NativeEndian.Uint32(a[:])+s.words[0]) * uint64(uint32(family)+s.words[1])
	if family != flow.IPv4 {
		sum += s.rest(a)
	}
	return uint32(s.mix(sum) >> 32)
}

// rest is NH of the words that are all 0 in addresses of IPv4.
func (s *seed) rest(a *[16]byte) uint64 {
	n := binary.NativeEndian
	return uint64(n.Uint32(a[4:])+s.words[2])*uint64(n.Uint32(a[8:])+s.words[3]) + uint64(n.Uint32(a[12:])+s.words[4])*uint64(s.words[5])
}

// pair returns a hash of two numbers, of a kind.
func (s *seed) pair(kind, a, b uint32) uint64 {
	return s.mix(uint64(a+s.words[6])*uint64(b+s.words[7]) + uint64(kind)*uint64(s.words[8]))
}

// A memory of hashes: of what was remembered since the last turn but one, it always
// knows; of others it says so with a chance that grows with how much it remembers.
type memory struct {
	mask   uint32 // of a place, a bit
	now    uint8  // the generation that is written
	places [2][]uint32
}

func newMemory(bits uint8) memory {
	return memory{mask: 1<<bits - 1, places: [2][]uint32{make([]uint32, 1<<(bits-5)), make([]uint32, 1<<(bits-5))}}
}

func (m *memory) add(hash uint64) {
	p := m.places[m.now&1]
	a, b := uint32(hash>>32)&m.mask, uint32(hash>>20)&m.mask
	p[a/32] |= 1 << (a % 32)
	p[b/32] |= 1 << (b % 32)
}

func (m *memory) has(hash uint64) bool {
	a, b := uint32(hash>>32)&m.mask, uint32(hash>>20)&m.mask
	return m.places[0][a/32]>>(a%32)&(m.places[0][b/32]>>(b%32))&1 != 0 ||
		m.places[1][a/32]>>(a%32)&(m.places[1][b/32]>>(b%32))&1 != 0
}

// turn forgets the older of the two generations.
func (m *memory) turn() {
	m.now ^= 1
	clear(m.places[m.now&1])
}

const ways = 4 // cells where a hash may be

// counters count events of things. A thing that is counted among the few that were
// counted most is never forgotten for others that come once.
type counters struct{ sets [][ways]counter }

type counter struct {
	tag    uint32
	window uint16
	count  uint16
}

func newCounters(cells int) counters { return counters{make([][ways]counter, cells/ways)} }

// at returns the counter of a hash. What it counted in the last window counts half.
func (c *counters) at(hash uint64, window uint16) *counter {
	set := &c.sets[uint32(hash>>32)&uint32(len(c.sets)-1)]
	tag := uint32(hash>>16) | 1
	for i := range set {
		x := &set[i]
		if x.tag == tag {
			if x.window != window {
				if x.count /= 2; x.window+1 != window {
					x.count = 0
				}
				x.window = window
			}
			return x
		}
	}
	least := &set[0]
	for i := range set {
		x := &set[i]
		if x.window != window && x.window+1 != window {
			x.count = 0
		}
		if x.count < least.count {
			least = x
		}
	}
	*least = counter{tag: tag, window: window}
	return least
}

// add counts n and returns how many there are.
func (c *counters) add(hash uint64, window uint16, n uint32) uint32 {
	x := c.at(hash, window)
	x.count = uint16(min(uint32(x.count)+n, 0xffff))
	return uint32(x.count)
}

// take takes one back, if it is still known.
func (c *counters) take(hash uint64, window uint16) {
	if x := c.at(hash, window); x.count > 0 {
		x.count--
	}
}

// spreads count different things of one: so many bits are set of 64.
type spreads struct{ sets [][ways]spread }

type spread struct {
	bits   uint64
	tag    uint32
	window uint16
	count  uint16 // of bits
}

func newSpreads(cells int) spreads { return spreads{make([][ways]spread, cells/ways)} }

func (s *spreads) at(hash uint64, window uint16) *spread {
	set := &s.sets[uint32(hash>>32)&uint32(len(s.sets)-1)]
	tag := uint32(hash>>16) | 1
	for i := range set {
		x := &set[i]
		if x.tag == tag {
			if x.window != window { // half of the last window's, and none from before
				if x.bits &= 0x5555_5555_5555_5555; x.window+1 != window {
					x.bits = 0
				}
				x.window, x.count = window, uint16(bits.OnesCount64(x.bits))
			}
			return x
		}
	}
	least := &set[0]
	for i := range set {
		x := &set[i]
		if x.window != window && x.window+1 != window {
			x.count = 0
		}
		if x.count < least.count {
			least = x
		}
	}
	*least = spread{tag: tag, window: window}
	return least
}

// set sets a bit and returns how many there are.
func (x *spread) set(bit uint32) uint16 {
	if b := uint64(1) << (bit & 63); x.bits&b == 0 {
		x.bits |= b
		x.count++
	}
	return x.count
}

// clear takes a bit back.
func (x *spread) clear(bit uint32) {
	if b := uint64(1) << (bit & 63); x.bits&b != 0 {
		x.bits &^= b
		x.count--
	}
}
