// SPDX-License-Identifier: BSD-3-Clause

// Package capture takes packets from a network interface of Linux, through a
// ring that the kernel and the program share (AF_PACKET, TPACKET_V3: see
// Documentation/networking/packet_mmap.rst of the kernel). What is not wanted is
// dropped in the kernel, by a filter.
package capture

import "github.com/overflowd/overflowd/internal/packet"

// A Frame is what the ring holds of one.
type Frame struct {
	// Data is what was captured, at most Snap bytes from the link layer on. It
	// is borrowed from the ring until the next frame is asked for.
	Data []byte
	// Length of the frame when it was captured, in bytes, without the VLAN tag
	// that was taken off.
	Length uint32
	Time   int64 // ms since the Unix epoch
	// Nanosecond of the second that Time is in.
	Nanosecond uint32
	// VLAN is the outermost 802.1Q identifier if the tag was taken off before
	// the frame came to us, as most drivers do; else 0.
	VLAN     uint16
	Outgoing bool // sent by this system
	// Segment is the size of the payload of the packets that stand behind this
	// one, if the system has put several together (GRO) or leaves it to the card
	// to take it apart (TSO); else 0. See packet.Segments.
	Segment uint16
}

// Nanoseconds returns the time in ns since the Unix epoch.
func (f *Frame) Nanoseconds() int64 { return f.Time/1000*1e9 + int64(f.Nanosecond) }

// Snap is how many bytes of a frame are captured: the headers down to the
// transport's, with two tags and PPPoE, and some of IPv6's extensions.
const Snap = 128

// Stats of a ring, since it was opened.
type Stats struct {
	Packets uint64 // that passed the filter
	Dropped uint64 // of them, as the ring was full
}

// linkOf returns how frames begin on an interface of a hardware type, as the
// kernel numbers them (include/uapi/linux/if_arp.h).
func linkOf(hardware uint16) (link packet.LinkType, ok bool) {
	switch hardware {
	case 1, 772: // Ethernet, loopback
		return packet.Ethernet, true
	case 512, 519, 768, 769, 776, 778, 823, 0xfffe: // PPP, raw IP, tunnels, none (as tun and WireGuard)
		return packet.Raw, true
	}
	return 0, false
}
