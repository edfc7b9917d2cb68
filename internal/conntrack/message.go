// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/nlmsg"
)

// Types of messages of the subsystem ctnetlink.
const (
	typeNew     = 1 << 8
	typeGet     = 1<<8 | 1
	typeDestroy = 1<<8 | 2
)

// Types of attributes, named as in linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaZone          = 18

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	nested = 1 << 15 // NLA_F_NESTED
)

// take calls f for each connection that a datagram tells of in answer to the
// request of a number. The entry is e. It reports whether the answer ends with
// the datagram; an error may come before.
func take(b []byte, sequence uint32, e *Entry, f func(*Entry)) (done bool, err error) {
	for len(b) > 0 {
		m, rest, broken := nlmsg.Cut(b)
		if broken != nil {
			return true, broken
		}
		b = rest
		if m.Sequence != sequence { // the late answer to an earlier request
			continue
		}
		if m.Flags&nlmsg.Interrupted != 0 {
			err = ErrInconsistent
		}
		switch m.Kind {
		case nlmsg.Error, nlmsg.Done:
			if refused := m.Err(); refused != nil {
				err = refused
			}
			return true, err
		case typeNew:
			if broken := parse(m.Payload, e); broken != nil {
				err = broken
			} else {
				f(e)
			}
		}
		if m.Flags&nlmsg.Multi == 0 {
			return true, err
		}
	}
	return false, err
}

// parse reads the connection that the payload of a message tells of. Both tuples
// must be there with addresses and protocol; all else may be missing. If the
// error, which is ErrFormat, is not nil, e is undefined.
func parse(b []byte, e *Entry) error {
	*e = Entry{}
	if len(b) < 4 {
		return ErrFormat
	}
	var counted [2]bool
	for b = b[4:]; len(b) > 0; {
		var kind uint16
		var value []byte
		var err error
		if kind, value, b, err = nlmsg.CutAttribute(b); err != nil {
			return err
		}
		switch kind {
		case ctaTupleOrig:
			err = e.parseTuple(value, &e.Original)
		case ctaTupleReply:
			err = e.parseTuple(value, &e.Reply)
		case ctaCountersOrig:
			counted[Original], err = e.parseCounters(value, Original)
		case ctaCountersReply:
			counted[Reply], err = e.parseCounters(value, Reply)
		case ctaID:
			if len(value) != 4 {
				return ErrFormat
			}
			e.ID = binary.BigEndian.Uint32(value)
		case ctaZone:
			err = e.parseZone(value)
		}
		if err != nil {
			return err
		}
	}
	if e.Original.Family == 0 || e.Reply.Family == 0 {
		return ErrFormat
	}
	e.Counted = counted[Original] && counted[Reply]
	if !e.Counted {
		e.Packets, e.Bytes = [2]uint64{}, [2]uint64{}
	}
	return nil
}

func (e *Entry) parseZone(value []byte) error {
	if len(value) != 2 {
		return ErrFormat
	}
	e.Zone = binary.BigEndian.Uint16(value)
	return nil
}

func (e *Entry) parseCounters(b []byte, direction int) (whole bool, err error) {
	var seen uint8
	for len(b) > 0 {
		var kind uint16
		var value []byte
		if kind, value, b, err = nlmsg.CutAttribute(b); err != nil {
			return false, err
		}
		if kind != ctaCountersPackets && kind != ctaCountersBytes {
			continue
		}
		if len(value) != 8 {
			return false, ErrFormat
		}
		n := binary.BigEndian.Uint64(value)
		if kind == ctaCountersPackets {
			e.Packets[direction] = n
		} else {
			e.Bytes[direction] = n
		}
		seen |= 1 << kind
	}
	return seen == 1<<ctaCountersPackets|1<<ctaCountersBytes, nil
}

func (e *Entry) parseTuple(b []byte, k *flow.Key) error {
	*k = flow.Key{}
	var addresses, protocol bool
	for len(b) > 0 {
		var kind uint16
		var value []byte
		var err error
		if kind, value, b, err = nlmsg.CutAttribute(b); err != nil {
			return err
		}
		switch kind {
		case ctaTupleIP:
			err, addresses = parseAddresses(value, k), true
		case ctaTupleProto:
			err, protocol = parseProtocol(value, k), true
		case ctaTupleZone:
			err = e.parseZone(value)
		}
		if err != nil {
			return err
		}
	}
	if !addresses || !protocol {
		return ErrFormat
	}
	return nil
}

func parseAddresses(b []byte, k *flow.Key) error {
	k.Src, k.Dst = [16]byte{}, [16]byte{}
	var seen uint8
	for len(b) > 0 {
		kind, value, rest, err := nlmsg.CutAttribute(b)
		if err != nil {
			return err
		}
		b = rest
		if kind < ctaIPv4Src || kind > ctaIPv6Dst {
			continue
		}
		n, a := 4, &k.Src
		if kind >= ctaIPv6Src {
			n = 16
		}
		if kind == ctaIPv4Dst || kind == ctaIPv6Dst {
			a = &k.Dst
		}
		if len(value) != n {
			return ErrFormat
		}
		copy(a[:], value)
		seen |= 1 << kind
	}
	switch seen {
	case 1<<ctaIPv4Src | 1<<ctaIPv4Dst:
		k.Family = flow.IPv4
	case 1<<ctaIPv6Src | 1<<ctaIPv6Dst:
		k.Family = flow.IPv6
	default:
		return ErrFormat
	}
	return nil
}

func parseProtocol(b []byte, k *flow.Key) error {
	known := false
	for len(b) > 0 {
		kind, value, rest, err := nlmsg.CutAttribute(b)
		if err != nil {
			return err
		}
		b = rest
		n := 1
		switch kind {
		case ctaProtoSrcPort, ctaProtoDstPort:
			n = 2
		case ctaProtoNum, ctaProtoICMPType, ctaProtoICMPCode, ctaProtoICMPv6Type, ctaProtoICMPv6Code:
		default:
			continue
		}
		if len(value) != n {
			return ErrFormat
		}
		switch kind {
		case ctaProtoNum:
			k.Protocol, known = value[0], true
		case ctaProtoSrcPort:
			k.SrcPort = binary.BigEndian.Uint16(value)
		case ctaProtoDstPort:
			k.DstPort = binary.BigEndian.Uint16(value)
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			k.DstPort = uint16(value[0])<<8 | k.DstPort&0xff
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			k.DstPort = k.DstPort&0xff00 | uint16(value[0])
		}
	}
	if !known {
		return ErrFormat
	}
	if k.Protocol == protoGRE { // its keys
		k.SrcPort, k.DstPort = 0, 0
	}
	return nil
}

// appendQuery appends the payload of a request for the connection that has k for
// one of its tuples.
func appendQuery(b []byte, k *flow.Key) []byte {
	src, dst, family := k.Src[:], k.Dst[:], byte(10) // AF_INET6
	kinds := [2]uint16{ctaIPv6Src, ctaIPv6Dst}
	if k.Family == flow.IPv4 {
		src, dst, family = src[:4], dst[:4], 2 // AF_INET
		kinds = [2]uint16{ctaIPv4Src, ctaIPv4Dst}
	}
	var ip, proto, tuple []byte
	ip = appendAttribute(ip, kinds[0], src)
	ip = appendAttribute(ip, kinds[1], dst)
	proto = appendAttribute(proto, ctaProtoNum, []byte{k.Protocol})
	proto = appendAttribute(proto, ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, k.SrcPort))
	proto = appendAttribute(proto, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, k.DstPort))
	tuple = appendAttribute(tuple, nested|ctaTupleIP, ip)
	tuple = appendAttribute(tuple, nested|ctaTupleProto, proto)
	return appendAttribute(append(b, family, 0, 0, 0), nested|ctaTupleOrig, tuple)
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}
