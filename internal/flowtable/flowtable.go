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
	"math"
	"math/bits"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

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

// The same in ms.
const (
	idle   = int64(Idle / time.Millisecond)
	active = int64(Active / time.Millisecond)
)

// A Table is not safe for concurrent use.
type Table struct {
	// Flows is how many began. Evicted is how many of them made room for others
	// before they were over.
	Flows, Evicted uint64
	// Hash is the one of the key that was added last: see HashOf.
	Hash uint64

	seed  seed
	sets  []set
	clock uint32 // counts packets
	ends  *Ends  // nil: nobody asks
}

// set is where a key may be.
type set struct {
	// tags are parts of the hashes, 8 bits of each entry, the first one lowest:
	// they tell most of the entries apart without touching them.
	tags    uint64
	seen    [ways]uint32 // Table.clock of the last packet
	entries [ways]Entry
}

// An Entry is one direction of a flow at one port. It has 72 bytes, which with
// its share of the set makes 77.
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
	// Suspicion is for who looks at the flow; 0 when it begins.
	Suspicion uint16
}

// A Port is where packets are seen, and in which direction. A flow is one of
// its port: what is seen at two of them is counted at each.
type Port uint8

// Those bits of flow.Record.Known that an entry has.
const fields = flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasTTL

// Packets as they are added to a flow.
type Packets struct {
	// Packet tells the key and what else there is of the headers; its Bytes are
	// not looked at.
	packet.Packet
	Port  Port
	Count uint32
	Bytes uint64 // of layer 3, of all of them
	Time  int64  // ms since the Unix epoch

	set     uint32 // see Touch
	touched uint64
}

// New returns a table of that many flows, at least 1, rounded up to whole sets. It is
// not in Go's heap, which would clear it at once: memory where no flow ever was is not
// taken from the system. Nor does it let the garbage grow, which may be a share of the
// heap.
func New(flows int) *Table {
	n := (max(flows, 1) + ways - 1) / ways
	t := &Table{seed: newSeed()}
	memory, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(set{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.sets = make([]set, n)
		return t
	}
	t.sets = unsafe.Slice((*set)(unsafe.Pointer(&memory[0])), n)
	runtime.SetFinalizer(t, func(*Table) { unix.Munmap(memory) })
	return t
}

// Remember has a table tell which flows begin. It must be called before packets
// are added.
func (t *Table) Remember(e *Ends) { t.ends = e }

// Size returns the number of flows for which there is room.
func (t *Table) Size() int { return len(t.sets) * ways }

// Each byte of a word, and its top bit.
const ones, tops = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080

// Add counts packets and returns the entry of their flow, which is valid until
// the next call. It does not allocate.
func (t *Table) Add(p *Packets) *Entry {
	b, r := words(&p.Key), &t.seed
	hash := r.sum(b, &p.Key)
	if p.Family != flow.IPv4 {
		hash += r.rest(b)
	}
	hash = r.mix(hash)
	t.Hash = hash
	s := &t.sets[hash>>32*uint64(len(t.sets))>>32]
	tag := hash >> 24 & 0xff // other bits than the set's, unless there are very many of them
	t.clock++
	// The lanes of the tag become zero, and get their top bit set; so perhaps do
	// some above them.
	x := s.tags ^ tag*ones
	for found := (x - ones) &^ x & tops; found != 0; found &= found - 1 {
		w := bits.TrailingZeros64(found) / 8 % ways
		e := &s.entries[w]
		a := words(&e.Key)
		if (a[0]^b[0])|(a[4]^b[4]) == 0 && (e.SrcPort^p.SrcPort)|(e.DstPort^p.DstPort) == 0 &&
			(e.Protocol^p.Protocol)|uint8(e.Family^p.Family)|uint8(e.port^p.Port) == 0 && e.packets != 0 && (p.Family == flow.IPv4 || e.Key == p.Key) {
			s.seen[w] = t.clock
			e.add(t, p)
			return e
		}
	}
	return t.replace(s, tag, p)
}

// HashOf returns a hash of a key, with a secret seed; the upper 40 bits are good.
func (t *Table) HashOf(key *flow.Key) uint64 {
	aligned := struct {
		flow.Key
		_ uint32
	}{Key: *key}
	b, r := words(&aligned.Key), &t.seed
	hash := r.sum(b, key)
	if key.Family != flow.IPv4 {
		hash += r.rest(b)
	}
	return r.mix(hash)
}

// Has tells whether there is a flow of a key, which has that hash, at a port.
func (t *Table) Has(k *flow.Key, hash uint64, port Port) bool {
	s := &t.sets[hash>>32*uint64(len(t.sets))>>32]
	x := s.tags ^ hash>>24&0xff*ones
	for found := (x - ones) &^ x & tops; found != 0; found &= found - 1 {
		e := &s.entries[bits.TrailingZeros64(found)/8%ways]
		if e.port == port && e.packets != 0 && e.Key == *k {
			return true
		}
	}
	return false
}

// Touch begins to load what Add will look at, which most processors do while they
// go on. To wait for it can take as long as all the rest. It is of use when the
// packets of some other flows are touched before Add; and then once more, when
// what was touched first is there.
func (t *Table) Touch(p *Packets) {
	b, r := words(&p.Key), &t.seed
	hash := r.sum(b, &p.Key)
	if p.Family != flow.IPv4 {
		hash += r.rest(b)
	}
	hash = r.mix(hash)
	p.set = uint32(hash >> 32 * uint64(len(t.sets)) >> 32)
	p.touched = t.sets[p.set].tags ^ hash>>24&0xff*ones
}

// TouchAgain is for packets that were touched.
func (t *Table) TouchAgain(p *Packets) {
	if found := (p.touched - ones) &^ p.touched & tops; found != 0 {
		p.touched = uint64(t.sets[p.set].entries[bits.TrailingZeros64(found)/8%ways].packets)
	}
}

// replace gives the packets' flow the entry that was not seen for the longest
// time.
func (t *Table) replace(s *set, tag uint64, p *Packets) *Entry {
	oldest, age := 0, t.clock-s.seen[0]
	for w := 1; w < ways; w++ {
		if a := t.clock - s.seen[w]; a > age {
			oldest, age = w, a
		}
	}
	s.tags = s.tags&^(0xff<<(8*oldest)) | tag<<(8*oldest)
	s.seen[oldest] = t.clock
	e := &s.entries[oldest]
	if e.packets != 0 && !e.over(p.Time) {
		t.Evicted++
	}
	e.Key, e.port = p.Key, p.Port
	e.begin(t, p)
	return e
}

// Forget ends the flows of a port.
func (t *Table) Forget(port Port) {
	if t.Flows == 0 {
		return // and the memory need not be taken from the system yet
	}
	for i := range t.sets {
		s := &t.sets[i]
		for w := range s.entries {
			if s.entries[w].port == port {
				s.entries[w].packets = 0
				s.seen[w] = t.clock - math.MaxUint32/2
			}
		}
	}
}

// over tells whether a packet of that time is of another flow than the one
// before it.
func (e *Entry) over(now int64) bool {
	age := now - e.first
	// A clock may also be set back.
	return age-int64(e.duration) > idle || age > active || age < -idle
}

func (e *Entry) begin(t *Table, p *Packets) {
	t.Flows++
	if t.ends != nil {
		t.ends.add(&e.Key)
	}
	e.known, e.vlan, e.tos, e.tcpFlags = uint8(p.Known&fields), p.VLAN, p.TOS, p.TCPFlags
	e.ttl, e.maxTTL = p.TTL, p.TTL
	e.first, e.duration = p.Time, 0
	e.packets, e.bytes = p.Count, p.Bytes
	e.Suspicion = 0
}

func (e *Entry) add(t *Table, p *Packets) {
	age := p.Time - e.first
	if uint64(age)-uint64(e.duration) <= uint64(idle) && age <= active {
		e.duration = uint32(age)
	} else if !e.turn(p.Time) {
		e.begin(t, p)
		return
	}
	if e.packets += p.Count; e.packets < p.Count { // full
		e.begin(t, p)
		return
	}
	e.bytes += p.Bytes
	if known := uint8(p.Known & fields); known != e.known {
		e.known |= known
	}
	if p.TCPFlags != e.tcpFlags {
		e.tcpFlags |= p.TCPFlags
	}
	if p.TTL < e.ttl {
		e.ttl = p.TTL
	} else if p.TTL > e.maxTTL {
		e.maxTTL = p.TTL
	}
}

// turn is for a packet that comes out of turn, and tells whether it is of the
// flow at all.
func (e *Entry) turn(now int64) bool {
	if e.over(now) {
		return false
	}
	if age := now - e.first; age < 0 {
		e.first, e.duration = now, e.duration+uint32(-age)
	}
	return true
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
