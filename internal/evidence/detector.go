// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/prefix"
)

// A Detector suspects flows, by their packets or their records: on the hot side, so
// that it costs a flow that goes on one comparison a packet, and one that begins
// about as much as its place in the table. It allocates nothing once it is made, and
// belongs to one goroutine.
//
// What it says of one flow is said of its kind too: SPEC.md of package tracer names
// the reasons and when they are wrong.
type Detector struct {
	o    DetectorOptions
	seed seed
	look *prefix.Set // whether an end may be in a list; nil if there is none
	list *prefix.Set // of now; nil if there is none

	window  uint16 // of 8 s
	started int64  // ms since the Unix epoch; 0: nothing was seen yet
	// asked remembers what was sent in each direction, so that answers are told from
	// what nobody asked for.
	asked    [2]memory
	openings counters // not completed, by destination and port
	latest   latest   // the last one of them: floods are of one
	probes   spreads  // openings without an answer, by source and port, or both ends
	unasked  counters // answers that nobody asked for, by either end
	packets  counters // of a second, by destination
	busy     [8]busy  // destinations that get too many
	anyBusy  uint16   // the last window of them
	// wanted are the destinations that asked for more; nil if none did.
	wanted *prefix.Set
}

// latest is the counter of the openings that were counted last.
type latest struct {
	counter *counter
	tag     uint32
	port    uint16
	family  flow.Family
	dst     [16]byte
}

// busy is a destination that got too many packets, until a window of 1 s.
type busy struct {
	address uint32
	until   uint16
}

// DetectorOptions of a Detector.
type DetectorOptions struct {
	Flows int // in the table: the more, the more is remembered; 0: it is for records
	// Limit is how many packets a second may go to one address; 0: any number.
	Limit uint32
	List  *atomic.Pointer[prefix.Set] // or nil
	// Wanted are destinations that asked for more tracers; or nil. The smallest build
	// does not look at them.
	Wanted *atomic.Pointer[prefix.Set]
	// Ways tells that odd ports of the flow table are where packets go out, and even
	// ones where they come in. Otherwise no direction is known.
	Ways bool
}

// States of a flow, in its entry's Suspicion above the reasons.
const (
	judged  = 1 << 8  // it was looked at
	opening = 1 << 9  // of TCP: nothing but SYN came
	strange = 1 << 10 // from a port of an amplifier, and nobody asked
	states  = judged | opening | strange
)

// When it is suspected.
const (
	windowBits  = 13   // ms: a window is 8.2 s
	synLimit    = 128  // openings of a port that were not completed
	probeLimit  = 32   // of 64 bits: about 44 different ones
	answerLimit = 32   // points of answers that nobody asked for
	answerPoint = 4    // of a SYN-ACK or an ICMP error
	resetPoint  = 1    // of a RST: those are also sent about connections long idle
	largeAnswer = 200  // bytes of layer 3, of an amplifier's answer
	largeLimit  = 4    // such answers
	warmUp      = 5000 // ms in which what was asked before is not yet known
	sampleRate  = 16   // of so many packets one is looked at for the rate
)

// Kinds of what is counted, for the hashes.
const (
	kindOpening = iota + 1
	kindAcross  // one port of many hosts
	kindDown    // many ports of one host
	kindFrom
	kindTo
	kindLarge
	kindRate
)

// NewDetector returns a detector.
func NewDetector(o DetectorOptions) *Detector {
	size := uint8(min(max(bits.Len(uint(o.Flows))+2, 16), 22)) // 4 to 8 bits a flow
	cells := 1 << (size - 7)
	d := &Detector{o: o, seed: newSeed(), openings: newCounters(cells), probes: newSpreads(cells)}
	if o.Flows > 0 {
		d.asked = [2]memory{newMemory(size), newMemory(size)}
		d.unasked, d.packets = newCounters(cells), newCounters(cells)
	}
	return d
}

// Sync takes over what others may have changed: the lists. It is to be called once a
// batch.
func (d *Detector) Sync() {
	var list, wanted *prefix.Set
	if d.o.List != nil {
		list = d.o.List.Load()
	}
	if asks && d.o.Wanted != nil {
		wanted = d.o.Wanted.Load()
	}
	if list != d.list || wanted != d.wanted {
		d.use(list, wanted)
	}
}

// every is a set in which all may be, as it has no sieve.
var every prefix.Set

// use takes over lists. That flows cost more while somebody wants more is so for some
// minutes; that they cost less at all other times is what look is for.
func (d *Detector) use(list, wanted *prefix.Set) {
	d.look, d.list, d.wanted = list, list, wanted
	if wanted != nil {
		d.look = &every
	}
}

// listed returns Listed and Wanted, as far as they are right, of what may be in a list.
func (d *Detector) listed(k *flow.Key) (s Reasons) {
	if d.list != nil && d.list.HasEither(k) {
		s = Listed
	}
	if d.wants(k.Family, &k.Dst) {
		s |= Wanted
	}
	return s
}

// Pending tells whether a flow whose entry says so has to be looked at with the next
// packet.
func Pending(suspicion uint16) bool { return suspicion&states != judged }

// Of returns the reasons in an entry's Suspicion, and Wanted.
func Of(suspicion uint16) Reasons { return Reasons(suspicion) & (AllReasons | Wanted) }

// TCP flags.
const (
	fin = 1 << iota
	syn
	rst
	_
	ack
)

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// Look looks at packets of a flow that is Pending, which the table has just counted
// in its entry. The guard is that of the interface where they came in, or nil. Where
// only some packets are captured, nobody knows whether there was an answer: then it
// has to be told that it is thinned. Of ICMP, quoted is the key of the flow that an error
// is about; its family is 0 if it is none.
func (d *Detector) Look(g *Guard, t *flowtable.Table, p *flowtable.Packets, e *flowtable.Entry, quoted *flow.Key, thinned bool) {
	if e.Suspicion&judged != 0 {
		d.goOn(p, e)
		return
	}
	if uint16(p.Time>>windowBits) != d.window || d.started == 0 {
		d.turn(p.Time)
	}
	s := uint16(judged)
	if g != nil {
		s |= uint16(g.check(&p.Key))
	}
	if l := d.look; l != nil && l.MayEither(&p.Key) {
		s |= uint16(d.listed(&p.Key))
	}
	if !thinned && p.Known&flow.HasPorts != 0 {
		s |= d.begin(t, p, quoted)
	}
	if d.anyBusy != 0 && d.isBusy(d.seed.address(p.Family, &p.Dst), second(p.Time)) {
		s |= uint16(Rate)
	}
	e.Suspicion = s
}

// wants tells whether a destination asked for more.
func (d *Detector) wants(family flow.Family, dst *[16]byte) bool {
	return asks && d.wanted != nil && d.wanted.Contains(family, dst)
}

// turn forgets what is too old.
//
//go:noinline
func (d *Detector) turn(now int64) {
	window := uint16(now >> windowBits)
	if d.started == 0 || now < d.started {
		d.started = now
	}
	if d.window/2 != window/2 && d.o.Flows > 0 {
		d.asked[0].turn()
		d.asked[1].turn()
	}
	d.window = window
}

// begin looks at the first packet of a flow.
func (d *Detector) begin(t *flowtable.Table, p *flowtable.Packets, quoted *flow.Key) uint16 {
	way := p.Port & 1
	if !d.o.Ways {
		way = 0
	}
	switch p.Protocol {
	case protoTCP:
		switch p.TCPFlags & (syn | ack | rst) {
		case syn:
			d.asked[way].add(t.Hash)
			return d.open(p)
		case syn | ack, rst, rst | ack:
			if d.solicited(t, p) {
				return 0
			}
			if p.TCPFlags&rst != 0 {
				return d.answers(p, resetPoint)
			}
			return d.answers(p, answerPoint)
		}
		d.asked[way].add(t.Hash)
	case protoUDP:
		if d.answering(t, p) {
			return 0
		}
		d.asked[way].add(t.Hash)
		if amplifies(p.SrcPort) && !multicast(&p.Key) {
			if d.solicited(t, p) {
				return 0
			}
			return strange | d.large(p)
		}
		return d.probe(d.seed.address(p.Family, &p.Src), d.seed.address(p.Family, &p.Dst), p.DstPort, protoUDP)
	case protoICMP, protoICMPv6:
		if quoted.Family != 0 && !d.sent(t, p, quoted) {
			return d.answers(p, answerPoint)
		}
	}
	return 0
}

// back returns the port where packets of the other direction pass, and what was asked
// there.
func (d *Detector) back(p flowtable.Port) (flowtable.Port, *memory) {
	if d.o.Ways {
		p ^= 1
		return p, &d.asked[p&1]
	}
	return p, &d.asked[0]
}

// answering tells whether a datagram answers another, and takes that one back.
func (d *Detector) answering(t *flowtable.Table, p *flowtable.Packets) bool {
	_, asked := d.back(p.Port)
	if k := reverse(&p.Key); !asked.has(t.HashOf(&k)) {
		return false
	}
	d.answered(d.seed.address(p.Family, &p.Dst), d.seed.address(p.Family, &p.Src), p.SrcPort, protoUDP)
	return true
}

// solicited tells whether a packet answers another.
func (d *Detector) solicited(t *flowtable.Table, p *flowtable.Packets) bool {
	k := reverse(&p.Key)
	return d.sent(t, p, &k)
}

// sent tells whether packets of a key have passed in the other direction than a
// packet.
func (d *Detector) sent(t *flowtable.Table, p *flowtable.Packets, k *flow.Key) bool {
	hash := t.HashOf(k)
	port, asked := d.back(p.Port)
	return asked.has(hash) || p.Time-d.started < warmUp || t.Has(k, hash, port)
}

func reverse(k *flow.Key) flow.Key {
	r := *k
	r.Src, r.Dst, r.SrcPort, r.DstPort = k.Dst, k.Src, k.DstPort, k.SrcPort
	return r
}

// goOn looks at a later packet of a flow.
func (d *Detector) goOn(p *flowtable.Packets, e *flowtable.Entry) {
	s := e.Suspicion
	if s&opening != 0 && p.TCPFlags&syn == 0 {
		s &^= opening
		if p.TCPFlags&rst == 0 { // the client goes on: the opening is complete
			s &^= uint16(SYN | Scan)
			src, dst := d.seed.address(p.Family, &p.Src), d.seed.address(p.Family, &p.Dst)
			d.openings.take(d.seed.pair(kindOpening, dst, uint32(p.DstPort)), d.window)
			d.answered(src, dst, p.DstPort, protoTCP)
		}
	}
	if s&strange != 0 {
		if r := d.large(p); r != 0 {
			s = s&^strange | r
		}
	}
	e.Suspicion = s
}

// open counts an opening of TCP.
func (d *Detector) open(p *flowtable.Packets) uint16 {
	l := &d.latest
	c := l.counter
	if c == nil || l.port != p.DstPort || binary.BigEndian.Uint32(l.dst[:]) != binary.BigEndian.Uint32(p.Dst[:]) || l.family != p.Family ||
		c.tag != l.tag || c.window != d.window || p.Family != flow.IPv4 && l.dst != p.Dst {
		c = d.openings.at(d.seed.pair(kindOpening, d.seed.address(p.Family, &p.Dst), uint32(p.DstPort)), d.window)
		*l = latest{c, c.tag, p.DstPort, p.Family, p.Dst}
	}
	if c.count < synLimit {
		c.count++
		return opening | d.probe(d.seed.address(p.Family, &p.Src), d.seed.address(p.Family, &p.Dst), p.DstPort, protoTCP)
	}
	if c.count < 0xffff {
		c.count++
	}
	return opening | uint16(SYN)
}

// probe counts what may be a part of a scan.
func (d *Detector) probe(src, dst uint32, port uint16, protocol uint32) uint16 {
	across := d.probes.at(d.seed.pair(kindAcross, src, uint32(port)|protocol<<16), d.window).set(dst)
	down := d.probes.at(d.seed.pair(kindDown, src, dst), d.window).set(portBit(port))
	if max(across, down) >= probeLimit {
		return uint16(Scan)
	}
	return 0
}

// answered takes a probe back.
func (d *Detector) answered(src, dst uint32, port uint16, protocol uint32) {
	d.probes.at(d.seed.pair(kindAcross, src, uint32(port)|protocol<<16), d.window).clear(dst)
	d.probes.at(d.seed.pair(kindDown, src, dst), d.window).clear(portBit(port))
}

func portBit(port uint16) uint32 { return uint32(port) * 0x9e3779b1 >> 26 }

// answers counts answers that nobody asked for: those to one host, whose address
// somebody uses, and those of one, who is under attack.
func (d *Detector) answers(p *flowtable.Packets, points uint32) uint16 {
	src, dst := d.seed.address(p.Family, &p.Src), d.seed.address(p.Family, &p.Dst)
	to := d.unasked.add(d.seed.pair(kindTo, dst, 0), d.window, points)
	from := d.unasked.add(d.seed.pair(kindFrom, src, 0), d.window, points)
	if to >= answerLimit || from >= answerLimit {
		return uint16(Backscatter)
	}
	return 0
}

// large counts an amplifier's answers that nobody asked for.
func (d *Detector) large(p *flowtable.Packets) uint16 {
	if p.Bytes < largeAnswer*uint64(p.Count) ||
		d.unasked.add(d.seed.pair(kindLarge, d.seed.address(p.Family, &p.Dst), 0), d.window, 1) < largeLimit {
		return 0
	}
	return uint16(Reflection)
}

// amplifies tells whether a UDP port is one of a service that is known to amplify
// (US-CERT TA14-017A, and what came after).
func amplifies(port uint16) bool {
	for _, p := range [...]uint16{17, 19, 53, 69, 111, 123, 137, 161, 177, 389, 427, 500, 520, 623, 1434, 1604, 1900, 2302, 3283, 3478, 3702, 5093, 5351, 5353,
		5683, 6881, 10001, 11211, 17185, 20800, 27005, 27015, 27960, 30718, 32414, 37810} {
		if p == port {
			return true
		}
	}
	return false
}

func multicast(k *flow.Key) bool {
	return k.Family == flow.IPv4 && k.Dst[0] >= 224 || k.Family == flow.IPv6 && k.Dst[0] == 0xff
}

// second is a window of the rate, of 1.024 s.
func second(ms int64) uint16 { return uint16(ms >> 10) }

// Sample looks at one of SampleRate packets, and suspects its flow if there are too
// many to its destination. A packet stands for scale.
func (d *Detector) Sample(p *flowtable.Packets, e *flowtable.Entry, scale uint32) {
	if asks && (d.wanted != nil || e.Suspicion&uint16(Wanted) != 0) {
		e.Suspicion &^= uint16(Wanted) // which holds for some minutes, and a flow for longer
		if d.wants(p.Family, &p.Dst) {
			e.Suspicion |= uint16(Wanted)
		}
	}
	if d.o.Limit == 0 {
		return
	}
	dst := d.seed.address(p.Family, &p.Dst)
	// Counts have 16 bits: one is a 1024th of the limit, or the scale if that is more.
	unit := max(d.o.Limit/1024, 1)
	n := min(uint64(p.Count)*sampleRate*uint64(scale), 1<<30)
	add := uint32(n) / unit
	if rest := uint32(n) % unit; rest > 0 { // in the mean
		if uint32(uint64(d.next())*uint64(unit)>>32) < rest {
			add++
		}
	}
	now := second(p.Time)
	c := d.packets.at(d.seed.pair(kindRate, dst, 0), now)
	c.count = uint16(min(uint32(c.count)+add, 0xffff))
	if uint32(c.count) >= d.o.Limit/unit {
		e.Suspicion |= uint16(Rate)
		d.setBusy(dst, now)
	}
}

// SampleRate: of so many packets one is to be given to Sample.
const SampleRate = sampleRate

// next returns a number that looks random; it decides about nothing but rounding.
func (d *Detector) next() uint32 {
	d.seed.words[9] = d.seed.words[9]*1664525 + 1013904223
	return d.seed.words[9]
}

func (d *Detector) setBusy(address uint32, now uint16) {
	d.busy[address%uint32(len(d.busy))] = busy{address, now + 2}
	d.anyBusy = now + 2 | 1
}

func (d *Detector) isBusy(address uint32, now uint16) bool {
	if int16(now-d.anyBusy) > 1 {
		d.anyBusy = 0
		return false
	}
	b := &d.busy[address%uint32(len(d.busy))]
	return b.address == address && int16(now-b.until) <= 0
}
