// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/packet"
)

// A Watch takes packets, one by one, through a flow table to the selector. It
// belongs to one goroutine; its Counters do not.
type Watch struct {
	outlet
	table    *flowtable.Table
	detector *evidence.Detector // nil: nothing is suspected
	turn     int                // which of the packets at hand is the sample for the rate

	// Packets at hand: one, or as many as may gather, whose entries in the table
	// are touched meanwhile.
	packets [16]flowtable.Packets
	quoted  [16]flow.Key // of ICMP: what an error is about
	views   [16]*view
	n       int                // that have gathered
	at      *flowtable.Packets // the next one
	gather  bool

	// What is not yet in the counters, nor in those of the interface at hand if
	// it has any.
	also        *counted
	seen, bytes uint64
	drops       [Reasons]uint64
	dropped     bool
}

// counted is what an interface has seen, times thin.
type counted struct{ packets, bytes atomic.Uint64 }

// NewWatch returns a watch with a table of so many flows. The detector may be nil.
func NewWatch(ctx context.Context, sink Sink, flows int, detector *evidence.Detector) *Watch {
	w := &Watch{outlet: outlet{sink: sink, ctx: ctx}, table: flowtable.New(flows), detector: detector}
	w.at = &w.packets[0]
	return w
}

// Remember has flows that begin be told to e. It must be called before the watch
// sees packets.
func (w *Watch) Remember(e *flowtable.Ends) { w.table.Remember(e) }

// A view is how packets are seen at one port of the flow table.
type view struct {
	port flowtable.Port
	link packet.LinkType
	// thin is N if 1 packet in N comes here, so that each counts as N. The chance
	// of the selector is the higher.
	thin  uint32
	draw  Draw
	guard *evidence.Guard // of what comes in, or nil
	// record holds what all records of the port have alike.
	record flow.Record
}

// see takes a frame, of which data was captured and length bytes were there, at
// a time in ms since the Unix epoch. The tag is the identifier of a VLAN that is no
// longer in data, times 65536, plus the size of segments, if the frame stands for
// some: see packet.Segments. It is counted at the latest with flush, which has to
// come before frames of a view with another thin.
func (w *Watch) see(v *view, data []byte, length uint32, time int64, tag uint32) {
	p := w.at
	if err := packet.Parse(v.link, data, &p.Packet); err != nil {
		w.drops[packetReason(err)]++
		w.dropped = true
		return
	}
	p.Port, p.Time, p.Count, p.Bytes = v.port, time, 1, uint64(p.Packet.Bytes)
	if p.Known&flow.HasBytes == 0 || tag != 0 {
		if tag>>16 != 0 {
			p.VLAN = uint16(tag >> 16)
		}
		measure(p, data, length, uint16(tag))
	}
	if w.detector != nil && (p.Protocol == protoICMP || p.Protocol == protoICMPv6) {
		w.quoted[w.n], _ = packet.Quoted(v.link, data)
	}
	if w.gather {
		w.table.Touch(p)
		w.views[w.n] = v
		if w.n++; w.n == len(w.packets) {
			w.settle()
		}
		w.at = &w.packets[w.n]
		return
	}
	w.seen += uint64(p.Count)
	w.bytes += p.Bytes
	e := w.table.Add(p)
	s := v.draw.selectors[0]
	if w.detector != nil {
		if evidence.Pending(e.Suspicion) {
			w.detector.Look(v.guard, w.table, p, e, &w.quoted[0], v.thin > 1)
		}
		if w.turn++; w.turn%evidence.SampleRate == 0 {
			w.detector.Sample(p, e, v.thin)
		}
		if evidence.Of(e.Suspicion) != 0 {
			s = v.draw.selectors[1]
		}
	}
	if k := s.Take(uint64(p.Count)); k != 0 {
		w.selected(v, e, k)
	}
}

// Protocol numbers of IANA.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// settle counts the packets that have gathered.
func (w *Watch) settle() {
	packets := w.packets[:w.n]
	w.n, w.at = 0, &w.packets[0]
	for i := range packets {
		w.table.TouchAgain(&packets[i])
	}
	w.turn = (w.turn + 5) % evidence.SampleRate // each place in its turn, however many have gathered
	for i := range packets {
		p, v := &packets[i], w.views[i]
		w.seen += uint64(p.Count)
		w.bytes += p.Bytes
		e := w.table.Add(p)
		s := v.draw.selectors[0]
		if w.detector != nil {
			if evidence.Pending(e.Suspicion) {
				w.detector.Look(v.guard, w.table, p, e, &w.quoted[i], v.thin > 1)
			}
			if i == w.turn {
				w.detector.Sample(p, e, v.thin)
			}
			if evidence.Of(e.Suspicion) != 0 {
				s = v.draw.selectors[1]
			}
		}
		if k := s.Take(uint64(p.Count)); k != 0 {
			w.selected(v, e, k)
		}
	}
}

// selected hands over a flow of which packets were chosen.
func (w *Watch) selected(v *view, e *flowtable.Entry, k uint64) {
	w.publish(v) // what the sender may spend must not lag behind the hit
	r := v.record
	e.Fill(&r)
	r.Interval = v.thin
	s := evidence.Of(e.Suspicion)
	w.hit(Hit{Record: r, Selected: k, Rate: v.draw.rates[of(s)], Suspicion: s})
}

// measure counts the bytes that the header does not tell, and the packets that
// one stands for.
func measure(p *flowtable.Packets, data []byte, length uint32, segment uint16) {
	if p.Known&flow.HasBytes == 0 && length > uint32(len(data)) {
		p.Packet.Bytes += length - uint32(len(data)) // see packet.Packet
	}
	p.Count, p.Bytes = p.Segments(segment)
}

// flush counts all that was seen of a view.
func (w *Watch) flush(v *view) {
	w.settle()
	w.publish(v)
}

// publish adds what was seen of a view to the shared counters, once for many
// packets.
func (w *Watch) publish(v *view) {
	packets, bytes := w.seen*uint64(v.thin), w.bytes*uint64(v.thin)
	add(&w.Counters.Packets, packets)
	add(&w.Counters.Bytes, bytes)
	if w.also != nil {
		add(&w.also.packets, packets)
		add(&w.also.bytes, bytes)
	}
	w.seen, w.bytes = 0, 0
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
