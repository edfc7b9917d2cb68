// SPDX-License-Identifier: BSD-3-Clause

// Package lru maps keys to the slots of a table of fixed size, in which a new
// key takes the place of the one that was not used for the longest time. All
// memory is taken at the start: what is kept of strangers, who can send any
// number of keys, must neither grow nor make work for the garbage collector.
package lru

import (
	"hash/maphash"
	"iter"
)

// none is no slot: the end of a chain.
const none = -1

// A Table numbers its keys with slots from 0 up to its size. The owner keeps
// what belongs to a key in arrays of its own, at the index of its slot. It is
// not safe for concurrent use.
type Table[K comparable] struct {
	seed    maphash.Seed // random, so that nobody can aim at one chain
	buckets []int32      // first slot of each chain
	nodes   []node[K]
	newest  int32 // of the ring of all slots, the unused ones last
	length  int
}

type node[K comparable] struct {
	key          K
	used         bool
	bucket       uint32
	next         int32 // of the chain
	newer, older int32 // of the ring
}

// New returns a table of size slots, at least 1.
func New[K comparable](size int) *Table[K] {
	size = max(size, 1)
	buckets := 1
	for buckets < 2*size {
		buckets *= 2
	}
	t := &Table[K]{seed: maphash.MakeSeed(), buckets: make([]int32, buckets), nodes: make([]node[K], size)}
	for i := range t.buckets {
		t.buckets[i] = none
	}
	for i := range t.nodes {
		t.nodes[i].newer = int32((i + size - 1) % size)
		t.nodes[i].older = int32((i + 1) % size)
	}
	return t
}

// Len returns the number of keys.
func (t *Table[K]) Len() int { return t.length }

// Find returns the slot of a key, and counts as a use of it.
func (t *Table[K]) Find(key K) (slot int, ok bool) {
	if n := &t.nodes[t.newest]; n.used && n.key == key {
		return int(t.newest), true
	}
	i := t.lookUp(key, t.bucketOf(key))
	if i == none {
		return 0, false
	}
	t.touch(i)
	return int(i), true
}

// Holds reports whether a slot is the one of a key, and counts as a use of it if
// so. To an owner who remembers where a key was it spares the hash of the key.
func (t *Table[K]) Holds(slot int, key K) bool {
	if n := &t.nodes[slot]; !n.used || n.key != key {
		return false
	}
	t.touch(int32(slot))
	return true
}

// Outcome of Put.
type Outcome uint8

const (
	Found    Outcome = iota // the key was there
	Added                   // in a slot that was free
	Replaced                // in the slot of another key, which is gone
)

// Put returns the slot of a key, and gives it one if it has none. It counts as a
// use. What the owner keeps for the slot is that of another key unless it was
// Found.
func (t *Table[K]) Put(key K) (slot int, outcome Outcome) {
	if slot, ok := t.Find(key); ok {
		return slot, Found
	}
	i := t.nodes[t.newest].newer // the ring's end
	n := &t.nodes[i]
	outcome = Added
	if n.used {
		t.unchain(i)
		outcome = Replaced
	}
	n.key, n.used, n.bucket = key, true, t.bucketOf(key)
	n.next = t.buckets[n.bucket]
	t.buckets[n.bucket] = i
	t.length++
	t.newest = i // the end of a ring is before its begin
	return int(i), outcome
}

// Key returns the key of a slot that is in use.
func (t *Table[K]) Key(slot int) K { return t.nodes[slot].key }

// FromOldest returns the slots in use, from the one that was not used for the
// longest time. Of the table nothing may be changed meanwhile, but that the slot
// at hand may be removed.
func (t *Table[K]) FromOldest() iter.Seq[int] {
	return func(yield func(int) bool) {
		last := false
		for i := t.nodes[t.newest].newer; !last; {
			next := t.nodes[i].newer
			last = i == t.newest
			if t.nodes[i].used && !yield(int(i)) {
				return
			}
			i = next
		}
	}
}

// Remove frees a slot that is in use.
func (t *Table[K]) Remove(slot int) {
	i := int32(slot)
	t.unchain(i)
	var zero K
	t.nodes[i].used, t.nodes[i].key = false, zero
	if i == t.newest {
		t.newest = t.nodes[i].older
		return
	}
	t.unlink(i)
	t.link(i)
}

func (t *Table[K]) bucketOf(key K) uint32 {
	return uint32(maphash.Comparable(t.seed, key)) & uint32(len(t.buckets)-1)
}

func (t *Table[K]) lookUp(key K, bucket uint32) int32 {
	i := t.buckets[bucket]
	for i != none && t.nodes[i].key != key {
		i = t.nodes[i].next
	}
	return i
}

// touch makes a slot the newest.
func (t *Table[K]) touch(i int32) {
	if i == t.newest {
		return
	}
	t.unlink(i)
	t.link(i)
	t.newest = i
}

// unlink takes a slot out of the ring, which has others.
func (t *Table[K]) unlink(i int32) {
	n := &t.nodes[i]
	t.nodes[n.newer].older, t.nodes[n.older].newer = n.older, n.newer
}

// link puts a slot between the newest and the oldest.
func (t *Table[K]) link(i int32) {
	n, first := &t.nodes[i], &t.nodes[t.newest]
	n.older, n.newer = t.newest, first.newer
	t.nodes[first.newer].older = i
	first.newer = i
}

func (t *Table[K]) unchain(i int32) {
	n := &t.nodes[i]
	p := &t.buckets[n.bucket]
	for *p != i {
		p = &t.nodes[*p].next
	}
	*p = n.next
	t.length--
}
