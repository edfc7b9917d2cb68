// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

// ahead is how much later than its export a flow can have ended, in
// milliseconds: exporters stamp the header early. More is an uptime in seconds
// against milliseconds, or a broken clock.
const ahead = 60_000

// data reads the data records of a set.
func (d *Decoder) data(h *header, dom *domain, t *template, b []byte, emit func(*flow.Record)) {
	r := &d.rec
	*r = flow.Record{Key: flow.Key{Family: t.family}, Source: h.source}
	c := d.clock(h, dom)

	varies := t.sampled
	if !varies {
		r.Interval, varies = d.interval(h, dom, t)
	}
	for {
		n := d.load(t, b)
		if n == 0 {
			return // what is left is padding
		}
		b = b[n:]
		if varies {
			r.Interval, _ = d.interval(h, dom, t)
		}
		if !d.assemble(t, &c, r) {
			d.Dropped[NoFlow]++
			continue
		}
		if t.biflow {
			d.biflow(t, &c, r, emit)
			continue
		}
		emit(r)
	}
}

// packets reads records that bear a packet instead of a flow (PSAMP, RFC 5476),
// as far as it was exported.
func (d *Decoder) packets(h *header, dom *domain, t *template, b []byte, emit func(*flow.Record)) {
	r := &d.rec
	c := d.clock(h, dom)
	link := packet.Ethernet
	if t.section.unit == layer3 {
		link = packet.Raw
	}
	for {
		n := d.load(t, b)
		if n == 0 {
			return
		}
		b = b[n:]
		section := d.section
		if t.fields.has(sectionSize) { // and padding is behind it
			section = section[:min(uint32(len(section)), d.u32(t, sectionSize))]
		}
		if packet.Parse(link, section, &d.packet) != nil {
			d.Dropped[NoFlow]++
			continue
		}
		*r = flow.Record{Source: h.source, Known: t.known&(flow.HasIngress|flow.HasEgress) | flow.HasPackets, Packets: 1}
		d.packet.Fill(r)
		if d.packet.Known&flow.HasBytes == 0 {
			r.Known &^= flow.HasBytes // the section is a part of it only
			r.Bytes = 0
		}
		r.Interval, _ = d.interval(h, dom, t)
		r.Ingress, r.Egress = d.u32(t, ingress), d.u32(t, egress)
		r.Known |= d.times(t, &c, r)
		emit(r)
	}
}

// skipAll returns the number of records of a set.
func (d *Decoder) skipAll(t *template, b []byte) (n uint64) {
	for {
		size := d.load(t, b)
		if size == 0 {
			return n
		}
		b = b[size:]
		n++
	}
}

// interval returns the sampling interval of a record, and whether another record
// of the set may have another one.
func (d *Decoder) interval(h *header, dom *domain, t *template) (n uint32, varies bool) {
	if t.sampled {
		if n = d.ownInterval(t); n != 0 {
			return n, true
		}
	}
	r := told{t.fields, d.u32(t, selectorID), d.u32(t, ingress)}
	n, varies = dom.sampling.of(r), t.sampled || dom.sampling.varies(t.fields)
	if n == 0 && t.fields.has(selectorID) {
		if x := d.cache.exporter(h.key.exporter); x != nil && x.samplers.n != 0 {
			n, varies = x.samplers.ofID(r), true
		}
	}
	if n == 0 && dom.sampling.n == 0 && h.key.version == 10 && h.key.domain != 0 {
		whole := h.key.whole()
		if o := d.cache.domain(&whole); o != nil {
			n, varies = o.sampling.of(r), varies || o.sampling.varies(t.fields)
		}
	}
	if n == 0 && dom.sampling.n == 0 {
		n = d.Interval
	}
	return n, varies
}

// load brings the fields of the first record of b into the window, and returns
// the record's length; 0 if there is no whole record.
func (d *Decoder) load(t *template, b []byte) int {
	size := int(t.size)
	if len(b) < size {
		return 0
	}
	if t.short {
		copy(d.window[:nowhere], b[:size])
	} else {
		size = d.gather(t, b)
	}
	if t.timed {
		d.timevals(t)
	}
	return size
}

// gather brings the fields of a record into the window one by one.
func (d *Decoder) gather(t *template, b []byte) int {
	rest := b // from the last field of variable length, or the begin
	need := int(t.size)
	x, passed := &t.section, uint16(0) // fields of variable length
	if t.packet && x.variables == 0 && x.size != variable {
		d.section = rest[x.from:][:x.size]
	}
	for _, o := range t.ops[:t.count] {
		if o.size != skip {
			copy(d.window[o.to:][:o.size], rest[o.from:])
			continue
		}
		rest = rest[o.from:]
		need -= int(o.from)
		for range o.to {
			// RFC 7011, section 7: one byte, or 255 and two.
			n := 1 + int(rest[0])
			if rest[0] == 255 {
				if len(rest) < 3 {
					return 0
				}
				n = 3 + int(binary.BigEndian.Uint16(rest[1:]))
			}
			if need--; len(rest) < n+need {
				return 0
			}
			field := rest[:n]
			rest = rest[n:]
			if !t.packet {
				continue
			}
			if x.size == variable && x.variables == passed {
				if field[0] < 255 {
					d.section = field[1:]
				} else {
					d.section = field[3:]
				}
			}
			if passed++; x.size != variable && x.variables == passed {
				d.section = rest[x.from:][:x.size]
			}
		}
	}
	return len(b) - len(rest) + need
}

// timevals turns pmacct's times of 16 bytes into milliseconds.
func (d *Decoder) timevals(t *template) {
	for _, s := range [...]slot{start, end, backStart, backEnd} {
		if !t.isTimeval(s) {
			continue
		}
		i := int(t.places[s].off)
		b := d.window[i : i+16]
		seconds, micros := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
		binary.BigEndian.PutUint64(b, seconds*1000+micros/1000)
	}
}

// u32 returns the value of a slot that is not long, 0 if the template has none.
func (d *Decoder) u32(t *template, s slot) uint32 {
	p := t.places[s]
	i := int(p.off)
	return binary.BigEndian.Uint32(d.window[i:i+4]) >> (p.shift & 31)
}

// u64 returns the value of a long slot, 0 if the template has none.
func (d *Decoder) u64(t *template, s slot) uint64 {
	p := t.places[s]
	i := int(p.off)
	return binary.BigEndian.Uint64(d.window[i:i+8]) >> (p.shift & 63)
}

// wide returns an address of 16 bytes, zeros if the template has none.
func (d *Decoder) wide(t *template, s slot) [16]byte {
	i := int(t.places[s].off)
	return [16]byte(d.window[i : i+16])
}

// narrow returns an address of 4 bytes.
func (d *Decoder) narrow(t *template, s slot) [4]byte {
	i := int(t.places[s].off)
	return [4]byte(d.window[i : i+4])
}

// assemble makes the record of what is in the window. It returns false if the
// record does not tell its addresses.
func (d *Decoder) assemble(t *template, c *clock, r *flow.Record) bool {
	known := t.known
	family := t.family
	if family == 0 {
		if family = d.familyOf(t); family == 0 {
			return false
		}
		r.Key = flow.Key{Family: family}
	}
	if family == flow.IPv4 {
		*(*[4]byte)(r.Src[:4]) = d.narrow(t, src4)
		*(*[4]byte)(r.Dst[:4]) = d.narrow(t, dst4)
	} else {
		r.Src, r.Dst = d.wide(t, src6), d.wide(t, dst6)
	}
	r.SrcPort, r.DstPort = uint16(d.u32(t, srcPort)), uint16(d.u32(t, dstPort))
	r.Protocol, r.TOS, r.TCPFlags = uint8(d.u32(t, protocol)), uint8(d.u32(t, tos)), uint8(d.u32(t, tcpFlags))
	r.Packets, r.Bytes = d.u64(t, packets), d.u64(t, octets)
	r.Ingress, r.Egress = d.u32(t, ingress), d.u32(t, egress)
	if t.fields&uncommon != 0 {
		r.TTL, r.MaxTTL = uint8(d.u32(t, minTTL)), uint8(d.u32(t, maxTTL))
		if !t.fields.has(maxTTL) {
			r.MaxTTL = r.TTL
		}
		r.VLAN, r.SrcAS, r.DstAS = uint16(d.u32(t, vlan))&0xfff, d.u32(t, srcAS), d.u32(t, dstAS)
		r.Dropped, r.ForwardingStatus = d.u64(t, dropped), uint8(d.u32(t, forwarding))
	}
	if t.special {
		known |= d.special(t, family, r)
		if t.fields.has(bootTime) { // of this record alone
			own := *c
			own.boot(int64(d.u64(t, bootTime)))
			c = &own
		}
	}
	r.Known = known | d.times(t, c, r)
	if t.fields.has(duration) {
		d.lasted(t, r)
	}
	return true
}

// uncommon are fields that many exporters do not tell.
const uncommon = 1<<minTTL | 1<<maxTTL | 1<<vlan | 1<<srcAS | 1<<dstAS | 1<<dropped | 1<<forwarding

// post are counts behind the exporter.
const post = 1<<postPackets | 1<<postOctets

// translated are those of a network address translation.
const translated = 1<<translatedSrc4 | 1<<translatedDst4 | 1<<translatedSrc6 | 1<<translatedDst6 | 1<<translatedSrcPort | 1<<translatedDstPort

// special fills in what few templates have, and returns what is known by it.
func (d *Decoder) special(t *template, family flow.Family, r *flow.Record) (known flow.Field) {
	if t.dscp {
		r.TOS <<= 2
	}
	if t.icmp && (r.Protocol == 1 || r.Protocol == 58) {
		r.SrcPort, r.DstPort = 0, uint16(d.u32(t, icmp))
		if !t.fields.has(icmp) {
			r.DstPort = uint16(d.u32(t, icmpType)&0xff<<8 | d.u32(t, icmpCode)&0xff)
		}
		known = flow.HasPorts
	}
	if t.fields&post != 0 {
		// Of flows that leave, some exporters count only behind themselves.
		if r.Packets == 0 {
			r.Packets = d.u64(t, postPackets)
		}
		if r.Bytes == 0 {
			r.Bytes = d.u64(t, postOctets)
		}
	}
	if t.fields&translated != 0 {
		known |= d.translation(t, family, r)
	}
	return known
}

// translation fills in what a network address translation made of the flow, and
// returns which addresses are told: exporters write zeros where there is none.
func (d *Decoder) translation(t *template, family flow.Family, r *flow.Record) (known flow.Field) {
	r.TranslatedSrcPort, r.TranslatedDstPort = uint16(d.u32(t, translatedSrcPort)), uint16(d.u32(t, translatedDstPort))
	var src, dst [16]byte
	if family == flow.IPv4 {
		*(*[4]byte)(src[:4]), *(*[4]byte)(dst[:4]) = d.narrow(t, translatedSrc4), d.narrow(t, translatedDst4)
	} else {
		src, dst = d.wide(t, translatedSrc6), d.wide(t, translatedDst6)
	}
	r.TranslatedSrc, r.TranslatedDst = src, dst
	if src != [16]byte{} {
		known = flow.HasTranslatedSrc
	}
	if dst != [16]byte{} {
		known |= flow.HasTranslatedDst
	}
	return known
}

// times fills in start and end, and returns which of the two are told.
func (d *Decoder) times(t *template, c *clock, r *flow.Record) flow.Field {
	const both = flow.HasStart | flow.HasEnd
	switch t.bothUnits {
	case uptime:
		if c.knows&knowsUptime == 0 {
			return 0
		}
		// The uptime wraps every 49.7 days: the difference is signed, as in fixed.
		start := int32(c.uptime - uint32(d.u64(t, start)))
		end := int32(c.uptime - uint32(d.u64(t, end)))
		r.Start, r.End = c.now-int64(start), c.now-int64(end)
		if end > start || end < -ahead {
			return 0
		}
		return both
	case millis:
		start, end := d.u64(t, start), d.u64(t, end)
		if r.Start, r.End = int64(start), int64(end); start != 0 && start <= end && end < latest {
			return both
		}
	}
	return c.times(r, moment{t.startUnit, t.fields.has(start), d.u64(t, start)}, moment{t.endUnit, t.fields.has(end), d.u64(t, end)})
}

// familyOf tells which addresses of a record count, if the template has those of
// both families.
func (d *Decoder) familyOf(t *template) flow.Family {
	switch f := flow.Family(d.u32(t, ipVersion)); {
	case !t.fields.has(ipVersion):
	case f == flow.IPv4 || f == flow.IPv6:
		return f
	default:
		return 0
	}
	has4 := d.narrow(t, src4) != [4]byte{} || d.narrow(t, dst4) != [4]byte{}
	has6 := d.wide(t, src6) != [16]byte{} || d.wide(t, dst6) != [16]byte{}
	switch {
	case has4 && has6:
		// A packet in another one: those of the outer header come first (RFC 7011,
		// section 8), and it is of that header that the first ports and protocol are.
		return t.outer
	case has4:
		return flow.IPv4
	case has6:
		return flow.IPv6
	}
	return 0
}

// lasted fills in the time that only the duration of the flow tells.
func (d *Decoder) lasted(t *template, r *flow.Record) {
	n := d.u64(t, duration)
	if t.durationUnit == micros {
		n /= 1000
	}
	if n > 1<<40 {
		return
	}
	switch r.Known & (flow.HasStart | flow.HasEnd) {
	case flow.HasStart:
		r.End = r.Start + int64(n)
	case flow.HasEnd:
		r.Start = r.End - int64(n)
	default:
		return
	}
	r.Known |= flow.HasStart | flow.HasEnd
}

// biflow emits the two directions of a record (RFC 5103).
func (d *Decoder) biflow(t *template, c *clock, r *flow.Record, emit func(*flow.Record)) {
	n, bytes := d.u64(t, backPackets), d.u64(t, backOctets)
	if d.u32(t, direction) == 2 && t.initiator {
		// Counted from the initiator, which here is the destination: RFC 5103,
		// section 6.3.
		n, r.Packets = r.Packets, n
		bytes, r.Bytes = r.Bytes, bytes
	}
	if r.Packets != 0 || n == 0 {
		emit(r)
	}
	if n == 0 {
		return
	}
	b := &d.back
	*b = flow.Record{
		Key:    flow.Key{Src: r.Dst, Dst: r.Src, SrcPort: r.DstPort, DstPort: r.SrcPort, Protocol: r.Protocol, Family: r.Family},
		Known:  t.backKnown | r.Known&(flow.HasAS|flow.HasTranslatedPorts|flow.HasPorts),
		Source: r.Source, Interval: r.Interval,
		Packets: n, Bytes: bytes,
		TOS: uint8(d.u32(t, backTOS)), TCPFlags: uint8(d.u32(t, backTCPFlags)), TTL: uint8(d.u32(t, backMinTTL)), MaxTTL: uint8(d.u32(t, backMaxTTL)),
		SrcAS: r.DstAS, DstAS: r.SrcAS,
		TranslatedSrc: r.TranslatedDst, TranslatedDst: r.TranslatedSrc,
		TranslatedSrcPort: r.TranslatedDstPort, TranslatedDstPort: r.TranslatedSrcPort,
	}
	if t.backDSCP {
		b.TOS <<= 2
	}
	if !t.fields.has(backMaxTTL) {
		b.MaxTTL = b.TTL
	}
	if r.Known&flow.HasTranslatedSrc != 0 {
		b.Known |= flow.HasTranslatedDst
	}
	if r.Known&flow.HasTranslatedDst != 0 {
		b.Known |= flow.HasTranslatedSrc
	}
	if r.Protocol == 1 || r.Protocol == 58 {
		b.Known &^= flow.HasPorts
		b.SrcPort, b.DstPort = 0, 0
		if t.fields.has(backICMP) { // else the answer's type and code are not told
			b.Known |= flow.HasPorts
			b.DstPort = uint16(d.u32(t, backICMP))
		}
	}
	if t.fields&(1<<backStart|1<<backEnd) != 0 {
		b.Known |= c.times(b, moment{t.backStart, t.fields.has(backStart), d.u64(t, backStart)}, moment{t.backEnd, t.fields.has(backEnd), d.u64(t, backEnd)})
	} else {
		b.Start, b.End = r.Start, r.End
		b.Known |= r.Known & (flow.HasStart | flow.HasEnd)
	}
	emit(b)
}
