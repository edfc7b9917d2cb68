// SPDX-License-Identifier: BSD-3-Clause

// Package packet takes captured frames apart without copying or allocating. One
// walk over the headers, from the link layer up to the transport, serves both
// who wants the flow of a packet (Parse) and who wants the datagram in it
// (ParseUDP).
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
	PPP      LinkType = 9   // RFC 1661; with the framing of RFC 1662, section 3.1, or without
	RawBSD   LinkType = 12  // DLT_RAW as some systems write it
	RawBSDI  LinkType = 14  // likewise
	Raw      LinkType = 101 // IPv4 or IPv6
	Loop     LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinuxSLL LinkType = 113 // Linux "any" device, 16 bytes
	MPLS     LinkType = 219 // a label stack (RFC 3032)
	RawIPv4  LinkType = 228
	RawIPv6  LinkType = 229
	SLL2     LinkType = 276 // Linux "any" device, 20 bytes
)

// What keeps a frame from being a whole UDP datagram, the first four also from
// being of any flow.
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

// ParseUDP finds the UDP datagram in a frame. The checksums are not looked at:
// frames are often captured before the network card computes them. The error is
// one of the package's and d is then undefined.
func ParseUDP(link LinkType, frame []byte, d *Datagram) error {
	var p Packet
	b, err := p.link(link, frame)
	if err != nil {
		return err
	}
	if p.Protocol != protoUDP {
		return ErrNotUDP
	}
	if len(b) < 8 {
		return ErrShort
	}
	d.Src = netip.AddrPortFrom(p.SrcAddr(), binary.BigEndian.Uint16(b))
	d.Dst = netip.AddrPortFrom(p.DstAddr(), binary.BigEndian.Uint16(b[2:]))
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
