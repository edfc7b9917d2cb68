// SPDX-License-Identifier: BSD-3-Clause

package sender

import (
	"net/netip"
	"time"
)

// A bucket is the generic cell rate algorithm (ITU-T I.371): the time at which
// it is full again, which is a token bucket in one number. Times are durations
// since the limiter's start on the monotonic clock, so that a clock that is set
// breaks nothing.
type bucket time.Duration

// rate of a bucket: one token an interval, and up to burst at once.
type rate struct {
	interval time.Duration
	burst    int
}

func (b bucket) allows(now time.Duration, r rate) bool {
	return time.Duration(b) <= now+time.Duration(r.burst-1)*r.interval
}

func (b bucket) take(now time.Duration, r rate) bucket {
	return max(b, bucket(now)) + bucket(r.interval)
}

// What is sent at the most, whatever comes in.
var (
	// destinationRate is that of RFC 8085, section 3.1.3, for a flow of
	// datagrams that nobody acknowledges.
	destinationRate = rate{3 * time.Second, 1}
	// prefixRate holds for a /24 or a /48, so that a flood over a whole
	// network is no flood of tracers into it.
	prefixRate = rate{time.Second, 4}
	// totalRate bounds what signing costs a slow router: 10 tracers are some
	// 60 ms on a 580 MHz 24Kc.
	totalRate = rate{100 * time.Millisecond, 20}
)

// limits are the token buckets per destination, per prefix and over all. Only
// what was sent makes an entry, so the rate over all bounds the tables: past
// their sizes no entry that still matters can exist.
type limits struct {
	total        bucket
	destinations map[netip.Addr]bucket
	prefixes     map[netip.Prefix]bucket
}

// maxBuckets is more than totalRate lets through before a bucket is full
// again: 20 + 10 a second for the 4 s of a prefix bucket.
const maxBuckets = 128

func newLimits() limits {
	return limits{
		destinations: make(map[netip.Addr]bucket, maxBuckets),
		prefixes:     make(map[netip.Prefix]bucket, maxBuckets),
	}
}

func prefixOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// allowAny tells whether the bucket over all has a token.
func (l *limits) allowAny(now time.Duration) bool { return l.total.allows(now, totalRate) }

// allow tells whether the destination may get a tracer now.
func (l *limits) allow(to netip.Addr, now time.Duration) bool {
	return l.destinations[to].allows(now, destinationRate) &&
		l.prefixes[prefixOf(to)].allows(now, prefixRate)
}

// spend takes the tokens for one tracer.
func (l *limits) spend(to netip.Addr, now time.Duration) {
	l.total = l.total.take(now, totalRate)
	spend(l.destinations, to, now, destinationRate)
	spend(l.prefixes, prefixOf(to), now, prefixRate)
}

func spend[K comparable](m map[K]bucket, k K, now time.Duration, r rate) {
	if len(m) >= maxBuckets {
		for k, b := range m {
			if time.Duration(b) <= now { // full again: as if it were not there
				delete(m, k)
			}
		}
	}
	m[k] = m[k].take(now, r)
}
