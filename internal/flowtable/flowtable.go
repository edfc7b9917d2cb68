// SPDX-License-Identifier: BSD-3-Clause

// Package flowtable keeps what was seen of the flows that pass, in a table of
// fixed size: all memory is taken at the start, whatever comes.
//
// A key belongs to one set of 8 entries, found by a hash with a random seed, so
// that nobody who does not know the seed can aim at a set. In a full set a new
// flow takes the place of the one that was not seen for the longest time. What
// the table forgets costs a flow the counts it had so far, and nothing else:
// packets are selected whether they are in the table or not.
package flowtable

import (
	"hash/maphash"
	"math"
	"time"
	"unsafe"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

// ways is how many entries a set has.
const ways = 8

// A flow ends when it was idle for so long, and begins anew when it was active
// for so long: the defaults of most exporters.
const (
	Idle   = 15 * time.Second
	Active = 30 * time.Minute
)

// A Table is not safe for concurrent use.
type Table struct {
	// Flows is how many began. Evicted is how many of them made room for others
	// before they were over.
	Flows, Evicted uint64

	seed    maphash.Seed
	sets    []set
	entries []Entry // of a set, one behind the other
	clock   uint32  // counts packets
}

// set is what tells the entries of a set apart without touching them.
type set struct {
	tags [ways]uint16 // of the hashes
	seen [ways]uint32 // Table.clock of the last packet
}

// An Entry is one direction of a flow at one port. It has 72 bytes, which with
// its share of the set makes 78.
type Entry struct {
	flow.Key
	known    uint8 // flow.Field, the lowest bits
	port     Port
	bytes    uint64
	first    int64  // ms since the Unix epoch
	duration uint32 // ms, at most Active
	packets  uint32 // 0: not in use
	vlan     uint16
	tos      uint8
	tcpFlags uint8
	ttl      uint8
	maxTTL   uint8
}

// A Port is where packets are seen, and in which direction. A flow is one of
// its port: what is seen at two of them is counted at each.
type Port uint8

// Those bits of flow.Record.Known that an entry has.
const fields = flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasTTL

// Packets as they are added to a flow.
type Packets struct {
	// Packet tells the key and what else there is of the headers.
	*packet.Packet
	Port  Port
	Time  int64 // ms since the Unix epoch
	Count uint32
	Bytes uint64 // of layer 3
}

// New returns a table of that many flows, at least 1, rounded up to whole sets.
func New(flows int) *Table {
	n := (max(flows, 1) + ways - 1) / ways
	return &Table{seed: maphash.MakeSeed(), sets: make([]set, n), entries: make([]Entry, n*ways)}
}

// Size returns the number of flows for which there is room.
func (t *Table) Size() int { return len(t.entries) }

// Add counts packets and returns the entry of their flow, which is valid until
// the next call. It does not allocate.
func (t *Table) Add(p *Packets) *Entry {
	i, tag := t.place(&p.Key)
	s, entries := &t.sets[i], (*[ways]Entry)(t.entries[i*ways:])
	t.clock++
	for w := range s.tags {
		if s.tags[w] == tag {
			if e := &entries[w]; e.Key == p.Key && e.port == p.Port && e.packets != 0 {
				s.seen[w] = t.clock
				e.add(t, p)
				return e
			}
		}
	}
	oldest, age := 0, t.clock-s.seen[0]
	for w := 1; w < ways; w++ {
		if a := t.clock - s.seen[w]; a > age {
			oldest, age = w, a
		}
	}
	s.tags[oldest], s.seen[oldest] = tag, t.clock
	e := &entries[oldest]
	if e.packets != 0 && !e.over(p.Time) {
		t.Evicted++
	}
	e.Key, e.port = p.Key, p.Port
	e.begin(t, p)
	return e
}

// place returns the set of a key, and what tells it from most others there.
func (t *Table) place(k *flow.Key) (set int, tag uint16) {
	hash := maphash.Bytes(t.seed, (*[unsafe.Sizeof(*k)]byte)(unsafe.Pointer(k))[:])
	return int(hash >> 32 * uint64(len(t.sets)) >> 32), uint16(hash)
}

// Forget ends the flows of a port.
func (t *Table) Forget(port Port) {
	for i := range t.entries {
		if t.entries[i].port == port {
			t.entries[i].packets = 0
			t.sets[i/ways].seen[i%ways] = t.clock - math.MaxUint32/2
		}
	}
}

// over tells whether a packet of that time is of another flow than the one
// before it.
func (e *Entry) over(now int64) bool {
	age := now - e.first
	idle := age - int64(e.duration)
	// A clock may also be set back.
	return idle > Idle.Milliseconds() || age > Active.Milliseconds() || age < -Idle.Milliseconds()
}

func (e *Entry) begin(t *Table, p *Packets) {
	t.Flows++
	e.known, e.vlan, e.tos, e.tcpFlags = uint8(p.Known&fields), p.VLAN, p.TOS, p.TCPFlags
	e.ttl, e.maxTTL = p.TTL, p.TTL
	e.first, e.duration = p.Time, 0
	e.packets, e.bytes = p.Count, p.Bytes
}

func (e *Entry) add(t *Table, p *Packets) {
	if e.over(p.Time) || e.packets > math.MaxUint32-p.Count {
		e.begin(t, p)
		return
	}
	if d := p.Time - e.first; d > int64(e.duration) {
		e.duration = uint32(d)
	} else if d < 0 {
		e.first, e.duration = p.Time, e.duration+uint32(-d)
	}
	e.packets += p.Count
	e.bytes += p.Bytes
	e.known |= uint8(p.Known & fields)
	e.tcpFlags |= p.TCPFlags
	e.ttl = min(e.ttl, p.TTL)
	e.maxTTL = max(e.maxTTL, p.TTL)
}

// Fill writes what is known of the flow into a record, whose other fields it
// leaves alone.
func (e *Entry) Fill(r *flow.Record) {
	r.Key = e.Key
	r.Known |= flow.Field(e.known) | flow.HasPackets | flow.HasBytes | flow.HasStart | flow.HasEnd
	if e.vlan != 0 {
		r.Known |= flow.HasVLAN
	}
	r.Packets, r.Bytes = uint64(e.packets), e.bytes
	r.Start, r.End = e.first, e.first+int64(e.duration)
	r.VLAN, r.TOS, r.TCPFlags, r.TTL, r.MaxTTL = e.vlan, e.tos, e.tcpFlags, e.ttl, e.maxTTL
}
