// SPDX-License-Identifier: BSD-3-Clause

package packet

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
)

// Packet is what the headers of one packet tell of its flow. It holds no
// pointers. A field whose bit in Known is not set could not be read and means
// nothing, but for Bytes.
type Packet struct {
	flow.Key
	// Known has HasPorts, HasTOS, HasTCPFlags, HasTTL, HasVLAN and HasBytes as
	// far as the frame told them. ICMP's type and code are ports, as in
	// flow.Key.
	Known flow.Field
	// Bytes of layer 3, IP header included, as the IP header tells them: more
	// than there are of a frame that was cut. The header of a jumbogram, and
	// of one that segmentation is left to the card for, says 0: then it is
	// what the frame has behind the link layer, HasBytes is not set, and who
	// knows how much was cut off the frame adds that.
	Bytes uint32
	// VLAN is the outermost 802.1Q identifier. A tag with identifier 0 bears a
	// priority only and is none.
	VLAN     uint16
	TOS      uint8 // IPv6: traffic class
	TCPFlags uint8 // the eight from CWR to FIN
	TTL      uint8 // IPv6: hop limit
	// header is how many bytes the IP header with its extensions has, and that of
	// TCP, as far as the frame has them.
	header uint16
	// Fragment: not the first fragment of a packet. It belongs to the flow of
	// the first, but only that one bears the ports.
	Fragment bool
}

// Parse reads of what flow the packet in a frame is. Frames are often cut: what
// is there counts, down to the IP addresses. The error is ErrLinkType, ErrShort,
// ErrNotIP or ErrHeader, of an IPv4 header whose lengths lie within it, which no
// router forwards; p is then undefined. Tunnels are not looked into: the flow is
// the outer one.
func Parse(link LinkType, frame []byte, p *Packet) error {
	*p = Packet{}
	// The short way, in half of the instructions, for the frames that most are:
	// Ethernet without a tag, IPv4 without options, no fragment, TCP or UDP, with
	// at least the bytes of TCP's header.
	const size = 14 + 20 + 20
	if link != Ethernet || len(frame) < size {
		return p.parse(link, frame)
	}
	h := (*[size]byte)(frame)
	total := binary.BigEndian.Uint16(h[16:])
	if binary.BigEndian.Uint16(h[12:]) != etherIPv4 || h[14] != 0x45 || total < size-14 || h[20]&0x3f|h[21] != 0 {
		return p.parse(link, frame)
	}
	known, header := flow.HasTOS|flow.HasTTL|flow.HasBytes|flow.HasPorts, uint16(20)
	switch h[23] {
	case protoTCP:
		known |= flow.HasTCPFlags
		p.TCPFlags = h[47]
		header += uint16(h[46] >> 4 * 4)
	case protoUDP:
	default:
		return p.parse(link, frame)
	}
	*(*[4]byte)(p.Src[:]) = [4]byte(h[26:])
	*(*[4]byte)(p.Dst[:]) = [4]byte(h[30:])
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(h[34:]), binary.BigEndian.Uint16(h[36:])
	p.Protocol, p.Family = h[23], flow.IPv4
	p.Known, p.Bytes = known, uint32(total)
	p.TOS, p.TTL, p.header = h[15], h[22], header
	return nil
}

// parse is the long way, for any frame.
func (p *Packet) parse(link LinkType, frame []byte) error {
	b, err := p.link(link, frame)
	if p.Family == 0 {
		return err
	}
	p.transport(b)
	return nil
}

// transport reads ports and flags of a layer-4 header, of which any part may be
// missing.
func (p *Packet) transport(b []byte) {
	switch p.Protocol {
	case protoTCP:
		if len(b) >= 14 { // RFC 9293, section 3.1
			p.TCPFlags = b[13]
			p.Known |= flow.HasTCPFlags
			p.header += uint16(b[12] >> 4 * 4)
		}
		fallthrough
	case protoUDP, protoDCCP, protoSCTP, protoUDPLite:
		if len(b) >= 4 {
			p.SrcPort = binary.BigEndian.Uint16(b)
			p.DstPort = binary.BigEndian.Uint16(b[2:])
			p.Known |= flow.HasPorts
		}
	case protoICMP, protoICMPv6: // RFC 792, RFC 4443: type and code
		if len(b) >= 2 {
			p.DstPort = binary.BigEndian.Uint16(b)
			p.Known |= flow.HasPorts
		}
	}
}

// isError tells whether ICMP packets of a type are about others: destination
// unreachable, source quench, redirect, time exceeded, parameter problem; of ICMPv6
// those below 128.
func isError(protocol, kind uint8) bool {
	if protocol == protoICMPv6 {
		return kind < 128
	}
	return kind == 3 || kind == 4 || kind == 5 || kind == 11 || kind == 12
}

// Quoted returns the key of the flow that the ICMP error in a frame is about (RFC 792;
// RFC 4443); false if there is none, or it cannot be read.
func Quoted(link LinkType, frame []byte) (k flow.Key, ok bool) {
	var p, q Packet
	b, err := p.link(link, frame)
	if err != nil || len(b) < 8 || p.Protocol != protoICMP && p.Protocol != protoICMPv6 || !isError(p.Protocol, b[0]) {
		return k, false
	}
	b, _ = q.ip(b[8:])
	if q.Family == 0 {
		return k, false
	}
	switch q.Protocol {
	case protoTCP, protoUDP, protoDCCP, protoSCTP, protoUDPLite:
		if len(b) >= 4 {
			q.SrcPort = binary.BigEndian.Uint16(b)
			q.DstPort = binary.BigEndian.Uint16(b[2:])
		}
	case protoICMP, protoICMPv6:
		if len(b) >= 2 {
			q.DstPort = binary.BigEndian.Uint16(b)
		}
	}
	return q.Key, true
}

// Segments tells how many packets there were on the wire, and how many bytes of
// layer 3 they had, of one that the system has put together of segments that
// have size bytes of payload each, or will take apart to such (GRO, GSO, TSO; of
// TCP and UDP). An unlikely size makes it one packet.
func (p *Packet) Segments(size uint16) (packets uint32, bytes uint64) {
	header := uint32(p.header)
	if p.Protocol == protoUDP {
		header += 8
	}
	if size == 0 || p.Bytes <= header+uint32(size) {
		return 1, uint64(p.Bytes)
	}
	packets = (p.Bytes - header + uint32(size) - 1) / uint32(size)
	return packets, uint64(p.Bytes) + uint64(packets-1)*uint64(header)
}

// Fill writes what the packet tells into a record, whose other fields it leaves
// alone. Bytes are always known: see there.
func (p *Packet) Fill(r *flow.Record) {
	const fields = flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasTTL | flow.HasVLAN | flow.HasBytes
	r.Key = p.Key
	r.Known = r.Known&^fields | p.Known | flow.HasBytes
	r.Bytes = uint64(p.Bytes)
	r.TOS, r.TCPFlags, r.VLAN = p.TOS, p.TCPFlags, p.VLAN
	r.TTL, r.MaxTTL = p.TTL, p.TTL
}
