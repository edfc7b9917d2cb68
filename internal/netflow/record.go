// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"math"

	"github.com/overflowd/overflowd/internal/flow"
)

// values are the fields of a data record by their slot. Those that the template
// has not are 0.
type values [64]uint64

// ahead is how much later than its export a flow can have ended, in
// milliseconds: exporters stamp the header early. More is an uptime in seconds
// against milliseconds, or a broken clock.
const ahead = 60_000

// data reads the data records of a set.
func (d *Decoder) data(h *header, dom *domain, t *template, b []byte, emit func(*flow.Record)) {
	v := &d.values
	*v = values{}
	r := &d.rec
	*r = flow.Record{Key: flow.Key{Family: t.family}, Source: h.source}
	c := d.clock(h, dom)

	own, varies := t.sampled, false
	if !own {
		r.Interval, varies = d.interval(h, dom, t, v)
	}
	for {
		n := d.load(t, b)
		if n == 0 {
			return // what is left is padding
		}
		b = b[n:]
		switch {
		case own:
			r.Interval = intervalOf(t.fields, v)
			if r.Interval == 0 {
				r.Interval = d.Interval
			}
		case varies:
			r.Interval, _ = d.interval(h, dom, t, v)
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
func (d *Decoder) interval(h *header, dom *domain, t *template, v *values) (n uint32, varies bool) {
	n, varies = dom.sampling.of(t.fields, v), dom.sampling.varies(t.fields)
	if n == 0 && t.fields.has(selectorID) {
		all := h.key.everywhere()
		if o := d.cache.domain(&all); o != nil {
			n, varies = o.sampling.ofID(t.fields, v), true
		}
	}
	if n == 0 && dom.sampling.n == 0 && h.key.version == 10 && h.key.domain != 0 {
		whole := h.key.whole()
		if o := d.cache.domain(&whole); o != nil {
			n, varies = o.sampling.of(t.fields, v), varies || o.sampling.varies(t.fields)
		}
	}
	if n == 0 && dom.sampling.n == 0 {
		n = d.Interval
	}
	return n, varies
}

// load reads the fields of the first record of b into the values and the
// addresses, and returns its length; 0 if there is no whole record.
func (d *Decoder) load(t *template, b []byte) int {
	size := int(t.size)
	if len(b) < size {
		return 0
	}
	if t.variable {
		return d.loadVariable(t, b)
	}
	v, b := &d.values, b[:size]
	i := uint8(0)
	for ; i < t.ends[0]; i++ {
		o := t.ops[i&(maxOps-1)]
		v[o.slot&63] = uint64(binary.BigEndian.Uint32(b[o.off:]))
	}
	for ; i < t.ends[1]; i++ {
		o := t.ops[i&(maxOps-1)]
		v[o.slot&63] = uint64(binary.BigEndian.Uint16(b[o.off:]))
	}
	for ; i < t.ends[2]; i++ {
		o := t.ops[i&(maxOps-1)]
		v[o.slot&63] = uint64(b[o.off])
	}
	for ; i < t.ends[3]; i++ {
		o := t.ops[i&(maxOps-1)]
		v[o.slot&63] = binary.BigEndian.Uint64(b[o.off:])
	}
	for ; i < t.ends[5]; i++ {
		o := t.ops[i&(maxOps-1)]
		d.loadField(o, b)
	}
	return size
}

// loadVariable reads a record that has fields of variable length.
func (d *Decoder) loadVariable(t *template, b []byte) int {
	rest := b // from the last of them, or the begin
	need := int(t.size)
	for _, o := range t.ops[:t.ends[5]] {
		if o.size != skip {
			d.loadField(o, rest)
			continue
		}
		rest = rest[o.off:]
		need -= int(o.off)
		for range o.slot {
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
			rest = rest[n:]
		}
	}
	return len(b) - len(rest) + need
}

// loadField reads a field of any size.
func (d *Decoder) loadField(o op, b []byte) {
	p := b[o.off:]
	if o.size == 16 {
		if o.slot < numbers {
			d.wide[o.slot] = [16]byte(p)
			return
		}
		// A time of pmacct's nfprobe_tstamp_usec: seconds and microseconds since
		// the Unix epoch, 8 bytes each.
		s, micros := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
		d.values[o.slot&63] = (s+ntpToUnix)<<32 | micros%1e6<<32/1e6
		return
	}
	n := uint64(0)
	for _, x := range p[:o.size] {
		n = n<<8 | uint64(x)
	}
	if o.slot == probability && o.size == 4 {
		n = math.Float64bits(float64(math.Float32frombits(uint32(n))))
	}
	d.values[o.slot&63] = n
}

// assemble makes the record of the values. It returns false if the record does
// not tell its addresses.
func (d *Decoder) assemble(t *template, c *clock, r *flow.Record) bool {
	v := &d.values
	known := t.known
	family := t.family
	if family == 0 {
		if family = d.familyOf(t); family == 0 {
			return false
		}
		r.Key = flow.Key{Family: family}
	}
	if family == flow.IPv4 {
		binary.BigEndian.PutUint32(r.Src[:], uint32(v[src4]))
		binary.BigEndian.PutUint32(r.Dst[:], uint32(v[dst4]))
	} else {
		r.Src, r.Dst = d.wide[src6], d.wide[dst6]
	}
	r.SrcPort, r.DstPort = uint16(v[srcPort]), uint16(v[dstPort])
	r.Protocol, r.TOS, r.TCPFlags = uint8(v[protocol]), uint8(v[tos]), uint8(v[tcpFlags])
	r.Packets, r.Bytes = v[packets], v[octets]
	r.Ingress, r.Egress = uint32(v[ingress]), uint32(v[egress])
	if t.icmp && (r.Protocol == 1 || r.Protocol == 58) {
		r.SrcPort, r.DstPort = 0, uint16(v[icmp])
		if !t.fields.has(icmp) {
			r.DstPort = uint16(v[icmpType]&0xff<<8 | v[icmpCode]&0xff)
		}
		known |= flow.HasPorts
	}
	if t.dscp {
		r.TOS <<= 2
	}
	if t.fields&uncommon != 0 {
		r.TTL, r.MaxTTL = uint8(v[minTTL]), uint8(v[maxTTL])
		if !t.fields.has(maxTTL) {
			r.MaxTTL = r.TTL
		}
		r.VLAN, r.SrcAS, r.DstAS = uint16(v[vlan])&0xfff, uint32(v[srcAS]), uint32(v[dstAS])
		r.Dropped, r.ForwardingStatus = v[dropped], uint8(v[forwarding])
	}
	if t.fields&translated != 0 {
		known |= d.translation(t, family, r)
	}
	if t.fields.has(bootTime) {
		c.boot(int64(v[bootTime]))
	}
	r.Known = known | c.times(r, t.startUnit, t.endUnit, t.fields.has(start), t.fields.has(end), v[start], v[end])
	if t.fields.has(duration) {
		d.lasted(t, r)
	}
	return true
}

// Fields that many exporters do not tell.
const (
	uncommon   = 1<<minTTL | 1<<maxTTL | 1<<vlan | 1<<srcAS | 1<<dstAS | 1<<dropped | 1<<forwarding
	translated = 1<<translatedSrc4 | 1<<translatedDst4 | 1<<translatedSrc6 | 1<<translatedDst6 | 1<<translatedSrcPort | 1<<translatedDstPort
)

// translation fills in what a network address translation made of the flow, and
// returns which addresses are told: exporters write zeros where there is none.
func (d *Decoder) translation(t *template, family flow.Family, r *flow.Record) (known flow.Field) {
	v := &d.values
	r.TranslatedSrcPort, r.TranslatedDstPort = uint16(v[translatedSrcPort]), uint16(v[translatedDstPort])
	var src, dst [16]byte
	if family == flow.IPv4 {
		binary.BigEndian.PutUint32(src[:], uint32(v[translatedSrc4]))
		binary.BigEndian.PutUint32(dst[:], uint32(v[translatedDst4]))
	} else {
		if t.fields.has(translatedSrc6) {
			src = d.wide[translatedSrc6]
		}
		if t.fields.has(translatedDst6) {
			dst = d.wide[translatedDst6]
		}
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

// familyOf tells which addresses of a record count, if the template has those of
// both families.
func (d *Decoder) familyOf(t *template) flow.Family {
	v := &d.values
	switch f := flow.Family(v[ipVersion]); {
	case !t.fields.has(ipVersion):
	case f == flow.IPv4 || f == flow.IPv6:
		return f
	default:
		return 0
	}
	if v[src4]|v[dst4] != 0 {
		return flow.IPv4
	}
	if d.wide[src6] != [16]byte{} || d.wide[dst6] != [16]byte{} {
		return flow.IPv6
	}
	return 0
}

// lasted fills in the time that only the duration of the flow tells.
func (d *Decoder) lasted(t *template, r *flow.Record) {
	n := d.values[duration]
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
	v := &d.values
	n, bytes := v[backPackets], v[backOctets]
	if v[direction] == 2 && t.initiator {
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
		TOS: uint8(v[backTOS]), TCPFlags: uint8(v[backTCPFlags]), TTL: uint8(v[backMinTTL]), MaxTTL: uint8(v[backMaxTTL]),
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
			b.DstPort = uint16(v[backICMP])
		}
	}
	if t.fields&(1<<backStart|1<<backEnd) != 0 {
		b.Known |= c.times(b, t.backStart, t.backEnd, t.fields.has(backStart), t.fields.has(backEnd), v[backStart], v[backEnd])
	} else {
		b.Start, b.End = r.Start, r.End
		b.Known |= r.Known & (flow.HasStart | flow.HasEnd)
	}
	emit(b)
}
