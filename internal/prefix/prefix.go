// SPDX-License-Identifier: BSD-3-Clause

// Package prefix holds sets of address prefixes, of a few or of a million, that
// tell in some ten steps and without an allocation whether an address is in them.
//
// A set is two sorted arrays of ranges that neither overlap nor touch: 8 bytes a
// range of IPv4, 32 bytes one of IPv6. An index by the upper bits of IPv4 addresses
// keeps a look-up in a long list within a cache line or two.
package prefix

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sort"

	"github.com/overflowd/overflowd/internal/flow"
)

// A Set does not change once it is built, and is safe for concurrent use. The zero
// value is empty.
type Set struct {
	v4    []range4
	v6    []range6
	shift uint8    // of an IPv4 address, to its place in the index
	index []uint32 // the first range that ends in or behind the place
	// sieve has a bit for each 16 bits that an address of the set may have, the first
	// ones of IPv4, or the second ones of IPv6; nil: any.
	sieve *[1024]uint64
}

type range4 struct{ first, last uint32 }

type range6 struct{ first, last uint128 }

type uint128 struct{ hi, lo uint64 }

func (a uint128) less(b uint128) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// next returns the number after it, 0 after the last.
func (a uint128) next() uint128 {
	lo, carry := bits.Add64(a.lo, 1, 0)
	return uint128{a.hi + carry, lo}
}

// prev returns the number before it.
func (a uint128) prev() uint128 {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return uint128{a.hi - borrow, lo}
}

// Contains tells whether an address, laid out as in flow.Key, is in the set. No
// address of an unknown family is.
func (s *Set) Contains(family flow.Family, a *[16]byte) bool {
	switch family {
	case flow.IPv4:
		if len(s.v4) == 0 {
			return false
		}
		return s.contains4(binary.BigEndian.Uint32(a[:]))
	case flow.IPv6:
		if len(s.v6) == 0 {
			return false
		}
		return s.contains6(uint128{binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(a[8:])})
	}
	return false
}

func (s *Set) contains4(a uint32) bool {
	low, high := uint32(0), uint32(len(s.v4))
	if s.index != nil {
		i := a >> s.shift
		low, high = s.index[i], s.index[i+1]+1
		if high > uint32(len(s.v4)) {
			high = uint32(len(s.v4))
		}
	}
	for low < high { // the first range that ends at a or behind it
		m := (low + high) / 2
		if s.v4[m].last < a {
			low = m + 1
		} else {
			high = m
		}
	}
	return low < uint32(len(s.v4)) && s.v4[low].first <= a
}

func (s *Set) contains6(a uint128) bool {
	low, high := 0, len(s.v6)
	for low < high {
		m := int(uint(low+high) / 2)
		if s.v6[m].last.less(a) {
			low = m + 1
		} else {
			high = m
		}
	}
	return low < len(s.v6) && !a.less(s.v6[low].first)
}

// MayEither tells of both ends of a flow whether one may be in the set, as May does.
func (s *Set) MayEither(k *flow.Key) bool {
	v := s.sieve
	if v == nil {
		return true
	}
	i, j := binary.BigEndian.Uint16(k.Src[:]), binary.BigEndian.Uint16(k.Dst[:])
	if k.Family != flow.IPv4 {
		i, j = binary.BigEndian.Uint16(k.Src[2:]), binary.BigEndian.Uint16(k.Dst[2:])
	}
	return (v[i/64]>>(i%64)|v[j/64]>>(j%64))&1 != 0
}

// HasEither tells whether an end of a flow is in the set.
func (s *Set) HasEither(k *flow.Key) bool {
	return s.Contains(k.Family, &k.Src) || s.Contains(k.Family, &k.Dst)
}

// May tells of an address, in a few instructions, whether it may be in the set. Most
// that are not in a set with a sieve may not.
func (s *Set) May(family flow.Family, a *[16]byte) bool {
	i := uint16(a[0])<<8 | uint16(a[1])
	if family != flow.IPv4 {
		i = uint16(a[2])<<8 | uint16(a[3])
	}
	return s.sieve == nil || s.sieve[i/64]>>(i%64)&1 != 0
}

// Sieved returns the set with a sieve, of 8 kB. The set must not be in use.
func (s *Set) Sieved() *Set {
	s.sieve = new([1024]uint64)
	mark := func(first, last uint32) {
		if last-first > 0xffff { // it goes around
			first, last = 0, 0xffff
		}
		for n := range last - first + 1 {
			i := (first + n) & 0xffff
			s.sieve[i/64] |= 1 << (i % 64)
		}
	}
	for _, r := range s.v4 {
		mark(r.first>>16, r.last>>16)
	}
	for _, r := range s.v6 {
		mark(uint32(r.first.hi>>32), uint32(r.last.hi>>32))
	}
	return s
}

// Has tells whether the set has an address of the family.
func (s *Set) Has(family flow.Family) bool {
	return family == flow.IPv4 && len(s.v4) != 0 || family == flow.IPv6 && len(s.v6) != 0
}

// A Builder makes a set.
type Builder struct{ set Set }

// Add adds a prefix. One that is not valid is left out; an IPv4-mapped one is of
// IPv6, as a flow.Key has it.
func (b *Builder) Add(p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	if a := p.Masked().Addr(); a.Is4() {
		x := a.As4()
		first := binary.BigEndian.Uint32(x[:])
		b.set.v4 = append(b.set.v4, range4{first, first | uint32(1<<(32-p.Bits())-1)})
	} else {
		x := a.As16()
		r := range6{first: uint128{binary.BigEndian.Uint64(x[:]), binary.BigEndian.Uint64(x[8:])}}
		r.last = r.first
		if p.Bits() < 64 {
			r.last.hi |= 1<<(64-p.Bits()) - 1
			r.last.lo = 1<<64 - 1
		} else {
			r.last.lo |= 1<<(128-p.Bits()) - 1
		}
		b.set.v6 = append(b.set.v6, r)
	}
}

// AddSet adds all that another set has.
func (b *Builder) AddSet(s *Set) {
	b.set.v4 = append(b.set.v4, s.v4...)
	b.set.v6 = append(b.set.v6, s.v6...)
}

// Set returns what was added. The builder is empty then.
func (b *Builder) Set() *Set {
	s := b.set
	b.set = Set{}
	s.merge()
	if n := len(s.v4); n > 64 { // about 4 ranges a place
		width := min(bits.Len(uint(n))-2, 18)
		s.shift = uint8(32 - width)
		s.index = make([]uint32, 1<<width+1)
		r := 0
		for i := range s.index {
			for r < n && uint64(s.v4[r].last) < uint64(i)<<s.shift {
				r++
			}
			s.index[i] = uint32(r)
		}
	}
	return &s
}

// merge sorts, and joins what overlaps or touches.
func (s *Set) merge() {
	sort.Sort(by4(s.v4))
	n := 0
	for _, r := range s.v4 {
		if n > 0 && uint64(r.first) <= uint64(s.v4[n-1].last)+1 {
			s.v4[n-1].last = max(s.v4[n-1].last, r.last)
			continue
		}
		s.v4[n] = r
		n++
	}
	s.v4 = append(make([]range4, 0, n), s.v4[:n]...) // and no more memory than that
	sort.Sort(by6(s.v6))
	n = 0
	for _, r := range s.v6 {
		if n > 0 {
			if last := &s.v6[n-1].last; !last.less(r.first) || last.next() == r.first {
				if last.less(r.last) {
					*last = r.last
				}
				continue
			}
		}
		s.v6[n] = r
		n++
	}
	s.v6 = append(make([]range6, 0, n), s.v6[:n]...)
}

// Package sort is in the program already: a generic function would be once more for
// each type, 12 kB of a router's flash.
type by4 []range4

func (r by4) Len() int           { return len(r) }
func (r by4) Less(i, j int) bool { return r[i].first < r[j].first }
func (r by4) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }

type by6 []range6

func (r by6) Len() int           { return len(r) }
func (r by6) Less(i, j int) bool { return r[i].first.less(r[j].first) }
func (r by6) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }

// Minus returns what is in the set and not in the other, which should be small.
func (s *Set) Minus(other *Set) *Set {
	var b Builder
	b.AddSet(s)
	b.cut(other)
	return b.Set()
}

// Cut takes a prefix away from what was added until now.
func (b *Builder) Cut(p netip.Prefix) {
	var one Builder
	one.Add(p)
	b.cut(&one.set)
}

func (b *Builder) cut(other *Set) {
	s := &b.set
	for _, c := range other.v4 {
		for i := 0; i < len(s.v4); i++ {
			r := s.v4[i]
			if r.last < c.first || c.last < r.first {
				continue
			}
			// What is left in front of it takes the place, and what is left behind it
			// is added.
			if r.last > c.last {
				s.v4 = append(s.v4, range4{c.last + 1, r.last})
			}
			if r.first < c.first {
				s.v4[i].last = c.first - 1
				continue
			}
			last := len(s.v4) - 1
			s.v4[i], s.v4 = s.v4[last], s.v4[:last]
			i--
		}
	}
	for _, c := range other.v6 {
		for i := 0; i < len(s.v6); i++ {
			r := s.v6[i]
			if r.last.less(c.first) || c.last.less(r.first) {
				continue
			}
			if c.last.less(r.last) {
				s.v6 = append(s.v6, range6{c.last.next(), r.last})
			}
			if r.first.less(c.first) {
				s.v6[i].last = c.first.prev()
				continue
			}
			last := len(s.v6) - 1
			s.v6[i], s.v6 = s.v6[last], s.v6[:last]
			i--
		}
	}
}
