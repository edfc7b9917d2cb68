// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
)

// Limits of one template. Real ones have up to about 100 fields.
const (
	maxFields = 512
	// maxRecord is more than any datagram can carry.
	maxRecord = 65535 - 20
	// maxOps are the fields of use, and the runs of fields of variable length.
	maxOps = 64
	// variable is the length of a field that each record tells (RFC 7011,
	// section 7). Some exporters of v9 have it too, where no other field could
	// be so long.
	variable = 0xffff
)

// Where the fields of a record stand when it is read: in a window of the decoder
// into which it was copied, so that an offset fits in a byte and needs no check.
// At nowhere are 16 bytes that are always zero: what a template has not is read
// there.
const (
	nowhere = 240
	window  = 256 + 16
)

// A place is where a field stands in the window: at off, and as many bits of the
// 32 or 64 there belong to others as shift says.
type place struct{ off, shift uint8 }

// An op brings a field of a record that does not fit into the window there: size
// bytes at from, which counts from the last field of variable length before, or
// from the record's begin. If the size is skip, it is a run of fields of variable
// length at from, as many as to says.
type op struct {
	from     uint16
	to, size uint8
}

const skip = 0xff

// A template says how a data record lies in its bytes, compiled to what we read
// of it. It is free of pointers.
type template struct {
	definition uint64 // hash of what it was compiled from
	domain     uint64 // number of the domain it belongs to
	slot       int    // of that domain, while it has it

	// What its records are.
	options   bool // of no flow: they say something of the exporter
	flow      bool // they have the addresses of one
	packet    bool // they have a packet instead
	counted   bool // they have a number of packets
	biflow    bool
	initiator bool        // they count from the initiator of a connection
	family    flow.Family // 0: each record tells
	outer     flow.Family // whose addresses come first, if there are those of both

	// What they tell.
	fields      slotSet
	known       flow.Field // by the forward record
	backKnown   flow.Field // and by the reverse one
	icmp        bool       // type and code
	sampled     bool       // their sampling interval
	byInterface bool       // options: that of an interface
	special     bool       // something that special reads

	// How they tell it.
	startUnit, endUnit, durationUnit, backStart, backEnd unit

	bothUnits      unit // of start and end, if it is one; else plain
	timed          bool // a time is a timeval
	single         bool // a probability has 4 bytes
	dscp, backDSCP bool // instead of the TOS

	// Where it stands.
	size     uint16 // bytes of the shortest record
	variable bool   // there are fields of variable length
	short    bool   // records fit into the window as they are
	section  extent // of the packet
	places   [slots]place
	count    uint8 // of the ops, if it is not short
	ops      [maxOps]op
}

// An extent is where a part of a packet stands in a record: behind so many
// fields of variable length, at from; or, if its size is variable, in the field
// behind so many others. Without one the size is 0.
type extent struct {
	unit      unit
	variables uint16
	from      uint16
	size      uint16
}

// A definition is the body of a template record: its fields, scope first.
type definition struct {
	fields     []byte // 4 bytes each, 8 with an enterprise number
	count      int    // of the fields
	scope      int    // of the first ones
	options    bool
	enterprise bool // the upper bit of a field's type says that a number follows: IPFIX
}

// field is the best that a definition has for a slot.
type field struct {
	element
	off, size uint16
	variables int // fields of variable length before it
	set       bool
}

// before tells whether a field stands before another one.
func (f *field) before(g *field) bool {
	return f.variables < g.variables || f.variables == g.variables && f.off < g.off
}

// compile fills in the template. It returns false if the definition is refused:
// no fields or too many, or records of no bytes or too many.
func (d *definition) compile(t *template) bool {
	if d.count == 0 || d.count > maxFields {
		return false
	}
	*t = template{options: d.options}
	var best [slots]field
	var gaps [maxFields]uint16 // bytes before each field of variable length since the one before
	variables, off, size := 0, 0, 0
	b := d.fields
	for i := range d.count {
		id, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		e := element{}
		switch {
		case d.enterprise && id&0x8000 != 0:
			if binary.BigEndian.Uint32(b) == reversePEN {
				e = reverseOf(id & 0x7fff)
			}
			b = b[4:]
		case i < d.scope && !d.enterprise:
			// RFC 3954, section 6.1, numbers the scopes by itself.
			if id == 2 {
				e = element{slot: ingress}
			}
		default:
			e = elementOf(id)
		}
		if i < d.scope && e.slot == ingress {
			t.byInterface = true
		}
		if length == variable {
			if e.slot == section && (t.section.size == 0 || e.rank == 0) {
				t.section = extent{e.unit, uint16(variables), 0, variable}
			}
			gaps[variables] = uint16(off)
			variables++
			size += off + 1
			off = 0
			continue
		}
		if e.unit == ntp && length == 16 {
			e.unit = timeval
		}
		if e.slot == section {
			if e.fits(length) && (t.section.size == 0 || e.rank == 0) {
				t.section = extent{e.unit, uint16(variables), uint16(off), uint16(length)}
			}
			e = element{}
		}
		if f := &best[e.slot]; e.fits(length) && (!f.set || e.rank < f.rank) {
			*f = field{element: e, off: uint16(off), size: uint16(length), variables: variables, set: true}
		}
		if off += length; size+off > maxRecord {
			return false
		}
	}
	if size += off; size == 0 || size > maxRecord {
		return false
	}
	if best[packets].set && best[postPackets].rank != 0 {
		// A total does not stand in for the count of a while.
		best[postPackets], best[postOctets] = field{}, field{}
	}
	t.size, t.variable = uint16(size), variables > 0
	for s := range best {
		if best[s].set && t.wants(slot(s)) {
			t.fields |= 1 << s
		}
	}
	t.describe(&best)
	return t.arrange(&best, gaps[:variables])
}

// wants tells whether a slot of the template is of use.
func (t *template) wants(s slot) bool {
	return !t.options || s >= selectorID || s == bootTime || s == ingress && t.byInterface
}

// arrange finds the places of the fields. It returns false if they are too many.
func (t *template) arrange(best *[slots]field, gaps []uint16) bool {
	for s := range t.places {
		t.places[s] = place{off: nowhere}
	}
	if t.short = !t.variable && t.size <= nowhere && !t.packet; t.short {
		for s := range best {
			if f := &best[s]; t.fields.has(slot(s)) {
				from, size := f.lower()
				t.places[s] = f.at(int(from), size)
			}
		}
		return true
	}
	n, to := 0, 0
	add := func(o op) {
		if n < maxOps {
			t.ops[n] = o
		}
		n++
	}
	for v := 0; v <= len(gaps); v++ {
		for s := range best {
			f := &best[s]
			if f.variables != v || !t.fields.has(slot(s)) {
				continue
			}
			from, size := f.lower()
			if to+size > nowhere {
				return false
			}
			add(op{from, uint8(to), uint8(size)})
			t.places[s] = f.at(to, size)
			to += size
		}
		if v == len(gaps) {
			break
		}
		if last := &t.ops[max(n-1, 0)%maxOps]; n > 0 && gaps[v] == 0 && last.size == skip && last.to < 255 {
			last.to++
			continue
		}
		add(op{gaps[v], 1, skip})
	}
	t.count = uint8(n)
	return n <= maxOps
}

// lower returns which bytes of the field are read.
func (f *field) lower() (from uint16, size int) {
	size = int(f.size)
	if f.slot >= numbers && !isLong(f.slot) {
		size = min(size, 4)
	}
	return f.off + f.size - uint16(size), size
}

// at returns the place of a field of so many bytes at an offset of the window.
func (f *field) at(off, size int) place {
	bits := 32
	if isLong(f.slot) {
		bits = 64
	}
	return place{uint8(off), uint8(max(bits-8*size, 0))}
}

// describe fills in what is static of the template's records.
func (t *template) describe(best *[slots]field) {
	has := t.fields
	for s := range slots {
		switch {
		case !has.has(s):
		case s < backPackets:
			t.known |= knownBy[s]
		default:
			t.backKnown |= knownBy[s]
		}
	}
	v4, v6 := has.hasAll(src4, dst4), has.hasAll(src6, dst6)
	switch {
	case v4 && !v6:
		t.family = flow.IPv4
	case v6 && !v4:
		t.family = flow.IPv6
	case best[src4].before(&best[src6]):
		t.outer = flow.IPv4
	default:
		t.outer = flow.IPv6
	}
	t.flow = (v4 || v6) && !t.options
	t.packet = !t.flow && !t.options && t.section.size != 0
	if has.hasAll(srcPort, dstPort) {
		t.known |= flow.HasPorts
	}
	if has.hasAll(translatedSrcPort, translatedDstPort) {
		t.known |= flow.HasTranslatedPorts
	}
	t.icmp = has.has(icmp) || has.hasAll(icmpType, icmpCode)
	t.biflow = has.has(backPackets)
	t.initiator = has.has(packets) && best[packets].rank == elementOf(298).rank
	t.counted = has.has(packets) || has.has(postPackets) || t.biflow
	t.sampled = has.has(spacedInterval) || has.hasAll(sampleSize, samplePopulation) || has&(1<<probability|1<<interval|1<<samplingInterval) != 0
	t.startUnit, t.endUnit, t.durationUnit = best[start].unit, best[end].unit, best[duration].unit
	t.backStart, t.backEnd = best[backStart].unit, best[backEnd].unit
	t.dscp, t.backDSCP = best[tos].unit == dscp, best[backTOS].unit == dscp
	for _, s := range []slot{start, end, backStart, backEnd} {
		t.timed = t.timed || has.has(s) && best[s].unit == timeval
	}
	if has.hasAll(start, end) && t.startUnit == t.endUnit {
		t.bothUnits = t.startUnit
	}
	t.special = t.dscp || t.icmp || has.has(bootTime) || has&(translated|post) != 0
	t.single = best[probability].size == 4
}

// isTimeval tells whether a slot of a time is a timeval.
func (t *template) isTimeval(s slot) bool {
	if !t.fields.has(s) {
		return false
	}
	switch s {
	case start:
		return t.startUnit == timeval
	case end:
		return t.endUnit == timeval
	case backStart:
		return t.backStart == timeval
	}
	return t.backEnd == timeval
}
