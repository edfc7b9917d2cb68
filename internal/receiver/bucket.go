// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
)

// A bucket is the generic cell rate algorithm (ITU-T I.371): the time at which it
// is full again, on the monotonic clock since the receiver's start.
type bucket time.Duration

// rate of a bucket: one token an interval, and up to burst at once.
type rate struct {
	interval time.Duration
	burst    int
}

// perSecond returns a rate of n tokens a second.
func perSecond(n float64, burst int) rate {
	return rate{time.Duration(float64(time.Second) / n), max(burst, 1)}
}

func (b bucket) allows(now time.Duration, r rate) bool {
	return time.Duration(b) <= now+time.Duration(r.burst-1)*r.interval
}

func (b *bucket) take(now time.Duration, r rate) {
	*b = max(*b, bucket(now)) + bucket(r.interval)
}

var (
	// seenRate is likewise of a key without standing.
	seenRate = perSecond(10, 20)
	// awayRate is of a key from elsewhere, or of late tracers: twice what one
	// address gets of a sender.
	awayRate = perSecond(1, 8)
	// networkRate is of new keys from one network.
	networkRate = perSecond(1, 8)
)

// homeRate is of one known key from where it was heard of before, of a lane of so
// many signatures a second: an eighth of it, but not more than twice what a
// sender's limits let it make (10 a second, 20 at once), and not less than three
// times what one address gets of it.
func homeRate(lane float64) rate {
	each := min(max(lane/8, 1), 20)
	return perSecond(each, int(max(2*each, 4)))
}

// networkOf returns the network that an address is of, for the limits.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// networks are the buckets of sending networks. One that makes room for another
// is full again when it comes back: whoever forges that many source addresses
// finds the limit over all.
type networks struct {
	table   *lru.Table[netip.Prefix]
	buckets []bucket
}

func newNetworks(size int) networks {
	return networks{lru.New[netip.Prefix](size), make([]bucket, size)}
}

// allows does not make an entry.
func (n *networks) allows(p netip.Prefix, now time.Duration) bool {
	slot, ok := n.table.Find(p)
	return !ok || n.buckets[slot].allows(now, networkRate)
}

func (n *networks) take(p netip.Prefix, now time.Duration) {
	slot, outcome := n.table.Put(p)
	if outcome != lru.Found {
		n.buckets[slot] = 0
	}
	n.buckets[slot].take(now, networkRate)
}
