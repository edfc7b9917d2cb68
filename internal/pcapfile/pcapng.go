// SPDX-License-Identifier: BSD-3-Clause

package pcapfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/overflowd/overflowd/internal/packet"
)

// Block types (draft-ietf-opsawg-pcapng, section 11.1).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

const (
	// maxInterfaces of a section are remembered. More than that no file of
	// tcpdump, Wireshark or a router has.
	maxInterfaces = 4096
	// maxBlock that is read whole: a packet with its options.
	maxBlock = MaxPacket + 64<<10
)

// ng is the state of the section of a pcapng file.
type ng struct {
	interfaces []netInterface
}

type netInterface struct {
	link    packet.LinkType
	snaplen uint32
	ticks   uint64 // per second
	offset  int64  // seconds to be added
}

func (r *Reader) openNG() error {
	r.isNG = true
	if err := r.section(); err != nil {
		return fmt.Errorf("%w: pcapng section header: %w", ErrNotCapture, err)
	}
	return nil
}

// section reads a section header block, which sets the byte order anew.
func (r *Reader) section() error {
	b, err := r.peek(16)
	if err != nil {
		return r.short(err)
	}
	switch binary.BigEndian.Uint32(b[8:]) {
	case 0x1a2b3c4d:
		r.big = true
	case 0x4d3c2b1a:
		r.big = false
	default:
		return r.corrupt("a byte-order magic", binary.BigEndian.Uint32(b[8:]))
	}
	if major := r.u16(b[12:]); major != 1 {
		return fmt.Errorf("version %d is not known", major)
	}
	total := r.u32(b[4:])
	if total < 28 || total%4 != 0 || total > maxBlock {
		return r.corrupt("a section header", total)
	}
	r.ng.interfaces = r.ng.interfaces[:0]
	return r.skip(int(total))
}

func (r *Reader) nextNG(p *Packet) error {
	p.Data = nil
	for {
		b, err := r.peek(8)
		if err != nil {
			if err == io.EOF && len(b) == 0 {
				return io.EOF
			}
			return r.short(err)
		}
		if binary.BigEndian.Uint32(b) == blockSection { // a palindrome: the same in both byte orders
			if err := r.section(); err != nil {
				return err
			}
			continue
		}
		kind, total := r.u32(b), r.u32(b[4:])
		if total < 12 || total%4 != 0 {
			return r.corrupt("a block", total)
		}
		switch kind {
		case blockInterface, blockPacket, blockSimple, blockEnhanced:
		default: // of any size
			if int64(total) > math.MaxInt32 {
				return r.corrupt("a block", total)
			}
			if err := r.skip(int(total)); err != nil {
				return err
			}
			continue
		}
		if total > maxBlock {
			return r.corrupt("a block", total)
		}
		b, err = r.peek(int(total))
		whole := err == nil
		if whole && r.u32(b[total-4:]) != total {
			return r.corrupt("a block whose two lengths differ", total)
		}
		// The last packet of a file that was cut is read as far as it goes.
		body := b[8:]
		if whole {
			body = b[8 : total-4]
		}
		if kind == blockInterface {
			if !whole {
				r.pos += len(b)
				return r.short(err)
			}
			if bad := r.addInterface(body); bad != nil {
				return bad
			}
			r.pos += len(b)
			continue
		}
		bad := r.packet(kind, total, body, whole, p)
		r.pos += len(b)
		if !whole {
			return r.short(err)
		}
		return bad
	}
}

func (r *Reader) addInterface(body []byte) error {
	if len(body) < 8 {
		return r.corrupt("an interface block", uint32(len(body)+12))
	}
	if len(r.ng.interfaces) == maxInterfaces {
		return r.corrupt("more interfaces than the limit", maxInterfaces)
	}
	i := netInterface{link: packet.LinkType(r.u16(body)), snaplen: r.u32(body[4:]), ticks: 1e6}
	for o := body[8:]; len(o) >= 4; {
		code, n := r.u16(o), int(r.u16(o[2:]))
		if o = o[4:]; code == 0 || n > len(o) {
			break
		}
		switch {
		case code == 9 && n == 1 && o[0]&0x80 != 0: // if_tsresol: a power of 2
			i.ticks = 1 << min(o[0]&0x7f, 63)
		case code == 9 && n == 1: // or of 10
			i.ticks = 1
			for range min(o[0], 19) {
				i.ticks *= 10
			}
		case code == 14 && n == 8: // if_tsoffset
			high, low := r.u32(o), r.u32(o[4:])
			if !r.big {
				high, low = low, high
			}
			i.offset = int64(uint64(high)<<32 | uint64(low))
		}
		o = o[min((n+3)&^3, len(o)):]
	}
	r.ng.interfaces = append(r.ng.interfaces, i)
	return nil
}

// packet reads a block that holds a packet. Of a block that is not whole, body
// is what there is.
func (r *Reader) packet(kind, total uint32, body []byte, whole bool, p *Packet) error {
	fixed := 20
	if kind == blockSimple {
		fixed = 4
	}
	if total < uint32(fixed)+12 {
		return r.corrupt("a packet block", total)
	}
	if len(body) < fixed {
		return ErrTruncated
	}
	id, captured := uint32(0), uint32(0)
	switch kind {
	case blockEnhanced:
		id, captured, p.Length = r.u32(body), r.u32(body[12:]), r.u32(body[16:])
	case blockPacket:
		id, captured, p.Length = uint32(r.u16(body)), r.u32(body[12:]), r.u32(body[16:])
	}
	if int64(id) >= int64(len(r.ng.interfaces)) {
		return r.corrupt("a packet of an unknown interface", id)
	}
	i := &r.ng.interfaces[id]
	room := total - 12 - uint32(fixed)
	p.LinkType, p.Time = i.link, 0
	if kind == blockSimple {
		p.Length = r.u32(body)
		captured = min(p.Length, room)
		if i.snaplen != 0 {
			captured = min(captured, i.snaplen)
		}
	} else {
		p.Time = i.time(uint64(r.u32(body[4:]))<<32 | uint64(r.u32(body[8:])))
	}
	if captured > room || captured > MaxPacket {
		return r.corrupt("a packet", captured)
	}
	p.Data = body[fixed:min(fixed+int(captured), len(body))]
	return nil
}

// time turns ticks into nanoseconds since the epoch, 0 if that does not fit.
func (i *netInterface) time(ticks uint64) int64 {
	seconds, rest := ticks/i.ticks, ticks%i.ticks
	high, low := bits.Mul64(rest, 1e9)
	nanoseconds, _ := bits.Div64(high, low, i.ticks)
	const most = 1 << 32 // seconds, in the year 2106
	if seconds > most || i.offset > most || i.offset < -most {
		return 0
	}
	return (int64(seconds)+i.offset)*1e9 + int64(nanoseconds)
}
