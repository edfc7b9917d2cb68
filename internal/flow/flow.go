// SPDX-License-Identifier: BSD-3-Clause

// Package flow holds the one currency of the house: a flow key and a flow
// record as an exporter or a capture reported it. It has no logic beyond
// turning addresses into their textual type.
//
// Both types are free of pointers, so that a table of them is never scanned by
// the garbage collector, and are copied by value from the hot to the cold side.
package flow

import "net/netip"

// Family of a Key's addresses, with the numbers of the IP version field.
type Family uint8

const (
	// IPv4 addresses stand in the first 4 bytes of Key.Src and Key.Dst; the
	// other 12 bytes are zero.
	IPv4 Family = 4
	// IPv6 addresses fill the 16 bytes, network byte order.
	IPv6 Family = 6
)

// Key names a flow: the classical 5-tuple. It is comparable. The family is
// kept apart from the addresses, so that the IPv6 address ::ffff:192.0.2.1 is
// never taken for the IPv4 address 192.0.2.1.
type Key struct {
	Src, Dst [16]byte
	// SrcPort and DstPort are in host byte order. Of ICMP, DstPort holds
	// type*256+code, as NetFlow has it, and SrcPort is 0.
	SrcPort, DstPort uint16
	Protocol         uint8 // IANA protocol number
	Family           Family
}

// SrcAddr returns the source address; the zero Addr if the family is unknown.
func (k *Key) SrcAddr() netip.Addr { return k.addr(&k.Src) }

// DstAddr returns the destination address; the zero Addr if the family is
// unknown.
func (k *Key) DstAddr() netip.Addr { return k.addr(&k.Dst) }

func (k *Key) addr(a *[16]byte) netip.Addr {
	switch k.Family {
	case IPv4:
		return netip.AddrFrom4([4]byte(a[:4]))
	case IPv6:
		return netip.AddrFrom16(*a)
	}
	return netip.Addr{}
}

// Protocol a record was learnt from.
type Protocol uint8

const (
	NetFlow Protocol = iota + 1
	IPFIX
	SFlow
	// Capture: packets that we saw ourselves.
	Capture
	// Conntrack: the counters of our kernel's connection tracking.
	Conntrack
)

// String returns the name that the tracer's "sourcetype" has for it.
func (p Protocol) String() string {
	switch p {
	case NetFlow:
		return "Netflow"
	case IPFIX:
		return "IPFIX"
	case SFlow:
		return "sFlow"
	case Capture:
		return "Capture"
	case Conntrack:
		return "Conntrack"
	}
	return "unknown"
}

// Source says how a record was learnt: the tracer's "sourcetype".
type Source struct {
	Protocol Protocol
	Version  uint8 // the protocol's own version number, 5 for NetFlow v5; 0 if it has none
}

// Field is a bit of Record.Known.
type Field uint32

const (
	HasPorts Field = 1 << iota
	HasTOS
	HasTCPFlags
	HasPackets
	HasBytes
	HasStart
	HasEnd
	HasTTL // TTL and MaxTTL
	HasTranslatedSrc
	HasTranslatedDst
	HasTranslatedPorts
	HasIngress
	HasEgress
	HasVLAN
	HasAS
	HasDropped
	HasForwardingStatus
)

// Record is what was seen of one flow. A field whose bit in Known is not set
// was not reported and means nothing.
type Record struct {
	Key
	Known    Field
	Source   Source
	TOS      uint8
	TCPFlags uint8
	TTL      uint8 // smallest TTL or hop limit seen
	MaxTTL   uint8 // largest TTL or hop limit seen
	// ForwardingStatus is what the exporter did with the packets (RFC 7270,
	// section 4.12): the upper two bits are 1 of forwarded, 2 of dropped and 3
	// of consumed ones, the others the cause.
	ForwardingStatus uint8
	VLAN             uint16 // 802.1Q identifier, of the ingress side if there are two
	// Interval is the exporter's sampling interval N: 1 packet in N was
	// looked at. 0 if the exporter did not tell, 1 if it looks at each.
	Interval uint32
	// Packets and Bytes are as reported: of sampled traffic they are to be
	// multiplied by Interval. Bytes are of layer 3, IP header included.
	Packets, Bytes uint64
	// Start and End are the times of the first and last packet, in
	// milliseconds since the Unix epoch.
	Start, End int64
	// Dropped are the packets that the exporter did not forward, as reported.
	Dropped uint64
	// Ingress and Egress are the exporter's numbers of the interfaces.
	Ingress, Egress uint32
	SrcAS, DstAS    uint32
	// The ends as a network address translation left them, laid out as in Key:
	// what the packets bore behind the exporter.
	TranslatedSrc, TranslatedDst         [16]byte
	TranslatedSrcPort, TranslatedDstPort uint16
}
