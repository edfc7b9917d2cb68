// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"

	"github.com/overflowd/overflowd/internal/packet"
)

// A Filter says what the kernel keeps from us.
type Filter struct {
	// Thin is N if 1 packet in N is to be captured, chosen at random: see
	// Chance. 0 and 1 are all of them.
	Thin uint32
	// Exports are the flow export datagrams that come to us.
	Exports []Export
}

// Export is traffic of exporters to a port of ours.
type Export struct {
	To   netip.AddrPort // the unspecified address is any
	From []netip.Prefix
}

// maxPrefixes of exporters are put into the filter, of which the kernel takes
// 4,096 instructions. Traffic of the others is captured: who sends tracers has
// to look for it anyway.
const maxPrefixes = 100

// threshold is what the kernel's random number, of 32 bits, must be below.
func threshold(n uint32) uint32 { return uint32((1<<32 + uint64(n) - 1) / uint64(n)) }

// Chance returns the chance of a packet to be captured. It is not quite 1/N, but
// the next multiple of 2^-32 that is not below: who selects among the captured
// ones has to divide by it.
func Chance(thin uint32) float64 {
	if thin <= 1 {
		return 1
	}
	return float64(threshold(thin)) / (1 << 32)
}

const (
	udp        = 17
	tracerPort = 65535
)

// Operations of the machine of BSD's packet filter, of linux/bpf_common.h: it has
// an accumulator, an index register and a scratch memory.
const (
	load8         = 0x30 // of the packet, at an offset
	load16        = 0x28
	load32        = 0x20
	load8Index    = 0x50 // likewise, and the index
	load16Index   = 0x48
	headerToIndex = 0xb1 // 4 times the lower half of the byte at an offset
	zeroToIndex   = 0x01
	storeIndex    = 0x03
	loadIndex     = 0x61
	toIndex       = 0x07
	fromIndex     = 0x87
	addIndex      = 0x0c
	add           = 0x04
	and           = 0x54
	shiftLeft     = 0x64
	shiftRight    = 0x74
	jump          = 0x05
	jumpEqual     = 0x15
	jumpAbove     = 0x25
	jumpNotBelow  = 0x35
	jumpBits      = 0x45
	jumpLong      = 0x3d // not below the index
	ret           = 0x06

	loadLength = 0x80

	// The load of 32 bits at this offset is of the kernel's random number
	// (linux/filter.h: SKF_AD_OFF + SKF_AD_RANDOM).
	randomOffset = 0xfffff000 + 56
)

// An instruction of that machine.
type instruction = bpf.RawInstruction

func do(op uint16, k uint32) instruction { return instruction{Op: op, K: k} }

var pass, drop = do(ret, Snap), do(ret, 0)

// program returns the filter's instructions. Tracers, ours and others', ICMP
// errors that answer them, and flow export datagrams to us are dropped, and so is
// what is not IP, as far as one can see it: what stands behind tags that are
// still in the frame, PPPoE or IPv6's extension headers is captured.
func (f *Filter) program(link packet.LinkType) (p []instruction) {
	if f.Thin > 1 { // first, as it costs the least
		p = append(p, do(load32, randomOffset))
		p = append(p, when(jumpNotBelow, threshold(f.Thin), drop)...)
	}
	if link != packet.Ethernet {
		p = append(p, do(load8, 0), do(shiftRight, 4))
		p = append(p, when(jumpEqual, 4, f.ipv4(0)...)...)
		p = append(p, when(jumpEqual, 6, f.ipv6(0)...)...)
		return append(p, drop)
	}
	p = append(p, do(load16, 12))
	p = append(p, when(jumpEqual, 0x0800, f.ipv4(14)...)...)
	p = append(p, when(jumpEqual, 0x86dd, f.ipv6(14)...)...)
	for _, ethertype := range []uint32{0x8100, 0x88a8, 0x9100, 0x9200, 0x8864, 0x8847, 0x8848} { // tags, PPPoE, MPLS
		p = append(p, when(jumpEqual, ethertype, pass)...)
	}
	return append(p, drop)
}

// when does the block if the accumulator compares so, and else what follows it.
func when(test uint16, value uint32, block ...instruction) []instruction {
	if len(block) > 255 {
		return append([]instruction{{Op: test, K: value, Jf: 1}, do(jump, 1), do(jump, uint32(len(block)))}, block...)
	}
	return append([]instruction{{Op: test, K: value, Jf: uint8(len(block))}}, block...)
}

// unless does the block if the accumulator is not that value, and else what
// follows it.
func unless(value uint32, block ...instruction) []instruction {
	return append([]instruction{{Op: jumpEqual, K: value, Jt: uint8(len(block))}}, block...)
}

// unlessThere passes a packet that has fewer bytes than so many behind the index:
// the load that follows would drop it, and so nobody gets out of sight by a packet
// without a header. It keeps the index.
func unlessThere(n uint32) []instruction {
	return []instruction{
		do(storeIndex, 0), do(fromIndex, 0), do(add, n), do(toIndex, 0),
		do(loadLength, 0), {Op: jumpLong, Jt: 1}, pass,
		do(loadIndex, 0),
	}
}

// concat puts parts of a program together.
func concat(parts ...[]instruction) []instruction { return slices.Concat(parts...) }

func one(op uint16, k uint32) []instruction { return []instruction{do(op, k)} }

// ipv4 begins with an IPv4 header at an offset, and ends all ways.
func (f *Filter) ipv4(at uint32) []instruction {
	begin := concat(one(load16, at+6), when(jumpBits, 0x1fff, pass), one(headerToIndex, at)) // no later fragment
	datagram := concat(begin, unlessThere(at+4),
		one(load16Index, at), when(jumpEqual, tracerPort, drop),
		one(load16Index, at+2), when(jumpEqual, tracerPort, drop),
		f.exports(at+12, 4))
	// An ICMP error, of types 3 to 12, holds the packet that it answers (RFC 792).
	inner := at + 8
	failure := concat(begin, unlessThere(inner+20), one(load8Index, at))
	for _, question := range []uint32{0, 8, 9, 10} { // and answers
		failure = concat(failure, when(jumpEqual, question, pass))
	}
	failure = concat(failure, when(jumpAbove, 12, pass),
		one(load8Index, inner+9), unless(udp, pass),
		one(load8Index, inner), one(and, 15), one(shiftLeft, 2), one(addIndex, 0), one(toIndex, 0), unlessThere(inner+4),
		one(load16Index, inner+2), when(jumpEqual, tracerPort, drop), []instruction{pass})
	return concat(one(load8, at+9), when(jumpEqual, udp, datagram...), when(jumpEqual, 1, failure...), []instruction{pass})
}

// ipv6 is like ipv4.
func (f *Filter) ipv6(at uint32) []instruction {
	const header = 40
	datagram := concat(one(zeroToIndex, 0), unlessThere(at+header+4),
		one(load16, at+header), when(jumpEqual, tracerPort, drop),
		one(load16, at+header+2), when(jumpEqual, tracerPort, drop),
		f.exports(at+8, 16))
	inner := at + header + 8 // RFC 4443, section 2.1: errors are the types below 128
	failure := concat(one(zeroToIndex, 0), unlessThere(inner+header+4),
		one(load8, at+header), when(jumpNotBelow, 128, pass),
		one(load8, inner+6), unless(udp, pass),
		one(load16, inner+header+2), when(jumpEqual, tracerPort, drop), []instruction{pass})
	return concat(one(load8, at+6), when(jumpEqual, udp, datagram...), when(jumpEqual, 58, failure...), []instruction{pass})
}

// exports begins with the UDP destination port in the accumulator, and the
// addresses, of a size in bytes, at an offset. It ends all ways.
func (f *Filter) exports(source, size uint32) (b []instruction) {
	left := maxPrefixes
	for i := range f.Exports {
		e := &f.Exports[i]
		var block []instruction
		if to := e.To.Addr(); !to.IsUnspecified() {
			if to.BitLen() != int(size)*8 {
				continue
			}
			block = append(within(netip.PrefixFrom(to, to.BitLen()), source+size, 1), do(jump, 1), pass)
		}
		for _, from := range e.From {
			if from.Addr().BitLen() != int(size)*8 || left == 0 {
				continue
			}
			left--
			block = append(append(block, within(from, source, 1)...), drop)
		}
		b = append(b, when(jumpEqual, uint32(e.To.Port()), append(block, pass)...)...)
	}
	return append(b, pass)
}

// within goes on if the address at an offset is within the prefix, and else skips
// so many instructions of what follows.
func within(p netip.Prefix, at uint32, skip uint8) (b []instruction) {
	addr := p.Addr().AsSlice()
	for w := (p.Bits() + 31) / 32; w > 0; w-- { // from the last word, as one has to know what is skipped
		mask := ^uint32(0)
		if rest := p.Bits() - 32*(w-1); rest < 32 {
			mask <<= 32 - rest
		}
		word := []instruction{do(load32, at+uint32(4*(w-1)))}
		if mask != ^uint32(0) {
			word = append(word, do(and, mask))
		}
		want := binary.BigEndian.Uint32(addr[4*(w-1):]) & mask
		word = append(word, instruction{Op: jumpEqual, K: want, Jf: uint8(len(b)) + skip})
		b = append(word, b...)
	}
	return b
}
