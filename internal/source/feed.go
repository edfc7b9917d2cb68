// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"math"
	"net/netip"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/sflow"
)

// Options of a Feed.
type Options struct {
	Draw Draw
	Sink Sink
	// Detector may be nil. Interfaces are those of exporters of which one knows
	// where they lead.
	Detector   *evidence.Detector
	Interfaces []evidence.ExporterInterface
	// Exporters is how many are remembered, at least 1: their templates, their
	// sampling, their counters.
	Exporters int
	// Intervals are the sampling intervals of exporters that do not tell. The
	// first that holds the exporter's address counts.
	Intervals []Interval
}

// An Interval is the sampling interval of exporters: 1 packet in N.
type Interval struct {
	Exporters netip.Prefix
	N         uint32
}

// A Feed takes flow export datagrams to the selector. It belongs to one
// goroutine; its Counters and Exporters do not.
type Feed struct {
	outlet
	Exporters *Exporters

	o       Options
	netflow *netflow.Decoder
	sflow   *sflow.Decoder
	emit    func(*flow.Record)
	dropped [netflow.Drops]uint64 // of the decoder, before the datagram at hand
	evicted uint64                // likewise
	samples sflow.Stats           // likewise

	// Of the datagram at hand.
	from                    netip.Addr
	now                     int64                         // ms since the Unix epoch
	interfaces              []*evidence.ExporterInterface // of from
	records, packets, bytes uint64
	entry                   *entry
	last                    *flow.Record
}

// NewFeed returns a feed.
func NewFeed(ctx context.Context, o Options) *Feed {
	f := &Feed{outlet: outlet{sink: o.Sink, ctx: ctx}, o: o,
		netflow: netflow.NewDecoder(o.Exporters), sflow: sflow.NewDecoder(), Exporters: newExporters(o.Exporters)}
	f.emit = f.record
	return f
}

// receive takes one flow export datagram, which came from that address and port
// at that time, in Unix seconds, and counts what is wrong with it. It keeps
// nothing of the datagram.
func (f *Feed) receive(from netip.AddrPort, now int64, b []byte) {
	if from.Addr() != f.from || f.entry == nil {
		f.from = from.Addr()
		f.entry = f.Exporters.of(f.from)
		f.netflow.Interval = f.intervalOf(f.from)
		f.sflow.Interval = f.netflow.Interval
		f.interfaces = f.interfaces[:0]
		for i := range f.o.Interfaces {
			if x := &f.o.Interfaces[i]; x.Exporters.Contains(f.from) {
				f.interfaces = append(f.interfaces, x)
			}
		}
	}
	f.now = now * 1000
	if f.o.Detector != nil {
		f.o.Detector.Sync()
	}
	f.entry.last.Store(now)
	var err error
	// The first two bytes are the version of all NetFlow, and of sFlow 0.
	if len(b) >= 2 && b[0] == 0 && b[1] == 0 {
		f.last = f.sflow.Last()
		err = f.sflow.Decode(b, f.emit)
	} else {
		f.last = f.netflow.Last()
		err = f.netflow.Decode(from, b, f.emit)
	}
	f.flush()
	reason := Reasons
	if err != nil {
		reason = reasonOf(err)
		f.drop(reason, 1)
	}
	if err == nil || reason == Cut || reason == Damaged {
		add(&f.Counters.Datagrams, 1)
		add(&f.entry.datagrams, 1)
	}
	f.count()
}

// count counts what the decoders dropped of a datagram.
func (f *Feed) count() {
	if f.dropped != f.netflow.Dropped {
		for i, n := range f.netflow.Dropped {
			f.drop(dropReasons[i], n-f.dropped[i])
		}
		f.dropped = f.netflow.Dropped
	}
	if n := f.netflow.Evicted(); n != f.evicted {
		f.evicted = n
		f.Counters.Evicted.Store(n)
	}
	if s := &f.sflow.Stats; *s != f.samples {
		f.drop(NoFlow, s.NoFlow-f.samples.NoFlow)
		f.Counters.Untaken.Store(s.Drops)
		f.samples = *s
	}
}

// finish counts what was held back and will never be read.
func (f *Feed) finish() {
	add(&f.Counters.Drops[NoTemplate], f.netflow.Held())
}

func (f *Feed) drop(r Reason, n uint64) {
	if n != 0 {
		add(&f.Counters.Drops[r], n)
		add(&f.entry.drops[r], n)
	}
}

func (f *Feed) intervalOf(a netip.Addr) uint32 {
	for i := range f.o.Intervals {
		if f.o.Intervals[i].Exporters.Contains(a) {
			return f.o.Intervals[i].N
		}
	}
	return 0
}

func (f *Feed) record(r *flow.Record) {
	packets, bytes := r.Packets, r.Bytes
	if r.Interval > 1 {
		packets, bytes = scale(packets, r.Interval), scale(bytes, r.Interval)
	}
	f.records++
	if packets|bytes < most {
		f.packets += packets
		f.bytes += bytes
	} else {
		f.packets += min(packets, most)
		f.bytes += min(bytes, most)
	}
	if f.o.Detector != nil {
		var guard *evidence.Guard // of the interface where the packets came in
		for _, i := range f.interfaces {
			if i.Index == r.Ingress && r.Known&flow.HasIngress != 0 {
				guard = i.Guard()
				break
			}
		}
		if s := f.o.Detector.Record(guard, r, packets, f.now); s != 0 {
			if k := f.o.Draw.selectors[1].Take(packets); k != 0 {
				f.selected(r, k, s)
			}
			return
		}
	}
	if k := f.o.Draw.selectors[0].Take(packets); k != 0 {
		f.selected(r, k, 0)
	}
}

// selected hands over a record of which packets were chosen.
func (f *Feed) selected(r *flow.Record, k uint64, s evidence.Reasons) {
	f.flush() // what the sender may spend must not lag behind the hit
	f.hit(Hit{Record: *r, Selected: k, Rate: f.o.Draw.rates[of(s)], Suspicion: s, Exporter: f.from})
}

// most is the largest count of a record that is added up, so that those of one
// datagram cannot overflow: exporters can claim any number.
const most = 1 << 50

// scale multiplies a count by a sampling interval and saturates.
func scale(n uint64, interval uint32) uint64 {
	if n > math.MaxUint64/uint64(interval) {
		return math.MaxUint64
	}
	return n * uint64(interval)
}

// sum adds two counts and saturates.
func sum(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// flush adds to the shared counters once a datagram: an atomic addition a
// record would cost more than its decoding.
func (f *Feed) flush() {
	if f.records == 0 {
		return
	}
	add(&f.Counters.Records, f.records)
	add(&f.Counters.Packets, f.packets)
	add(&f.Counters.Bytes, f.bytes)
	e := f.entry
	add(&e.records, f.records)
	add(&e.packets, f.packets)
	add(&e.bytes, f.bytes)
	r := f.last
	e.source.Store(uint32(r.Source.Protocol)<<8 | uint32(r.Source.Version))
	e.interval.Store(r.Interval)
	f.records, f.packets, f.bytes = 0, 0, 0
}
