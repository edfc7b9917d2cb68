// SPDX-License-Identifier: BSD-3-Clause

package packet

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
)

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864
	// maxTags of VLAN are looked behind; real frames have up to two.
	maxTags = 8
	// maxLabels of MPLS are looked behind.
	maxLabels = 16
	// maxExtensions of IPv6 are looked behind.
	maxExtensions = 16
)

// Protocol numbers of IANA.
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoDCCP    = 33
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// The methods below are the one walk over the headers. They fill p from the
// headers they pass and return what stands behind the last one, as far as it is
// in the frame and of the packet, or nil if the layer-4 header cannot be
// reached. p.Family is set once the addresses were read. The error is why the
// packet is not a whole one: with p.Family set it is ErrFragment of any fragment,
// the first one too, ErrShort if an IP header is cut, and ErrNotUDP behind too
// many extension headers.

// link starts at the first byte of a frame.
func (p *Packet) link(link LinkType, frame []byte) ([]byte, error) {
	switch link {
	case Ethernet:
		if len(frame) < 14 {
			return nil, ErrShort
		}
		return p.ether(binary.BigEndian.Uint16(frame[12:]), frame[14:])
	case Raw, RawBSD, RawBSDI, RawIPv4, RawIPv6:
		return p.ip(frame)
	case Null, Loop:
		if len(frame) < 4 {
			return nil, ErrShort
		}
		return p.loopback(link, frame)
	case LinuxSLL:
		if len(frame) < 16 {
			return nil, ErrShort
		}
		return p.ether(binary.BigEndian.Uint16(frame[14:]), frame[16:])
	case SLL2:
		if len(frame) < 20 {
			return nil, ErrShort
		}
		return p.ether(binary.BigEndian.Uint16(frame), frame[20:])
	case PPP:
		if len(frame) >= 2 && frame[0] == 0xff && frame[1] == 3 { // RFC 1662, section 3.1
			frame = frame[2:]
		}
		return p.ppp(frame)
	case MPLS:
		return p.mpls(frame)
	}
	return nil, ErrLinkType
}

// loopback reads the loopback header: AF_INET is 2 everywhere, AF_INET6 is 24,
// 28 or 30 on the BSDs and 10 on Linux.
func (p *Packet) loopback(link LinkType, frame []byte) ([]byte, error) {
	family := binary.BigEndian.Uint32(frame)
	if link == Null && family > 0xffff { // written on a little-endian host
		family = binary.LittleEndian.Uint32(frame)
	}
	switch family {
	case 2:
		return p.ipv4(frame[4:])
	case 10, 24, 28, 30:
		return p.ipv6(frame[4:])
	}
	return nil, ErrNotIP
}

// ether starts behind an ethertype.
func (p *Packet) ether(ethertype uint16, b []byte) ([]byte, error) {
	for range maxTags {
		switch ethertype {
		case etherIPv4:
			return p.ipv4(b)
		case etherIPv6:
			return p.ipv6(b)
		case 0x8100, 0x88a8, 0x9100, 0x9200: // IEEE 802.1Q, 802.1ad, and what came before it
			if len(b) < 4 {
				return nil, ErrShort
			}
			if id := binary.BigEndian.Uint16(b) & 0xfff; id != 0 && p.Known&flow.HasVLAN == 0 {
				p.VLAN = id
				p.Known |= flow.HasVLAN
			}
			ethertype, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherPPPoE: // RFC 2516, section 4: version and type 1, code 0, session, length
			if len(b) < 8 {
				return nil, ErrShort
			}
			if b[0] != 0x11 || b[1] != 0 {
				return nil, ErrNotIP
			}
			return p.ppp(b[6:])
		case 0x8847, 0x8848: // RFC 5332, section 3
			return p.mpls(b)
		default:
			return nil, ErrNotIP
		}
	}
	return nil, ErrNotIP
}

// ppp reads the protocol field (RFC 1661, section 2) with its numbers of IANA.
func (p *Packet) ppp(b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, ErrShort
	}
	switch binary.BigEndian.Uint16(b) {
	case 0x0021:
		return p.ipv4(b[2:])
	case 0x0057:
		return p.ipv6(b[2:])
	case 0x0281, 0x0283:
		return p.mpls(b[2:])
	}
	return nil, ErrNotIP
}

// mpls reads RFC 3032, section 2.1. What the labels mean only their router
// knows: IP is what looks like it, and an Ethernet pseudowire is not read.
func (p *Packet) mpls(b []byte) ([]byte, error) {
	for range maxLabels {
		if len(b) < 4 {
			return nil, ErrShort
		}
		bottom := b[2]&1 != 0
		b = b[4:]
		if bottom {
			return p.ip(b)
		}
	}
	return nil, ErrNotIP
}

func (p *Packet) ip(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, ErrShort
	}
	switch b[0] >> 4 {
	case 4:
		return p.ipv4(b)
	case 6:
		return p.ipv6(b)
	}
	return nil, ErrNotIP
}

// ipv4 reads RFC 791, section 3.1.
func (p *Packet) ipv4(b []byte) ([]byte, error) {
	if len(b) < 20 {
		return nil, ErrShort
	}
	h := (*[20]byte)(b)
	if h[0]>>4 != 4 {
		return nil, ErrNotIP
	}
	header := int(h[0]&15) * 4
	total := int(binary.BigEndian.Uint16(h[2:]))
	if header < 20 || total != 0 && total < header {
		return nil, ErrHeader
	}
	p.Family = flow.IPv4
	*(*[4]byte)(p.Src[:]) = [4]byte(h[12:])
	*(*[4]byte)(p.Dst[:]) = [4]byte(h[16:])
	p.Protocol = h[9]
	p.TOS, p.TTL = h[1], h[8]
	p.header = uint16(header)
	p.Known |= flow.HasTOS | flow.HasTTL
	p.Bytes = uint32(len(b))
	if total != 0 {
		p.Bytes = uint32(total)
		p.Known |= flow.HasBytes
		if total < len(b) { // behind it is the padding of a short Ethernet frame
			b = b[:total]
		}
	}
	// Bit 13 says that more fragments follow, the lower ones where this stands.
	fragment := binary.BigEndian.Uint16(h[6:]) & 0x3fff
	p.Fragment = fragment&0x1fff != 0
	switch {
	case header > len(b):
		return nil, ErrShort
	case p.Fragment:
		return nil, ErrFragment
	case fragment != 0:
		return b[header:], ErrFragment
	}
	return b[header:], nil
}

// ipv6 reads RFC 8200, sections 3 and 4. If an extension header is cut, its
// number stays the packet's protocol.
func (p *Packet) ipv6(b []byte) ([]byte, error) {
	if len(b) < 40 {
		return nil, ErrShort
	}
	h := (*[40]byte)(b)
	if h[0]>>4 != 6 {
		return nil, ErrNotIP
	}
	p.Family = flow.IPv6
	p.Src, p.Dst = [16]byte(h[8:]), [16]byte(h[24:])
	p.TOS, p.TTL = h[0]<<4|h[1]>>4, h[7]
	p.Known |= flow.HasTOS | flow.HasTTL
	p.Bytes = uint32(len(b))
	if n := int(binary.BigEndian.Uint16(h[4:])); n != 0 {
		p.Bytes = uint32(40 + n)
		p.Known |= flow.HasBytes
		if n+40 < len(b) {
			b = b[:n+40]
		}
	}
	p.Protocol, b = h[6], b[40:]
	p.header = 40
	short, end := ErrShort, error(nil) // both are ErrFragment behind a first fragment's header
	for range maxExtensions {
		size := 0
		switch p.Protocol {
		case 0, 43, 60, 135: // hop-by-hop, routing, destination options, mobility
			if len(b) < 2 {
				return nil, short
			}
			size = 8 + int(b[1])*8
		case 51: // authentication header (RFC 4302, section 2.2)
			if len(b) < 2 {
				return nil, short
			}
			size = 8 + int(b[1])*4
		case 44:
			if len(b) < 8 {
				return nil, short
			}
			fragment := binary.BigEndian.Uint16(b[2:]) & 0xfff9
			if fragment > 1 {
				p.Protocol, p.Fragment = b[0], true
				return nil, ErrFragment
			}
			if fragment != 0 { // not the atomic fragment of RFC 6946
				short, end = ErrFragment, ErrFragment
			}
			size = 8
		default:
			return b, end
		}
		if len(b) < size {
			return nil, short
		}
		p.Protocol, b = b[0], b[size:]
		p.header += uint16(size)
	}
	return nil, ErrNotUDP
}
