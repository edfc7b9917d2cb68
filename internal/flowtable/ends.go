// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package flowtable

import (
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
)

// Ends remembers for Active at least between which two addresses, in which
// direction and with which protocol flows began, in memory of fixed size. As a
// flow that goes on begins anew after Active, what it does not know did not pass
// of late. What it knows may not have passed, with a chance that grows with the
// flows: 2 % of 20,000 pairs, 14 % of 50,000.
//
// It is a Bloom filter of two generations. Adding is for the goroutine of a
// table, and all else for another one.
type Ends struct {
	seed    seed
	filters [2][endsWords]atomic.Uint32
	current atomic.Uint32 // the generation that is added to
	turned  time.Time
	since   time.Time // when the first one began
}

const (
	endsBits  = 1 << 18
	endsWords = endsBits / 32
)

// NewEnds returns one that knows nothing yet.
func NewEnds(now time.Time) *Ends { return &Ends{seed: newSeed(), turned: now, since: now} }

// places are the bits of a key, of which only the addresses and the protocol count.
func (e *Ends) places(k *flow.Key) (a, b uint32) {
	pair := flow.Key{Src: k.Src, Dst: k.Dst, Protocol: k.Protocol, Family: k.Family}
	w := words(&pair)
	h := e.seed.mix(e.seed.sum(w, &pair) + e.seed.rest(w))
	return uint32(h>>32) % endsBits, uint32(h>>8) % endsBits
}

func (e *Ends) add(k *flow.Key) {
	a, b := e.places(k)
	f := &e.filters[e.current.Load()&1]
	raise(&f[a/32], 1<<(a%32))
	raise(&f[b/32], 1<<(b%32))
}

// raise spares the write, which other processors would have to fetch.
func raise(word *atomic.Uint32, bit uint32) {
	if word.Load()&bit == 0 {
		word.Or(bit)
	}
}

// Turn forgets what is old. It has to be called every now and then.
func (e *Ends) Turn(now time.Time) {
	if now.Sub(e.turned) < Active+Idle {
		return
	}
	e.turned = now
	next := (e.current.Load() + 1) & 1
	for i := range e.filters[next] {
		e.filters[next][i].Store(0)
	}
	e.current.Store(next)
}

// Since returns from when on it knows all.
func (e *Ends) Since() time.Time { return e.since }

// Know tells whether a flow between these addresses, in this direction and with
// this protocol passed within Active, or perhaps did.
func (e *Ends) Know(k *flow.Key) bool {
	a, b := e.places(k)
	for i := range e.filters {
		f := &e.filters[i]
		if f[a/32].Load()>>(a%32)&1 != 0 && f[b/32].Load()>>(b%32)&1 != 0 {
			return true
		}
	}
	return false
}
