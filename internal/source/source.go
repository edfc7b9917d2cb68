// SPDX-License-Identifier: BSD-3-Clause

// Package source brings flow records from where they are, a capture file,
// exporters that send datagrams, or the packets of an interface, past the
// selector. It is the hot side: one goroutine a source, no locks, no allocation
// and no logging per record. What is selected crosses to the cold side as a Hit.
package source

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/selector"
)

// A Hit is a record of which packets were selected.
type Hit struct {
	Record   flow.Record
	Selected uint64
	// Rate is the chance that each packet of the record had.
	Rate float64
	// Suspicion are the reasons why that chance was the higher one.
	Suspicion evidence.Reasons
	// Exporter is the one that the record came from, if one did.
	Exporter netip.Addr
}

// A Draw selects packets of suspected flows with one chance, and all others with
// another: each packet with that of its kind, independently. So the estimates of both
// are without bias, and so is their sum.
type Draw struct {
	selectors [2]*selector.Selector
	rates     [2]float64
}

// NewDraw returns a draw of two chances. A suspected flow's is boosted.
func NewDraw(rate, boosted float64, selector func(p float64) (*selector.Selector, error)) (d Draw, err error) {
	for i, p := range [...]float64{rate, max(boosted, rate)} {
		d.rates[i] = p
		if d.selectors[i], err = selector(p); err != nil {
			return d, err
		}
	}
	return d, nil
}

// of returns which selector is that of flows with reasons, or without.
func of(s evidence.Reasons) int {
	if s != 0 {
		return 1
	}
	return 0
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
func (o *outlet) hit(h Hit) {
	add(&o.Counters.Hits, 1)
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
