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

// An assembler puts a program together. Blocks begin with a jump over them, whose
// width is known when they end.
type assembler []instruction

//go:noinline
func (a *assembler) do(op uint16, k uint32) { *a = append(*a, instruction{Op: op, K: k}) }

func (a *assembler) ret(snap uint32) { a.do(ret, snap) }

// when begins a block that is done if the accumulator compares so. end ends it.
//
//go:noinline
func (a *assembler) when(test uint16, value uint32) (block int) {
	a.do(test, value)
	(*a)[len(*a)-1].Jf = 1
	a.do(jump, 1) // a test jumps no farther than 255
	a.do(jump, 0)
	return len(*a)
}

func (a *assembler) end(block int) { (*a)[block-1].K = uint32(len(*a) - block) }

// retWhen returns if the accumulator compares so.
//
//go:noinline
func (a *assembler) retWhen(test uint16, value, snap uint32) {
	a.do(test, value)
	(*a)[len(*a)-1].Jf = 1
	a.ret(snap)
}

// need passes a packet that has fewer bytes than so many behind the index: the
// load that follows would drop it, and so nobody gets out of sight by a packet
// without a header. It keeps the index.
func (a *assembler) need(n uint32) {
	a.do(storeIndex, 0)
	a.do(fromIndex, 0)
	a.do(add, n)
	a.do(toIndex, 0)
	a.do(loadLength, 0)
	a.do(jumpLong, 0)
	(*a)[len(*a)-1].Jt = 1
	a.ret(Snap)
	a.do(loadIndex, 0)
}

// program returns the filter's instructions. Tracers, ours and others', ICMP
// errors that answer them, and flow export datagrams to us are dropped, and so is
// what is not IP, as far as one can see it: what stands behind tags that are
// still in the frame, PPPoE or IPv6's extension headers is captured.
func (f *Filter) program(link packet.LinkType) []instruction {
	a := &assembler{}
	if f.Thin > 1 { // first, as it costs the least
		a.do(load32, randomOffset)
		a.retWhen(jumpNotBelow, threshold(f.Thin), 0)
	}
	at, v4, v6 := uint32(14), uint32(0x0800), uint32(0x86dd)
	if link == packet.Ethernet {
		a.do(load16, 12)
	} else {
		at, v4, v6 = 0, 4, 6
		a.do(load8, 0)
		a.do(shiftRight, 4)
	}
	block := a.when(jumpEqual, v4)
	f.ipv4(a, at)
	a.end(block)
	block = a.when(jumpEqual, v6)
	f.ipv6(a, at)
	a.end(block)
	if link == packet.Ethernet {
		for _, ethertype := range []uint32{0x8100, 0x88a8, 0x9100, 0x9200, 0x8864, 0x8847, 0x8848} { // tags, PPPoE, MPLS
			a.retWhen(jumpEqual, ethertype, Snap)
		}
	}
	a.ret(0)
	return *a
}

// ipv4 begins with an IPv4 header at an offset, and ends all ways.
func (f *Filter) ipv4(a *assembler, at uint32) {
	a.do(load16, at+6)
	a.retWhen(jumpBits, 0x1fff, Snap) // a later fragment
	a.do(headerToIndex, at)
	a.do(load8, at+9)
	datagram := a.when(jumpEqual, udp)
	a.need(at + 4)
	a.ports(load16Index, at)
	f.exports(a, at+12, 4)
	a.end(datagram)
	failure := a.when(jumpEqual, 1)
	// An ICMP error, of types 3 to 12, holds the packet that it answers (RFC 792).
	inner := at + 8
	a.need(inner + 20)
	a.do(load8Index, at)
	for _, question := range []uint32{0, 8, 9, 10} { // and answers
		a.retWhen(jumpEqual, question, Snap)
	}
	a.retWhen(jumpAbove, 12, Snap)
	a.do(load8Index, inner+9)
	block := a.when(jumpEqual, udp)
	a.do(load8Index, inner)
	a.do(and, 15)
	a.do(shiftLeft, 2)
	a.do(addIndex, 0)
	a.do(toIndex, 0)
	a.need(inner + 4)
	a.do(load16Index, inner+2)
	a.retWhen(jumpEqual, tracerPort, 0)
	a.end(block)
	a.end(failure)
	a.ret(Snap)
}

// ipv6 is like ipv4.
func (f *Filter) ipv6(a *assembler, at uint32) {
	const header = 40
	a.do(zeroToIndex, 0)
	a.do(load8, at+6)
	datagram := a.when(jumpEqual, udp)
	a.need(at + header + 4)
	a.ports(load16Index, at+header)
	f.exports(a, at+8, 16)
	a.end(datagram)
	failure := a.when(jumpEqual, 58)
	inner := at + header + 8 // RFC 4443, section 2.1: errors are the types below 128
	a.need(inner + header + 4)
	a.do(load8, at+header)
	a.retWhen(jumpNotBelow, 128, Snap)
	a.do(load8, inner+6)
	block := a.when(jumpEqual, udp)
	a.do(load16, inner+header+2)
	a.retWhen(jumpEqual, tracerPort, 0)
	a.end(block)
	a.end(failure)
	a.ret(Snap)
}

// ports drops the datagrams of tracers, and leaves the destination port in the
// accumulator.
func (a *assembler) ports(load uint16, at uint32) {
	a.do(load, at)
	a.retWhen(jumpEqual, tracerPort, 0)
	a.do(load, at+2)
	a.retWhen(jumpEqual, tracerPort, 0)
}

// exports begins with the UDP destination port in the accumulator, and the
// addresses, of a size in bytes, at an offset. It ends all ways.
func (f *Filter) exports(a *assembler, source, size uint32) {
	left := maxPrefixes
	for i := range f.Exports {
		port := f.Exports[i].To.Port()
		if slices.ContainsFunc(f.Exports[:i], func(e Export) bool { return e.To.Port() == port }) {
			continue // it was with the others of the port
		}
		block := a.when(jumpEqual, uint32(port))
		for _, e := range f.Exports[i:] {
			to := e.To.Addr()
			if e.To.Port() != port || !to.IsUnspecified() && to.BitLen() != int(size)*8 {
				continue
			}
			var within []int
			if !to.IsUnspecified() {
				within = a.within(netip.PrefixFrom(to, to.BitLen()), source+size)
			}
			for _, from := range e.From {
				if from.Addr().BitLen() == int(size)*8 && left > 0 {
					left--
					blocks := a.within(from, source)
					a.ret(0)
					a.ends(blocks)
				}
			}
			a.ends(within)
		}
		a.ret(Snap)
		a.end(block)
	}
	a.ret(Snap)
}

// within begins blocks that are done if the address at an offset is within a
// prefix.
func (a *assembler) within(p netip.Prefix, at uint32) (blocks []int) {
	addr := p.Addr().AsSlice()
	for bits := p.Bits(); bits > 0; bits -= 32 {
		mask := ^uint32(0)
		if bits < 32 {
			mask <<= 32 - bits
		}
		a.do(load32, at)
		a.do(and, mask)
		blocks = append(blocks, a.when(jumpEqual, binary.BigEndian.Uint32(addr)&mask))
		at, addr = at+4, addr[4:]
	}
	return blocks
}

func (a *assembler) ends(blocks []int) {
	for _, b := range blocks {
		a.end(b)
	}
}
