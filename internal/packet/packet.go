// SPDX-License-Identifier: BSD-3-Clause

// Package packet takes captured frames apart without copying or allocating.
package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// LinkType says how a frame begins, with the numbers of the registry at
// tcpdump.org/linktypes.html.
type LinkType uint16

const (
	Null     LinkType = 0   // BSD loopback: address family in the byte order of the capturing host
	Ethernet LinkType = 1   // no preamble, no FCS
	RawBSD   LinkType = 12  // DLT_RAW as some systems write it
	RawBSDI  LinkType = 14  // likewise
	Raw      LinkType = 101 // IPv4 or IPv6
	Loop     LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinuxSLL LinkType = 113 // Linux "any" device, 16 bytes
	RawIPv4  LinkType = 228
	RawIPv6  LinkType = 229
	SLL2     LinkType = 276 // Linux "any" device, 20 bytes
)

// What keeps a frame from being a whole UDP datagram.
var (
	ErrLinkType = errors.New("link type is not read")
	ErrShort    = errors.New("shorter than its headers")
	ErrHeader   = errors.New("a header contradicts itself")
	ErrNotIP    = errors.New("not IP")
	ErrNotUDP   = errors.New("not UDP")
	ErrFragment = errors.New("a fragment of an IP packet")
)

// Datagram is a UDP datagram (RFC 768) in a frame.
type Datagram struct {
	Src, Dst netip.AddrPort
	// Payload is borrowed from the frame.
	Payload []byte
	// Truncated: the capture holds less of the payload than there was.
	Truncated bool
}

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864
	// maxTags of VLAN are looked behind; real frames have up to two.
	maxTags = 8
	// maxExtensions of IPv6 are looked behind.
	maxExtensions = 16
)

// ParseUDP finds the UDP datagram in a frame. The checksums are not looked at:
// frames are often captured before the network card computes them. The error is
// one of the package's and d is then undefined.
func ParseUDP(link LinkType, frame []byte, d *Datagram) error {
	switch link {
	case Ethernet:
		if len(frame) < 14 {
			return ErrShort
		}
		return parseEther(binary.BigEndian.Uint16(frame[12:]), frame[14:], d)
	case Raw, RawBSD, RawBSDI, RawIPv4, RawIPv6:
		return parseIP(frame, d)
	case Null, Loop:
		if len(frame) < 4 {
			return ErrShort
		}
		return parseFamily(link, frame, d)
	case LinuxSLL:
		if len(frame) < 16 {
			return ErrShort
		}
		return parseEther(binary.BigEndian.Uint16(frame[14:]), frame[16:], d)
	case SLL2:
		if len(frame) < 20 {
			return ErrShort
		}
		return parseEther(binary.BigEndian.Uint16(frame), frame[20:], d)
	}
	return ErrLinkType
}

// parseFamily reads the loopback header: AF_INET is 2 everywhere, AF_INET6 is
// 24, 28 or 30 on the BSDs and 10 on Linux.
func parseFamily(link LinkType, frame []byte, d *Datagram) error {
	family := binary.BigEndian.Uint32(frame)
	if link == Null && family > 0xffff { // written on a little-endian host
		family = binary.LittleEndian.Uint32(frame)
	}
	switch family {
	case 2:
		return parseIPv4(frame[4:], d)
	case 10, 24, 28, 30:
		return parseIPv6(frame[4:], d)
	}
	return ErrNotIP
}

func parseEther(ethertype uint16, b []byte, d *Datagram) error {
	for range maxTags {
		switch ethertype {
		case etherIPv4:
			return parseIPv4(b, d)
		case etherIPv6:
			return parseIPv6(b, d)
		case 0x8100, 0x88a8, 0x9100, 0x9200: // IEEE 802.1Q, 802.1ad, and what came before it
			if len(b) < 4 {
				return ErrShort
			}
			ethertype, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherPPPoE: // RFC 2516, section 4: version and type 1, code 0, session, length, PPP protocol
			if len(b) < 8 {
				return ErrShort
			}
			if b[0] != 0x11 || b[1] != 0 {
				return ErrNotIP
			}
			switch binary.BigEndian.Uint16(b[6:]) {
			case 0x0021:
				return parseIPv4(b[8:], d)
			case 0x0057:
				return parseIPv6(b[8:], d)
			}
			return ErrNotIP
		default:
			return ErrNotIP
		}
	}
	return ErrNotIP
}

func parseIP(b []byte, d *Datagram) error {
	if len(b) == 0 {
		return ErrShort
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b, d)
	case 6:
		return parseIPv6(b, d)
	}
	return ErrNotIP
}

// parseIPv4 reads RFC 791, section 3.1.
func parseIPv4(b []byte, d *Datagram) error {
	if len(b) < 20 {
		return ErrShort
	}
	if b[0]>>4 != 4 {
		return ErrNotIP
	}
	header := int(b[0]&15) * 4
	if header < 20 {
		return ErrHeader
	}
	if header > len(b) {
		return ErrShort
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // more fragments, or an offset
		return ErrFragment
	}
	if b[9] != 17 {
		return ErrNotUDP
	}
	// A total length of 0 is what segmentation offload leaves in a capture.
	if total := int(binary.BigEndian.Uint16(b[2:])); total != 0 {
		if total < header {
			return ErrHeader
		}
		if total < len(b) { // behind it is the padding of a short Ethernet frame
			b = b[:total]
		}
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	return parseUDP(src, dst, b[header:], d)
}

// parseIPv6 reads RFC 8200, sections 3 and 4.
func parseIPv6(b []byte, d *Datagram) error {
	if len(b) < 40 {
		return ErrShort
	}
	if b[0]>>4 != 6 {
		return ErrNotIP
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next := b[6]
	// A payload length of 0 is that of a jumbogram, or of offload.
	if n := int(binary.BigEndian.Uint16(b[4:])); n != 0 && n+40 < len(b) {
		b = b[:n+40]
	}
	b = b[40:]
	for range maxExtensions {
		if next == 17 {
			return parseUDP(src, dst, b, d)
		}
		size := 0
		switch next {
		case 0, 43, 60, 135: // hop-by-hop, routing, destination options, mobility
			if len(b) < 2 {
				return ErrShort
			}
			size = 8 + int(b[1])*8
		case 51: // authentication header (RFC 4302, section 2.2)
			if len(b) < 2 {
				return ErrShort
			}
			size = 8 + int(b[1])*4
		case 44:
			if len(b) < 8 {
				return ErrShort
			}
			if binary.BigEndian.Uint16(b[2:])&0xfff9 != 0 { // not the atomic fragment of RFC 6946
				return ErrFragment
			}
			size = 8
		default:
			return ErrNotUDP
		}
		if len(b) < size {
			return ErrShort
		}
		next, b = b[0], b[size:]
	}
	return ErrNotUDP
}

func parseUDP(src, dst netip.Addr, b []byte, d *Datagram) error {
	if len(b) < 8 {
		return ErrShort
	}
	d.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	d.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	length := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case length == 0: // a jumbogram (RFC 2675, section 4): up to the end
		length = len(b)
	case length < 8:
		return ErrHeader
	}
	d.Truncated = length > len(b)
	d.Payload = b[8:min(length, len(b))]
	return nil
}
