// SPDX-License-Identifier: BSD-3-Clause

// Package routing asks the kernel for addresses and routes through rtnetlink, and
// hears when they change.
//
// What comes is a chain of netlink messages (package nlmsg), whose payload is one of
// these, in host byte order, and attributes, whose addresses are in network byte order:
//
//	ifaddrmsg   8  family, length of the prefix, flags, scope, interface 4
//	rtmsg      12  family, length of the destination, of the source, TOS, table,
//	               protocol, scope, type, flags 4
package routing

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/overflowd/overflowd/internal/nlmsg"
)

// The package's errors.
var (
	// ErrFormat: a message of the kernel is not what this package describes.
	ErrFormat = nlmsg.ErrFormat
	// ErrNone: there is no such route.
	ErrNone = errors.New("no route")
	// ErrSystem: this system has no rtnetlink.
	ErrSystem = errors.New("routes can be read on Linux only")
)

// An Address of an interface.
type Address struct {
	Prefix netip.Prefix // the address itself, with the length of its network's prefix
	Index  uint32       // of the interface
}

// A Kind of route, with the numbers of linux/rtnetlink.h.
type Kind uint8

const (
	Unicast     Kind = 1
	Local       Kind = 2
	Blackhole   Kind = 6
	Unreachable Kind = 7
	Prohibit    Kind = 8
)

// MainTable is the number of the table that routes are in unless somebody says
// otherwise.
const MainTable = 254

// A Route of the kernel.
type Route struct {
	Prefix  netip.Prefix // all of a family is the default route
	Index   uint32       // of the one interface that it leads out of; 0 if there are several
	Table   uint32
	Kind    Kind
	Gateway bool // through a router; if not, the addresses are on the link
	Source  bool // for some sources only
}

// Default tells whether the route says nothing about an address: everything goes
// there.
func (r *Route) Default() bool { return r.Prefix.Bits() == 0 }

// Types of messages and attributes.
const (
	typeNewLink    = 16
	typeNewAddress = 20
	typeDelAddress = 21
	typeGetAddress = 22
	typeNewRoute   = 24
	typeDelRoute   = 25
	typeGetRoute   = 26

	ifaAddress = 1
	ifaLocal   = 2

	rtaDst       = 1
	rtaSrc       = 2
	rtaIIF       = 3
	rtaOIF       = 4
	rtaGateway   = 5
	rtaMultipath = 9
	rtaTable     = 15
	rtaVia       = 18

	fibMatch = 0x2000 // RTM_F_FIB_MATCH: the entry of the table, not the way of one packet
	cloned   = 0x200  // RTM_F_CLONED

	familyIPv4 = 2 // AF_INET
)

// families to ask for: AF_INET and AF_INET6 of Linux.
var families = [...]uint8{familyIPv4, 10}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

// prefix makes one of an attribute's value.
func prefix(family uint8, value []byte, bits uint8) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(value)
	if !ok || a.Is4() != (family == familyIPv4) || int(bits) > a.BitLen() {
		return netip.Prefix{}, ErrFormat
	}
	return netip.PrefixFrom(a, int(bits)), nil
}

// ParseAddress reads the payload of a message about an address.
func ParseAddress(b []byte) (a Address, err error) {
	if len(b) < 8 || b[0] != families[0] && b[0] != families[1] {
		return a, ErrFormat
	}
	family, bits := b[0], b[1]
	a.Index = binary.NativeEndian.Uint32(b[4:])
	local := false // of two ends of a line, ADDRESS is the other one
	for b = b[8:]; len(b) > 0; {
		var kind uint16
		var value []byte
		if kind, value, b, err = nlmsg.CutAttribute(b); err != nil {
			return a, err
		}
		if kind == ifaLocal || kind == ifaAddress && !local {
			if a.Prefix, err = prefix(family, value, bits); err != nil {
				return a, err
			}
			local = kind == ifaLocal
		}
	}
	if !a.Prefix.IsValid() {
		return a, ErrFormat
	}
	return a, nil
}

// ParseRoute reads the payload of a message about a route.
func ParseRoute(b []byte) (r Route, err error) {
	if len(b) < 12 || b[0] != families[0] && b[0] != families[1] {
		return r, ErrFormat
	}
	family, bits := b[0], b[1]
	r.Source, r.Table, r.Kind = b[2] != 0, uint32(b[4]), Kind(b[7])
	zero := [16]byte{}
	value := zero[:4]
	if family != familyIPv4 {
		value = zero[:]
	}
	several := false
	for b = b[12:]; len(b) > 0; {
		var kind uint16
		var v []byte
		if kind, v, b, err = nlmsg.CutAttribute(b); err != nil {
			return r, err
		}
		switch kind {
		case rtaDst:
			value = v
		case rtaGateway, rtaVia:
			r.Gateway = true
		case rtaMultipath:
			several = true
		case rtaOIF, rtaTable:
			if len(v) != 4 {
				return r, ErrFormat
			}
			if n := binary.NativeEndian.Uint32(v); kind == rtaOIF {
				r.Index = n
			} else {
				r.Table = n
			}
		}
	}
	if several {
		r.Index = 0
	}
	r.Prefix, err = prefix(family, value, bits)
	return r, err
}

// appendAttribute appends one, with its padding.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// appendQuery appends the payload that asks for a route to an address: for the
// entry of the table, or, with a source, for what becomes of a packet that comes in
// at an interface.
func appendQuery(b []byte, dst, src netip.Addr, in uint32) []byte {
	bits, flags := uint8(dst.BitLen()), uint32(fibMatch)
	srcBits := uint8(0)
	if src.IsValid() {
		srcBits, flags = bits, 0
	}
	b = append(b, familyOf(dst), bits, srcBits, 0, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, flags)
	b = appendAttribute(b, rtaDst, dst.AsSlice())
	if src.IsValid() {
		b = appendAttribute(b, rtaSrc, src.AsSlice())
		b = appendAttribute(b, rtaIIF, binary.NativeEndian.AppendUint32(nil, in))
	}
	return b
}
