// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"net/netip"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
)

// Exporters counts by exporter, in a table of fixed size: of more exporters, the
// one that was silent for the longest time makes room. It is written by the
// feed's goroutine alone and may be read by others meanwhile.
type Exporters struct {
	slots   *lru.Table[[16]byte]
	entries []entry
	forgot  atomic.Uint64
}

// An entry is read again if its generation was odd or has changed.
type entry struct {
	generation atomic.Uint32
	addr       [2]atomic.Uint64
	source     atomic.Uint32 // protocol and version of the last datagram
	interval   atomic.Uint32 // of the last record
	last       atomic.Int64
	datagrams  atomic.Uint64
	records    atomic.Uint64
	packets    atomic.Uint64
	bytes      atomic.Uint64
	drops      [Reasons]atomic.Uint64
}

// An Exporter is what is known of one.
type Exporter struct {
	Addr      netip.Addr
	Source    flow.Source // of its last datagram that held a record
	Interval  uint32      // sampling interval of its last record; 0: not told
	Last      int64       // when it was last heard, Unix seconds
	Datagrams uint64
	Records   uint64
	Packets   uint64 // times the sampling interval
	Bytes     uint64 // likewise
	// Drops of its datagrams. Data that waited for a template count for whoever's
	// data needed their place.
	Drops [Reasons]uint64
}

func newExporters(size int) *Exporters {
	return &Exporters{slots: lru.New[[16]byte](size), entries: make([]entry, size)}
}

// of returns the entry of an address.
func (x *Exporters) of(addr netip.Addr) *entry {
	a := addr.As16()
	slot, outcome := x.slots.Put(a)
	e := &x.entries[slot]
	if outcome == lru.Found {
		return e
	}
	if outcome == lru.Replaced {
		x.forgot.Add(1)
	}
	e.generation.Add(1)
	for i := range e.addr {
		n := uint64(0)
		for _, b := range a[8*i : 8*i+8] {
			n = n<<8 | uint64(b)
		}
		e.addr[i].Store(n)
	}
	e.source.Store(0)
	e.interval.Store(0)
	e.last.Store(0)
	for _, c := range []*atomic.Uint64{&e.datagrams, &e.records, &e.packets, &e.bytes} {
		c.Store(0)
	}
	for i := range e.drops {
		e.drops[i].Store(0)
	}
	e.generation.Add(1)
	return e
}

// Forgotten returns how many exporters made room for others.
func (x *Exporters) Forgotten() uint64 { return x.forgot.Load() }

// List returns what is known of each exporter, in no order.
func (x *Exporters) List() (list []*Exporter) {
	for i := range x.entries {
		if e, ok := x.entries[i].read(); ok {
			list = append(list, &e)
		}
	}
	return list
}

// read returns what stands in an entry, unless it is free or changes hands all
// the time.
func (e *entry) read() (x Exporter, ok bool) {
	for range 10 {
		generation := e.generation.Load()
		if generation == 0 {
			return x, false
		}
		var a [16]byte
		for i := range e.addr {
			for n, j := e.addr[i].Load(), 7; j >= 0; j, n = j-1, n>>8 {
				a[8*i+j] = byte(n)
			}
		}
		source := e.source.Load()
		x = Exporter{
			Addr:      netip.AddrFrom16(a).Unmap(),
			Source:    flow.Source{Protocol: flow.Protocol(source >> 8), Version: uint8(source)},
			Interval:  e.interval.Load(),
			Last:      e.last.Load(),
			Datagrams: e.datagrams.Load(),
			Records:   e.records.Load(),
			Packets:   e.packets.Load(),
			Bytes:     e.bytes.Load(),
		}
		for r := range x.Drops {
			x.Drops[r] = e.drops[r].Load()
		}
		if generation%2 == 0 && e.generation.Load() == generation {
			return x, true
		}
	}
	return x, false
}
