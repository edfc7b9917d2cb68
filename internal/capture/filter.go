// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"net/netip"

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

// program returns the filter's instructions, in the machine language of BSD's
// packet filter. Tracers, ours and others', ICMP errors that answer them, and
// flow export datagrams to us are dropped, and so is what is not IP, as far as
// one can see it: what stands behind tags that are still in the frame, PPPoE
// or IPv6's extension headers is captured.
func (f *Filter) program(link packet.LinkType) []bpf.Instruction {
	var p []bpf.Instruction
	if f.Thin > 1 { // first, as it costs the least
		p = append(p, bpf.LoadExtension{Num: bpf.ExtRand})
		p = append(p, when(bpf.JumpGreaterOrEqual, threshold(f.Thin), drop)...)
	}
	if link != packet.Ethernet {
		p = append(p, bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
		p = append(p, when(bpf.JumpEqual, 4, f.ipv4(0)...)...)
		p = append(p, when(bpf.JumpEqual, 6, f.ipv6(0)...)...)
		return append(p, drop)
	}
	p = append(p, bpf.LoadAbsolute{Off: 12, Size: 2})
	p = append(p, when(bpf.JumpEqual, 0x0800, f.ipv4(14)...)...)
	p = append(p, when(bpf.JumpEqual, 0x86dd, f.ipv6(14)...)...)
	for _, ethertype := range []uint32{0x8100, 0x88a8, 0x9100, 0x9200, 0x8864, 0x8847, 0x8848} { // tags, PPPoE, MPLS
		p = append(p, when(bpf.JumpEqual, ethertype, pass)...)
	}
	return append(p, drop)
}

var (
	pass bpf.Instruction = bpf.RetConstant{Val: Snap}
	drop bpf.Instruction = bpf.RetConstant{Val: 0}
)

// when does the block if the register compares so, and else what follows it.
func when(test bpf.JumpTest, value uint32, block ...bpf.Instruction) []bpf.Instruction {
	if len(block) > 255 {
		return append([]bpf.Instruction{bpf.JumpIf{Cond: test, Val: value, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(block))}}, block...)
	}
	return append([]bpf.Instruction{bpf.JumpIf{Cond: test, Val: value, SkipFalse: uint8(len(block))}}, block...)
}

// ipv4 begins with an IPv4 header at an offset, and ends all ways.
func (f *Filter) ipv4(at uint32) []bpf.Instruction {
	fragment := append([]bpf.Instruction{bpf.LoadAbsolute{Off: at + 6, Size: 2}}, when(bpf.JumpBitsSet, 0x1fff, pass)...)
	behind := bpf.LoadMemShift{Off: at}

	datagram := append([]bpf.Instruction{}, fragment...)
	datagram = append(datagram, behind)
	datagram = append(datagram, unlessThere(at+4)...)
	datagram = append(datagram, bpf.LoadIndirect{Off: at, Size: 2})
	datagram = append(datagram, when(bpf.JumpEqual, tracerPort, drop)...)
	datagram = append(datagram, bpf.LoadIndirect{Off: at + 2, Size: 2})
	datagram = append(datagram, when(bpf.JumpEqual, tracerPort, drop)...)
	datagram = append(datagram, f.exports(at+12, 4)...)

	// An ICMP error holds the packet that it answers (RFC 792).
	inner := at + 8
	failure := append([]bpf.Instruction{}, fragment...)
	failure = append(failure, behind)
	failure = append(failure, unlessThere(inner+20)...)
	failure = append(failure, bpf.LoadIndirect{Off: at, Size: 1})
	failure = append(failure, when(bpf.JumpGreaterThan, 12, pass)...)
	for _, question := range []uint32{0, 8, 9, 10} { // and answers
		failure = append(failure, when(bpf.JumpEqual, question, pass)...)
	}
	failure = append(failure, bpf.LoadIndirect{Off: inner + 9, Size: 1})
	failure = append(failure, when(bpf.JumpNotEqual, udp, pass)...)
	failure = append(failure, bpf.LoadIndirect{Off: inner, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{})
	failure = append(failure, unlessThere(inner+4)...)
	failure = append(failure, bpf.LoadIndirect{Off: inner + 2, Size: 2})
	failure = append(failure, when(bpf.JumpEqual, tracerPort, drop)...)
	failure = append(failure, pass)

	b := []bpf.Instruction{bpf.LoadAbsolute{Off: at + 9, Size: 1}}
	b = append(b, when(bpf.JumpEqual, udp, datagram...)...)
	b = append(b, when(bpf.JumpEqual, 1, failure...)...)
	return append(b, pass)
}

// ipv6 is like ipv4.
func (f *Filter) ipv6(at uint32) []bpf.Instruction {
	const header = 40
	datagram := append([]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX}}, unlessThere(at+header+4)...)
	datagram = append(datagram, bpf.LoadAbsolute{Off: at + header, Size: 2})
	datagram = append(datagram, when(bpf.JumpEqual, tracerPort, drop)...)
	datagram = append(datagram, bpf.LoadAbsolute{Off: at + header + 2, Size: 2})
	datagram = append(datagram, when(bpf.JumpEqual, tracerPort, drop)...)
	datagram = append(datagram, f.exports(at+8, 16)...)

	inner := at + header + 8 // RFC 4443, section 2.1: errors are the types below 128
	failure := append([]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX}}, unlessThere(inner+header+4)...)
	failure = append(failure, bpf.LoadAbsolute{Off: at + header, Size: 1})
	failure = append(failure, when(bpf.JumpGreaterOrEqual, 128, pass)...)
	failure = append(failure, bpf.LoadAbsolute{Off: inner + 6, Size: 1})
	failure = append(failure, when(bpf.JumpNotEqual, udp, pass)...)
	failure = append(failure, bpf.LoadAbsolute{Off: inner + header + 2, Size: 2})
	failure = append(failure, when(bpf.JumpEqual, tracerPort, drop)...)
	failure = append(failure, pass)

	b := []bpf.Instruction{bpf.LoadAbsolute{Off: at + 6, Size: 1}}
	b = append(b, when(bpf.JumpEqual, udp, datagram...)...)
	b = append(b, when(bpf.JumpEqual, 58, failure...)...)
	return append(b, pass)
}

// unlessThere passes a packet that has fewer bytes than so many behind the index
// register: the load that follows would drop it, and so nobody gets out of sight
// by a packet without a header. It keeps the index register.
func unlessThere(n uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.StoreScratch{Src: bpf.RegX}, bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: n}, bpf.TAX{},
		bpf.LoadExtension{Num: bpf.ExtLen}, bpf.JumpIfX{Cond: bpf.JumpGreaterOrEqual, SkipTrue: 1}, pass,
		bpf.LoadScratch{Dst: bpf.RegX},
	}
}

// exports begins with the UDP destination port in the register, and the
// addresses, of a size in bytes, at an offset. It ends all ways.
func (f *Filter) exports(source, size uint32) []bpf.Instruction {
	var b []bpf.Instruction
	left := maxPrefixes
	for i := range f.Exports {
		e := &f.Exports[i]
		var block []bpf.Instruction
		if to := e.To.Addr(); !to.IsUnspecified() {
			if to.BitLen() != int(size)*8 {
				continue
			}
			block = append(block, unlessWithin(netip.PrefixFrom(to, to.BitLen()), source+size, pass)...)
		}
		for _, from := range e.From {
			if from.Addr().BitLen() != int(size)*8 || left == 0 {
				continue
			}
			left--
			block = append(block, unlessWithin(from, source, nil)...)
			block = append(block, drop)
		}
		b = append(b, when(bpf.JumpEqual, uint32(e.To.Port()), append(block, pass)...)...)
	}
	return append(b, pass)
}

// unlessWithin does otherwise if the address at an offset is not within the
// prefix; nil is to skip the one instruction that follows.
func unlessWithin(p netip.Prefix, at uint32, otherwise bpf.Instruction) []bpf.Instruction {
	var b []bpf.Instruction
	addr := p.Addr().AsSlice()
	words := (p.Bits() + 31) / 32
	for w := range words {
		mask := ^uint32(0)
		if rest := p.Bits() - 32*w; rest < 32 {
			mask <<= 32 - rest
		}
		want := binary.BigEndian.Uint32(addr[4*w:]) & mask
		b = append(b, bpf.LoadAbsolute{Off: at + uint32(4*w), Size: 4})
		if mask != ^uint32(0) {
			b = append(b, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
		}
		if otherwise != nil {
			b = append(b, when(bpf.JumpNotEqual, want, otherwise)...)
			continue
		}
		left := 0 // instructions of the words that follow
		for v := w + 1; v < words; v++ {
			if left += 2; p.Bits()-32*v < 32 {
				left++
			}
		}
		b = append(b, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: want, SkipTrue: uint8(left + 1)})
	}
	return b
}
