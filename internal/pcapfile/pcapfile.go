// SPDX-License-Identifier: BSD-3-Clause

// Package pcapfile reads capture files: pcap (draft-ietf-opsawg-pcap) and
// pcapng (draft-ietf-opsawg-pcapng), as they come, in either byte order and
// from a pipe as well. Whatever a file claims, no more is allocated than one
// packet of MaxPacket bytes needs.
package pcapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"github.com/overflowd/overflowd/internal/packet"
)

// MaxPacket is the largest packet that is read, in bytes: the largest snapshot
// length of libpcap.
const MaxPacket = 262144

var (
	// ErrNotCapture: the file is of another kind. It is wrapped with the
	// reason.
	ErrNotCapture = errors.New("not a capture file")
	// ErrTruncated: the file ends within a packet or a header. All before it
	// was read.
	ErrTruncated = errors.New("cut short")
	// ErrCorrupt: a length in the file is impossible, so that what follows
	// cannot be found. It is wrapped with the place.
	ErrCorrupt = errors.New("corrupt")
)

// Packet is one captured packet.
type Packet struct {
	// Data is borrowed: it is valid until the next call.
	Data     []byte
	LinkType packet.LinkType
	// Time is in nanoseconds since the Unix epoch. 0 if the file does not
	// tell, as in the simple packet block of pcapng.
	Time int64
	// Length of the packet on the wire, in bytes.
	Length uint32
}

// A Reader is not safe for concurrent use.
type Reader struct {
	r        io.Reader
	buf      []byte
	pos, end int   // what is buffered: buf[pos:end]
	base     int64 // offset in the file of buf[0]
	err      error // of r, once it gave one

	isNG bool // pcapng
	big  bool
	pcap classic
	ng   ng
}

// classic is the state of a pcap file.
type classic struct {
	link    packet.LinkType
	perTick int64 // nanoseconds
	header  int   // bytes before a packet
}

// NewReader reads the header of a capture file.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{r: r, buf: make([]byte, bufferOf(r))}
	b, err := f.peek(4)
	switch {
	case err != nil && len(b) == 0:
		if err == io.EOF {
			err = errors.New("it is empty")
		}
		return nil, fmt.Errorf("%w: %w", ErrNotCapture, err)
	case err != nil:
		return nil, fmt.Errorf("%w: it has %d bytes only", ErrNotCapture, len(b))
	}
	switch magic := binary.BigEndian.Uint32(b); magic {
	case 0xa1b2c3d4, 0xa1b23c4d, 0xa1b2cd34:
		return f, f.openClassic(magic, true)
	case 0xd4c3b2a1, 0x4d3cb2a1, 0x34cdb2a1:
		return f, f.openClassic(binary.LittleEndian.Uint32(b), false)
	case blockSection:
		return f, f.openNG()
	default:
		return nil, fmt.Errorf("%w: %s", ErrNotCapture, describe(b))
	}
}

// bufferOf returns the size of the buffer: of a large file, more at once is read
// faster, by a tenth of all that its packets cost.
func bufferOf(r io.Reader) int {
	if file, ok := r.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 16<<20 {
			return 256 << 10
		}
	}
	return 64 << 10
}

// describe says what a file that begins so may be.
func describe(b []byte) string {
	for _, k := range []struct{ magic, text string }{
		{"\x1f\x8b", "it is compressed with gzip: try zcat FILE | overflowd -f -"},
		{"\x28\xb5\x2f\xfd", "it is compressed with zstd: try zstdcat FILE | overflowd -f -"},
		{"\xfd7zX", "it is compressed with xz: try xzcat FILE | overflowd -f -"},
		{"BZh", "it is compressed with bzip2: try bzcat FILE | overflowd -f -"},
		{"\xa5\x0c", "it is an nfcapd file: only captures of the export datagrams are read"},
		{"\x0c\xa5", "it is an nfcapd file: only captures of the export datagrams are read"},
	} {
		if string(b[:len(k.magic)]) == k.magic {
			return k.text
		}
	}
	return fmt.Sprintf("it begins with % x, which is neither pcap nor pcapng", b)
}

// Next reads the next packet. It returns io.EOF at the end of the file. With
// ErrTruncated, p holds what there is of a last packet, Data being empty if that
// is nothing. After an error there is nothing more to read.
func (r *Reader) Next(p *Packet) error {
	if r.isNG {
		return r.nextNG(p)
	}
	header := r.pcap.header
	b := r.buf[r.pos:r.end]
	if len(b) < header {
		var err error
		if b, err = r.fill(header); err != nil {
			p.Data = nil
			if err == io.EOF && len(b) == 0 {
				return io.EOF
			}
			return r.short(err)
		}
	}
	h := (*[16]byte)(b)
	seconds, fraction := binary.LittleEndian.Uint32(h[0:]), binary.LittleEndian.Uint32(h[4:])
	captured, length := binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:])
	if r.big {
		seconds, fraction = bits.ReverseBytes32(seconds), bits.ReverseBytes32(fraction)
		captured, length = bits.ReverseBytes32(captured), bits.ReverseBytes32(length)
	}
	if captured > MaxPacket {
		p.Data = nil
		return r.corrupt("a packet", captured)
	}
	p.LinkType = r.pcap.link
	p.Time = int64(seconds)*1e9 + int64(fraction)*r.pcap.perTick
	p.Length = length
	size := header + int(captured)
	if len(b) < size {
		var err error
		b, err = r.fill(size)
		if err != nil {
			r.pos += len(b)
			p.Data = b[header:]
			return r.short(err)
		}
	}
	r.pos += size
	p.Data = b[header:size]
	return nil
}

// peek returns the next n bytes without passing them, n <= MaxPacket + 64. If
// there are fewer, it returns them with io.EOF or the error of the file.
func (r *Reader) peek(n int) ([]byte, error) {
	if r.end-r.pos >= n {
		return r.buf[r.pos : r.pos+n], nil
	}
	return r.fill(n)
}

func (r *Reader) fill(n int) ([]byte, error) {
	if r.pos > 0 {
		copy(r.buf, r.buf[r.pos:r.end])
		r.base += int64(r.pos)
		r.end -= r.pos
		r.pos = 0
	}
	if n > len(r.buf) {
		r.buf = append(make([]byte, 0, n), r.buf[:r.end]...)[:n]
	}
	for idle := 0; r.end < n && r.err == nil; {
		var m int
		m, r.err = r.r.Read(r.buf[r.end:])
		r.end += m
		if idle++; m > 0 {
			idle = 0
		} else if idle > 100 && r.err == nil {
			r.err = io.ErrNoProgress
		}
	}
	if r.end < n {
		return r.buf[:r.end], r.err
	}
	return r.buf[:n], nil
}

// skip passes n bytes of any number.
func (r *Reader) skip(n int) error {
	for n > 0 {
		step := min(n, len(r.buf))
		b, err := r.peek(step)
		r.pos += len(b)
		if err != nil {
			return r.short(err)
		}
		n -= step
	}
	return nil
}

func (r *Reader) u16(b []byte) uint16 {
	if r.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (r *Reader) u32(b []byte) uint32 {
	if r.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// short turns the end of the file into ErrTruncated.
func (r *Reader) short(err error) error {
	if err == io.EOF {
		return ErrTruncated
	}
	return err
}

func (r *Reader) corrupt(what string, n uint32) error {
	return fmt.Errorf("%w at byte %d: %s of %d", ErrCorrupt, r.base+int64(r.pos), what, n)
}

func (r *Reader) openClassic(magic uint32, big bool) error {
	r.big = big
	b, err := r.peek(24)
	if err != nil {
		return fmt.Errorf("%w: its header is %w", ErrNotCapture, r.short(err))
	}
	if major := r.u16(b[4:]); major != 2 {
		return fmt.Errorf("%w: pcap version %d is not known", ErrNotCapture, major)
	}
	r.pcap = classic{perTick: 1000, header: 16, link: packet.LinkType(r.u32(b[20:]))}
	switch magic {
	case 0xa1b23c4d:
		r.pcap.perTick = 1
	case 0xa1b2cd34: // Kuznetzov's: 8 more bytes before each packet
		r.pcap.header = 24
	}
	r.pos += 24
	return nil
}
