// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/packet"
	"github.com/overflowd/overflowd/internal/selector"
)

// A Watch takes packets, one by one, through a flow table to the selector. It
// belongs to one goroutine; its Counters do not.
type Watch struct {
	outlet
	table *flowtable.Table

	// Of the packet at hand.
	headers packet.Packet
	adding  flowtable.Packets

	// What is not yet in the counters, nor in those of the interface at hand if
	// it has any.
	also           *counted
	packets, bytes uint64
	drops          [Reasons]uint64
	dropped        bool
}

// counted is what an interface has seen, times thin.
type counted struct{ packets, bytes atomic.Uint64 }

// NewWatch returns a watch with a table of so many flows.
func NewWatch(ctx context.Context, sink Sink, flows int) *Watch {
	w := &Watch{outlet: outlet{sink: sink, ctx: ctx}, table: flowtable.New(flows)}
	w.adding.Packet = &w.headers
	return w
}

// Flows returns the number of flows for which there is room.
func (w *Watch) Flows() int { return w.table.Size() }

// A view is how packets are seen at one port of the flow table.
type view struct {
	port flowtable.Port
	link packet.LinkType
	// thin is N if 1 packet in N comes here, so that each counts as N. The chance
	// of the selector is the higher.
	thin     uint32
	selector *selector.Selector
	// record holds what all records of the port have alike.
	record flow.Record
}

// see takes a frame.
func (w *Watch) see(v *view, f *capture.Frame) {
	p := &w.headers
	if err := packet.Parse(v.link, f.Data, p); err != nil {
		w.drops[packetReason(err)]++
		w.dropped = true
		return
	}
	if f.VLAN != 0 {
		p.VLAN = f.VLAN
	}
	if p.Known&flow.HasBytes == 0 && f.Length > uint32(len(f.Data)) {
		p.Bytes += f.Length - uint32(len(f.Data)) // see packet.Packet
	}
	a := &w.adding
	a.Port, a.Time, a.Count, a.Bytes = v.port, f.Time, 1, uint64(p.Bytes)
	if f.Segment != 0 {
		a.Count, a.Bytes = p.Segments(f.Segment)
	}
	e := w.table.Add(a)
	w.packets += uint64(a.Count) * uint64(v.thin)
	w.bytes += a.Bytes * uint64(v.thin)
	if k := v.selector.Take(uint64(a.Count)); k != 0 {
		w.flush() // what the sender may spend must not lag behind the hit
		r := v.record
		e.Fill(&r)
		r.Interval = v.thin
		w.hit(&r, k)
	}
}

// flush adds to the shared counters, once for many packets.
func (w *Watch) flush() {
	add(&w.Counters.Packets, w.packets)
	add(&w.Counters.Bytes, w.bytes)
	if w.also != nil {
		add(&w.also.packets, w.packets)
		add(&w.also.bytes, w.bytes)
	}
	w.packets, w.bytes = 0, 0
	w.Counters.Flows.Store(w.table.Flows)
	w.Counters.Evicted.Store(w.table.Evicted)
	if w.dropped {
		for r := range w.drops {
			add(&w.Counters.Drops[r], w.drops[r])
		}
		w.drops, w.dropped = [Reasons]uint64{}, false
	}
}

// packetReason names an error of packet.Parse.
func packetReason(err error) Reason {
	switch err {
	case packet.ErrNotIP:
		return NotIP
	case packet.ErrLinkType:
		return LinkType
	}
	return Unreadable
}
