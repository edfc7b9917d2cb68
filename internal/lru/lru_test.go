// SPDX-License-Identifier: BSD-3-Clause

package lru

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the same thing, slow and obvious: keys from the newest.
type model []int

func (m *model) use(k int) bool {
	i := slices.Index(*m, k)
	if i < 0 {
		return false
	}
	*m = slices.Insert(slices.Delete(*m, i, i+1), 0, k)
	return true
}

func TestATableDoesWhatTheModelDoes(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 64} {
		r := rand.New(rand.NewPCG(uint64(size), 2))
		table := New[int](size)
		var m model
		content := make([]int, size) // what an owner would keep
		replaced := 0
		for step := range 20000 {
			k := r.IntN(2*size + 1)
			switch r.IntN(5) {
			case 0:
				slot, ok := table.Find(k)
				if want := m.use(k); ok != want || ok && content[slot] != k {
					t.Fatalf("size %d, step %d: key %d found %v, want %v", size, step, k, ok, want)
				}
			case 1:
				slot, ok := table.Find(k)
				if m.use(k); ok {
					table.Remove(slot)
					m = m[1:]
				}
			case 2:
				slot := r.IntN(size)
				held := slices.Contains(m, k) && content[slot] == k && table.nodes[slot].used
				if ok := table.Holds(slot, k); ok != held {
					t.Fatalf("size %d, step %d: slot %d holds %d: %v, want %v", size, step, slot, k, ok, held)
				}
				if held {
					m.use(k)
				}
			default:
				before := len(m)
				slot, outcome := table.Put(k)
				want := Added
				switch {
				case m.use(k):
					want = Found
				case before == size:
					want = Replaced
					replaced++
					if content[slot] != m[before-1] {
						t.Fatalf("size %d, step %d: %d was replaced, the oldest is %d", size, step, content[slot], m[before-1])
					}
					m = slices.Insert(m[:before-1], 0, k)
				default:
					m = slices.Insert(m, 0, k)
				}
				if outcome != want {
					t.Fatalf("size %d, step %d: outcome %d, want %d", size, step, outcome, want)
				}
				content[slot] = k
				if table.Key(slot) != k {
					t.Fatalf("size %d, step %d: the slot's key is %d", size, step, table.Key(slot))
				}
			}
			var keys []int
			sweep, left := step%500 == 499, model(nil) // each third slot is removed on the way
			for slot := range table.FromOldest() {
				if keys = append(keys, content[slot]); sweep && content[slot]%3 == 0 {
					table.Remove(slot)
				} else {
					left = slices.Insert(left, 0, content[slot])
				}
			}
			slices.Reverse(keys)
			if !slices.Equal(keys, m) || table.Len() != len(left) {
				t.Fatalf("size %d, step %d: %v, %d of them, the model is %v", size, step, keys, table.Len(), m)
			}
			m = left
		}
		if replaced < 100 {
			t.Errorf("size %d: only %d replaced", size, replaced)
		}
	}
}

func TestATableDoesNotAllocate(t *testing.T) {
	type key struct {
		addr [16]byte
		port uint16
	}
	table := New[key](100)
	n := uint16(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		n++
		table.Put(key{addr: [16]byte{15: byte(n)}, port: n})
		if slot, ok := table.Find(key{addr: [16]byte{15: byte(n / 2)}, port: n / 2}); ok && n%5 == 0 {
			table.Remove(slot)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkFind(b *testing.B) {
	type key struct {
		addr [16]byte
		port uint16
	}
	table := New[key](256)
	for i := range uint16(256) {
		table.Put(key{addr: [16]byte{15: byte(i)}, port: i})
	}
	i := uint16(0)
	for b.Loop() {
		i += 7
		table.Find(key{addr: [16]byte{15: byte(i)}, port: i & 255})
	}
}
