// SPDX-License-Identifier: BSD-3-Clause

// Package conntrack reads the kernel's connection tracking through ctnetlink:
// what a network address translation makes of a flow, and how much each
// connection has carried, offloaded or not.
//
// What comes is a chain of netlink messages (RFC 3549, section 2.3.2), each
// padded to 4 bytes. What is netlink's is in host byte order, what a value means
// is in network byte order:
//
//	header     16  length, type 2, flags 2, sequence 4, port 4
//	nfgenmsg    4  address family, version, zone
//	attributes     each: length 2, type 2, value; padded to 4 bytes
//
//	TUPLE_ORIG, TUPLE_REPLY
//	    TUPLE_IP     V4_SRC 4, V4_DST 4, or V6_SRC 16, V6_DST 16
//	    TUPLE_PROTO  NUM 1, and SRC_PORT 2, DST_PORT 2, or ICMP's ID 2, TYPE 1, CODE 1
//	    TUPLE_ZONE 2, if only this direction is in the zone
//	COUNTERS_ORIG, COUNTERS_REPLY
//	    PACKETS 8, BYTES 8
//	ID 4, ZONE 2
package conntrack

import (
	"errors"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/nlmsg"
)

// The package's errors.
var (
	// ErrNone: there is no such connection.
	ErrNone = errors.New("no such connection")
	// ErrInconsistent: the table has changed so much while it was dumped that
	// connections may be missing or have come twice.
	ErrInconsistent = errors.New("the connections changed while they were read")
	// ErrFormat: a message of the kernel is not what this package describes.
	ErrFormat = nlmsg.ErrFormat
	// ErrMissing: the kernel has no connection tracking or does not tell of it.
	ErrMissing = errors.New("the kernel has no connection tracking: are nf_conntrack and nf_conntrack_netlink loaded?")
)

// The two directions of a connection, of Entry.Packets and Entry.Bytes.
const (
	Original = iota
	Reply
)

// An Entry is one connection. It holds no pointers.
type Entry struct {
	// ID is the kernel's number of the connection. It may be given anew once
	// the connection is gone.
	ID uint32
	// Zone is the one that both directions, or only one of them, are in; 0 is
	// the usual one.
	Zone uint16
	// Original is the key of the packets in the first packet's direction, and
	// Reply that of the packets in the other one, both as they come in, before
	// any translation. GRE's keys are no ports, and are left out as a packet's
	// flow.Key leaves them out; so is the identifier of ICMP. Of DCCP, whose
	// packets have ports, kernels that do not track it tell none.
	Original, Reply flow.Key
	// Counted says whether the connection has counters: it has if
	// net.netfilter.nf_conntrack_acct was 1 when it began.
	Counted bool
	// Packets and Bytes of each direction since the connection began. Bytes
	// are of layer 3, IP header included.
	Packets, Bytes [2]uint64
}

// Other returns what the translation makes of a packet's key on the other side
// of the router, wherever and in whichever direction the packet was seen. If
// nothing is translated, that is the same key. ok is false if the packet is not
// of this connection; an ICMP error about the connection is not.
func (e *Entry) Other(k *flow.Key) (other flow.Key, ok bool) {
	switch *k {
	case e.Original:
		return reverse(&e.Reply), true
	case e.Reply:
		return reverse(&e.Original), true
	}
	switch reverse(k) {
	case e.Original:
		return e.Reply, true
	case e.Reply:
		return e.Original, true
	}
	return flow.Key{}, false
}

// reverse returns the key of the packets that answer those of k.
func reverse(k *flow.Key) flow.Key {
	r := *k
	r.Src, r.Dst = k.Dst, k.Src
	switch k.Protocol {
	case protoICMP, protoICMPv6:
		r.DstPort = uint16(answer(k.Protocol, uint8(k.DstPort>>8)))<<8 | k.DstPort&0xff
	default:
		r.SrcPort, r.DstPort = k.DstPort, k.SrcPort
	}
	return r
}

const (
	protoICMP   = 1
	protoGRE    = 47
	protoICMPv6 = 58
)

// answer returns the ICMP type that answers another, or that it answers. Types
// that are neither are the same both ways: the kernel tracks none of them.
func answer(protocol, kind uint8) uint8 {
	switch {
	case protocol == protoICMPv6:
		switch kind {
		case 128, 139: // echo (RFC 4443), node information (RFC 4620)
			return kind + 1
		case 129, 140:
			return kind - 1
		}
	case kind == 0: // echo (RFC 792)
		return 8
	case kind == 8:
		return 0
	case kind == 13, kind == 15, kind == 17: // timestamp, information (RFC 792), address mask (RFC 950)
		return kind + 1
	case kind == 14, kind == 16, kind == 18:
		return kind - 1
	}
	return kind
}
