// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"sync"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
)

// recent holds the last tracers in memory, for the page: those of keys with
// standing apart from others, so that these cannot have them forgotten.
type recent struct {
	mu    sync.Mutex
	rings [2]ring
	count uint64 // of all that were added
}

type ring struct {
	items []item
	next  int
}

type item struct {
	number uint64
	*receiver.Received
}

const (
	maxRecent    = 16384 // of keys with standing
	maxRecentNew = 4096
)

func newRecent() *recent {
	r := &recent{}
	r.rings[0].items = make([]item, maxRecent)
	r.rings[1].items = make([]item, maxRecentNew)
	return r
}

func (r *recent) add(x *receiver.Received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &r.rings[0]
	if x.Level == receiver.NewKey {
		g = &r.rings[1]
	}
	r.count++
	g.items[g.next] = item{r.count, x}
	g.next = (g.next + 1) % len(g.items)
}

// since returns what arrived since then, in no order. whole is false if there were
// more than are held.
func (r *recent) since(t time.Time) (all []item, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	whole = true
	for i := range r.rings {
		g := &r.rings[i]
		if oldest := g.items[g.next]; oldest.Received != nil && oldest.Arrived.After(t) {
			whole = false
		}
		for _, x := range g.items {
			if x.Received != nil && !x.Arrived.Before(t) {
				all = append(all, x)
			}
		}
	}
	return all, whole
}
