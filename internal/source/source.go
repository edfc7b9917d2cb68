// SPDX-License-Identifier: BSD-3-Clause

// Package source brings flow records from where they are, a capture file,
// exporters that send datagrams, or the packets of an interface, past the
// selector. It is the hot side: one goroutine a source, no locks, no allocation
// and no logging per record. What is selected crosses to the cold side as a Hit.
package source

import (
	"context"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
)

// A Hit is a record of which packets were selected.
type Hit struct {
	Record   flow.Record
	Selected uint64
}

// A Sink is where the hits of a source go.
type Sink struct {
	// Hits belongs to the caller. If the source may Wait, it blocks while the
	// channel is full, until the context is done: a file can wait. The others
	// drop the hit and count it.
	Hits chan<- Hit
	Wait bool
}

// Counters of one source. They may be read while it runs.
type Counters struct {
	Datagrams atomic.Uint64 // flow export datagrams read, the cut ones too
	Records   atomic.Uint64
	Packets   atomic.Uint64 // of the records, times the sampling interval; or captured
	Bytes     atomic.Uint64 // likewise; layer 3
	Flows     atomic.Uint64 // that began, of captured packets
	Hits      atomic.Uint64 // records of which packets were selected
	Lost      atomic.Uint64 // hits that found the queue to the cold side full
	Overrun   atomic.Uint64 // datagrams or frames that the kernel dropped, as we did not keep up
	Untaken   atomic.Uint64 // samples that sFlow agents had no resources for, by their word
	Evicted   atomic.Uint64 // observation domains, templates or flows that made room for others
	Drops     [Reasons]atomic.Uint64
}

// outlet is a source's way to the cold side.
type outlet struct {
	Counters Counters
	sink     Sink
	ctx      context.Context
}

// hit hands a record over. What was counted before is in the counters.
func (o *outlet) hit(r *flow.Record, k uint64) {
	add(&o.Counters.Hits, 1)
	h := Hit{Record: *r, Selected: k}
	select {
	case o.sink.Hits <- h:
		return
	default:
	}
	if o.sink.Wait {
		select {
		case o.sink.Hits <- h:
			return
		case <-o.ctx.Done():
		}
	}
	add(&o.Counters.Lost, 1)
}

// add is for counters with one writer: it is cheaper than an atomic addition.
func add(c *atomic.Uint64, n uint64) {
	if n != 0 {
		c.Store(sum(c.Load(), n))
	}
}
