// SPDX-License-Identifier: BSD-3-Clause

package sflow

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

// internal is the interface of traffic that begins or ends in the device.
const internal = 0x3fffffff

// Formats of an interface.
const (
	single    = 0 // the number of one
	discarded = 1 // the packet was not forwarded, for a reason
)

// dropped is the forwarding status of RFC 7270, section 4.12: dropped, for an
// unknown cause.
const dropped = 0x80

// extended is what the records beside the packet say, in any order. It is laid
// on the flow when all were read.
type extended struct {
	vlan uint32
	// Address types of a translation, 0 if there is none.
	srcNAT, dstNAT uint32
}

// flowSample reads a sample into d.rec, whose Family stays 0 if there is no flow
// in it. It reports whether the sample was whole.
func (d *Decoder) flowSample(b []byte, expanded bool) bool {
	r := &d.rec
	*r = flow.Record{
		Known:   flow.HasPackets,
		Source:  flow.Source{Protocol: flow.SFlow, Version: 5},
		Packets: 1,
	}
	var now progress
	var rate, inFormat, in, outFormat, out, count uint32
	if expanded {
		if len(b) < 44 {
			return false
		}
		h := (*[44]byte)(b)
		now.sequence = binary.BigEndian.Uint32(h[0:])
		d.source.id = binary.BigEndian.Uint64(h[4:])
		rate = binary.BigEndian.Uint32(h[12:])
		now.pool, now.drops = binary.BigEndian.Uint32(h[16:]), binary.BigEndian.Uint32(h[20:])
		inFormat, in = binary.BigEndian.Uint32(h[24:]), binary.BigEndian.Uint32(h[28:])
		outFormat, out = binary.BigEndian.Uint32(h[32:]), binary.BigEndian.Uint32(h[36:])
		count = binary.BigEndian.Uint32(h[40:])
		b = b[44:]
	} else {
		if len(b) < 32 {
			return false
		}
		h := (*[32]byte)(b)
		now.sequence = binary.BigEndian.Uint32(h[0:])
		id := binary.BigEndian.Uint32(h[4:])
		d.source.id = uint64(id>>24)<<32 | uint64(id&0xffffff)
		rate = binary.BigEndian.Uint32(h[8:])
		now.pool, now.drops = binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		in, out = binary.BigEndian.Uint32(h[20:]), binary.BigEndian.Uint32(h[24:])
		inFormat, in = in>>30, in&0x3fffffff
		outFormat, out = out>>30, out&0x3fffffff
		count = binary.BigEndian.Uint32(h[28:])
		b = b[32:]
	}
	if r.Interval = d.interval(rate, now); r.Interval == 0 {
		r.Interval = d.Interval
	}
	if inFormat == single && isInterface(in) {
		r.Ingress = in
		r.Known |= flow.HasIngress
	}
	switch {
	case outFormat == single && isInterface(out):
		r.Egress = out
		r.Known |= flow.HasEgress
	case outFormat == discarded:
		r.ForwardingStatus, r.Dropped = dropped, 1
		r.Known |= flow.HasForwardingStatus | flow.HasDropped
	}
	return d.records(b, count)
}

func isInterface(n uint32) bool { return n != 0 && n != internal && n <= maxIndex }

// records reads the records of a flow sample.
func (d *Decoder) records(b []byte, count uint32) bool {
	r := &d.rec
	var x extended
	raw, whole := false, true
	for ; count > 0; count-- {
		format, data, rest, ok := next(b)
		if !ok {
			whole = false
			break
		}
		b = rest
		switch format {
		case 1:
			if !raw { // the first of several
				raw, ok = d.rawHeader(data)
			}
		case 3, 4:
			if r.Family == 0 {
				ok = d.sampledIP(data, format == 4)
			}
		case 1001: // extended switch: VLAN and priority, in and out
			if ok = len(data) >= 16; ok {
				x.vlan = binary.BigEndian.Uint32(data)
			}
		case 1003:
			ok = d.gateway(data)
		case 1007:
			ok = d.translation(data, &x)
		case 1020: // extended NAT port
			if ok = len(data) >= 8; ok {
				src, dst := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
				if src|dst <= 0xffff {
					r.TranslatedSrcPort, r.TranslatedDstPort = uint16(src), uint16(dst)
					r.Known |= flow.HasTranslatedPorts
				}
			}
		}
		whole = whole && ok
	}
	if r.Known&flow.HasVLAN == 0 && x.vlan > 0 && x.vlan < 4095 { // the packet's own tag wins
		r.VLAN = uint16(x.vlan)
		r.Known |= flow.HasVLAN
	}
	// Addresses are laid out as the Key's: those of another family are not told.
	if x.srcNAT != 0 && x.srcNAT == addressType(r.Family) {
		r.Known |= flow.HasTranslatedSrc
	}
	if x.dstNAT != 0 && x.dstNAT == addressType(r.Family) {
		r.Known |= flow.HasTranslatedDst
	}
	return whole
}

func addressType(f flow.Family) uint32 {
	switch f {
	case flow.IPv4:
		return 1
	case flow.IPv6:
		return 2
	}
	return 0
}

// rawHeader reads the first bytes of the packet. found: they are of a flow.
func (d *Decoder) rawHeader(b []byte) (found, ok bool) {
	if len(b) < 16 {
		return false, false
	}
	frame := binary.BigEndian.Uint32(b[4:])
	stripped := binary.BigEndian.Uint32(b[8:])
	size := binary.BigEndian.Uint32(b[12:])
	var link packet.LinkType
	switch binary.BigEndian.Uint32(b) {
	case 1:
		link = packet.Ethernet
	case 7, 14: // PPP, and PPP over SONET
		link = packet.PPP
	case 10, 11, 12: // IP over AAL5, IPv4, IPv6
		link = packet.Raw
	case 13:
		link = packet.MPLS
	default:
		return false, true
	}
	header := b[16:]
	ok = uint64(size) <= uint64(len(header))
	if ok {
		header = header[:size] // without the padding
	}
	p, r := &d.packet, &d.rec
	if packet.Parse(link, header, p) != nil {
		return false, ok
	}
	p.Fill(r)
	if p.Known&flow.HasBytes == 0 { // the IP header does not say: then the frame does
		if cut := int64(frame) - int64(stripped) - int64(len(header)); cut > 0 {
			r.Bytes += uint64(cut)
		}
	}
	return true, ok
}

// sampledIP reads what agents send that do not pass on the header.
func (d *Decoder) sampledIP(b []byte, six bool) bool {
	size, address, family := 32, 4, flow.IPv4
	if six {
		size, address, family = 56, 16, flow.IPv6
	}
	if len(b) < size {
		return false
	}
	length, protocol := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if protocol > 255 {
		return false
	}
	r := &d.rec
	r.Key = flow.Key{Family: family, Protocol: uint8(protocol)}
	copy(r.Src[:], b[8:8+address])
	copy(r.Dst[:], b[8+address:8+2*address])
	b = b[8+2*address:]
	if length != 0 {
		r.Bytes = uint64(length)
		r.Known |= flow.HasBytes
	}
	src, dst := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	flags, tos := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	switch r.Protocol {
	case 6:
		if flags <= 0xff {
			r.TCPFlags = uint8(flags)
			r.Known |= flow.HasTCPFlags
		}
		fallthrough
	case 17, 33, 132, 136: // of ICMP the specification does not say what the ports are
		if src|dst <= 0xffff {
			r.SrcPort, r.DstPort = uint16(src), uint16(dst)
			r.Known |= flow.HasPorts
		}
	}
	if tos <= 0xff {
		r.TOS = uint8(tos)
		r.Known |= flow.HasTOS
	}
	return true
}

// gateway reads an extended gateway: the next hop, three AS numbers, and the path
// to the destination in segments of a type, a length and the numbers. What
// follows, communities and local preference, is not needed.
func (d *Decoder) gateway(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	address, ok := addressSize(binary.BigEndian.Uint32(b))
	if !ok || len(b) < 4+address+16 {
		return false
	}
	b = b[4+address:]
	src, dst := binary.BigEndian.Uint32(b[4:]), uint32(0)
	segments := binary.BigEndian.Uint32(b[12:])
	b = b[16:]
	for ; segments > 0; segments-- {
		if len(b) < 8 {
			return false
		}
		n := uint64(binary.BigEndian.Uint32(b[4:]))
		b = b[8:]
		if n > uint64(len(b)/4) {
			return false
		}
		if n > 0 {
			dst = binary.BigEndian.Uint32(b[4*n-4:])
			b = b[4*n:]
		}
	}
	if src|dst != 0 { // 0 is an unknown one, as in NetFlow
		r := &d.rec
		r.SrcAS, r.DstAS = src, dst
		r.Known |= flow.HasAS
	}
	return true
}

// translation reads an extended NAT: the addresses that the packet has on the
// other side, equal to its own where they are not translated.
func (d *Decoder) translation(b []byte, x *extended) bool {
	r := &d.rec
	for _, end := range [2]struct {
		address *[16]byte
		kind    *uint32
	}{{&r.TranslatedSrc, &x.srcNAT}, {&r.TranslatedDst, &x.dstNAT}} {
		if len(b) < 4 {
			return false
		}
		kind := binary.BigEndian.Uint32(b)
		n, ok := addressSize(kind)
		if !ok || len(b) < 4+n {
			return false
		}
		*end.address, *end.kind = [16]byte{}, kind
		copy(end.address[:], b[4:4+n])
		b = b[4+n:]
	}
	return true
}
