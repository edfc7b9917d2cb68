// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"hash/maphash"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

// Window is how far a tracer's time may be off. Later ones are stale.
const Window = 5 * time.Minute

const window = int64(Window / time.Millisecond)

// A replayFilter remembers which tracers were verified. It is filled after the
// signature only. A tracer that is forgotten before its window is over raises the
// floor of its key: of that key, what was made no later is stale from then on,
// so that nothing ever counts twice. Only a key's own tracers can do that to it.
type replayFilter struct {
	seed   maphash.Seed
	table  *lru.Table[uint64]
	owners []*Entry
	times  []int64 // of the tracers, ms
}

func newReplayFilter(size int) replayFilter {
	return replayFilter{maphash.MakeSeed(), lru.New[uint64](size), make([]*Entry, size), make([]int64, size)}
}

// id of a tracer. The seed keeps others from looking for two tracers of one id.
func (f *replayFilter) id(key *tracer.PublicKey, nonce *[8]byte) uint64 {
	var b [40]byte
	copy(b[:], key[:])
	copy(b[32:], nonce[:])
	return maphash.Bytes(f.seed, b[:])
}

func (f *replayFilter) has(key *tracer.PublicKey, nonce *[8]byte) bool {
	_, ok := f.table.Find(f.id(key, nonce))
	return ok
}

// add remembers a tracer of an entry and tells whether it was there.
func (f *replayFilter) add(l *Ledger, e *Entry, nonce *[8]byte, made, now int64) (repeated bool) {
	slot, outcome := f.table.Put(f.id(&e.Key, nonce))
	switch outcome {
	case lru.Found:
		return true
	case lru.Replaced:
		if made := f.times[slot]; made+window > now {
			if owner := f.owners[slot]; owner.gone {
				l.lost = max(l.lost, made)
			} else {
				owner.floor = max(owner.floor, made)
			}
		}
	}
	f.owners[slot], f.times[slot] = e, made
	return false
}
