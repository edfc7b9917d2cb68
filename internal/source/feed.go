// SPDX-License-Identifier: BSD-3-Clause

// Package source brings flow records from where they are, a capture file or
// exporters that send datagrams, past the selector. It is the hot side: one
// goroutine a source, no locks, no allocation and no logging per record. What
// is selected crosses to the cold side as a Hit.
package source

import (
	"context"
	"math"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/selector"
)

// A Hit is a record of which packets were selected.
type Hit struct {
	Record   flow.Record
	Selected uint64
}

// Counters of one source. They may be read while it runs.
type Counters struct {
	Datagrams atomic.Uint64 // flow export datagrams read, the cut ones too
	Records   atomic.Uint64
	Packets   atomic.Uint64 // of the records, times the sampling interval
	Bytes     atomic.Uint64 // likewise; layer 3
	Hits      atomic.Uint64 // records of which packets were selected
	Lost      atomic.Uint64 // hits that found the queue to the cold side full
	Drops     [Reasons]atomic.Uint64
}

// A Feed takes flow export datagrams to the selector. It belongs to one
// goroutine; its Counters do not.
type Feed struct {
	Counters Counters

	decoder  netflow.Decoder
	selector *selector.Selector
	emit     func(*flow.Record)

	ctx  context.Context
	hits chan<- Hit
	wait bool

	records, packets, bytes uint64 // of the datagram at hand
}

// NewFeed returns a feed whose hits go to the channel, which the caller owns.
// A feed that may wait blocks while the channel is full, until ctx is done: a
// file can wait. The others drop the hit and count it.
func NewFeed(ctx context.Context, s *selector.Selector, hits chan<- Hit, wait bool) *Feed {
	f := &Feed{selector: s, ctx: ctx, hits: hits, wait: wait}
	f.emit = f.record
	return f
}

// receive takes one flow export datagram and counts what is wrong with it. It
// keeps nothing of the datagram.
func (f *Feed) receive(b []byte) {
	err := f.decoder.Decode(b, f.emit)
	f.flush()
	if err != nil {
		f.Counters.Drops[reasonOf(err)].Add(1)
	}
	if err == nil || err == netflow.ErrCount {
		f.Counters.Datagrams.Add(1)
	}
}

func (f *Feed) record(r *flow.Record) {
	packets, bytes := r.Packets, r.Bytes
	if r.Interval > 1 {
		packets, bytes = scale(packets, r.Interval), scale(bytes, r.Interval)
	}
	f.records++
	f.packets += packets
	f.bytes += bytes
	if k := f.selector.Take(packets); k != 0 {
		f.hit(r, k)
	}
}

// scale multiplies a count, of at most 2^32 in the fixed versions, by a
// sampling interval and saturates.
func scale(n uint64, interval uint32) uint64 {
	if n > math.MaxUint64/uint64(interval) {
		return math.MaxUint64
	}
	return n * uint64(interval)
}

func (f *Feed) hit(r *flow.Record, k uint64) {
	f.flush() // what the sender may spend must not lag behind the hit
	f.Counters.Hits.Add(1)
	h := Hit{Record: *r, Selected: k}
	select {
	case f.hits <- h:
		return
	default:
	}
	if f.wait {
		select {
		case f.hits <- h:
			return
		case <-f.ctx.Done():
		}
	}
	f.Counters.Lost.Add(1)
}

// flush adds to the shared counters once a datagram: an atomic addition a
// record would cost more than its decoding.
func (f *Feed) flush() {
	if f.records != 0 {
		f.Counters.Records.Add(f.records)
		f.Counters.Packets.Add(f.packets)
		f.Counters.Bytes.Add(f.bytes)
		f.records, f.packets, f.bytes = 0, 0, 0
	}
}
