// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
	"github.com/overflowd/overflowd/internal/pcapfile"
)

// Frames is what those of a capture file are.
type Frames uint8

const (
	// Either: the first ones tell.
	Either Frames = iota
	// Exports are flow export datagrams that are to be decoded.
	Exports
	// Packets are those of flows.
	Packets
)

// A File takes the frames of a capture file to the selector.
type File struct {
	Frames Frames // Either until the first ones are read
	Feed   *Feed  // takes exports
	Watch  *Watch // takes packets
	Draw   Draw

	view view
}

// A file of exports has them for the most part among its first lookAt frames, or
// lookAtBytes.
const (
	lookAt      = 32
	lookAtBytes = 64 << 10
)

// Read reads the file. It stops at the end, when ctx is done, or at the first
// error of the file, which it returns: a file that is cut short was read to its
// last whole record all the same.
func (f *File) Read(ctx context.Context, r io.Reader) error {
	file, err := pcapfile.NewReader(r)
	if err != nil {
		return err
	}
	f.view = view{thin: 1, draw: f.Draw, record: flow.Record{Source: flow.Source{Protocol: flow.Capture}}}
	defer f.finish()
	if d := f.Watch.detector; d != nil {
		d.Sync()
	}
	var p pcapfile.Packet
	if end := f.begin(file, &p); end != nil {
		return f.end(end, &p)
	}
	for n := 0; ; n++ {
		if end := file.Next(&p); end != nil {
			return f.end(end, &p)
		}
		if f.Frames == Packets { // as take does, without the call
			f.view.link = p.LinkType
			f.Watch.see(&f.view, p.Data, p.Length, p.Time/1e6, 0)
		} else {
			f.decode(&p)
		}
		if n%256 == 0 {
			f.Watch.flush(&f.view)
			if ctx.Err() != nil {
				return nil
			}
		}
	}
}

// begin finds out what the frames are, unless one knows, by the first ones, and
// takes those. It returns what the reader does at last.
func (f *File) begin(file *pcapfile.Reader, p *pcapfile.Packet) (end error) {
	var first []pcapfile.Packet
	for size := 0; f.Frames == Either && len(first) < lookAt && size < lookAtBytes && end == nil; {
		if end = file.Next(p); end == nil || len(p.Data) > 0 && errors.Is(end, pcapfile.ErrTruncated) {
			size += len(p.Data)
			first = append(first, *p)
			first[len(first)-1].Data = slices.Clone(p.Data)
		}
	}
	if f.Frames == Either {
		f.Frames = guess(first)
	}
	for i := range first {
		f.take(&first[i])
	}
	p.Data = nil
	return end
}

// end takes what there is of a last frame that is cut.
func (f *File) end(end error, p *pcapfile.Packet) error {
	if len(p.Data) > 0 && errors.Is(end, pcapfile.ErrTruncated) {
		f.take(p)
	}
	if end == io.EOF {
		return nil
	}
	return end
}

func (f *File) finish() {
	f.Feed.finish()
	f.Watch.flush(&f.view)
}

func (f *File) take(p *pcapfile.Packet) {
	if f.Frames != Packets {
		f.decode(p)
		return
	}
	f.view.link = p.LinkType
	f.Watch.see(&f.view, p.Data, p.Length, p.Time/1e6, 0)
}

func (f *File) decode(p *pcapfile.Packet) {
	var d packet.Datagram
	if err := packet.ParseUDP(p.LinkType, p.Data, &d); err != nil {
		add(&f.Feed.Counters.Drops[frameReason(err)], 1)
	} else {
		f.Feed.receive(d.Src, p.Time/1e9, d.Payload)
	}
}

// frameReason names an error of packet.ParseUDP.
func frameReason(err error) Reason {
	switch err {
	case packet.ErrNotUDP, packet.ErrNotIP:
		return Foreign
	case packet.ErrFragment:
		return Fragment
	case packet.ErrLinkType:
		return LinkType
	}
	return Unreadable
}

// guess tells what the frames of a file are by its first ones.
func guess(first []pcapfile.Packet) Frames {
	exports := 0
	var d packet.Datagram
	for i := range first {
		if packet.ParseUDP(first[i].LinkType, first[i].Data, &d) == nil && looksLikeExport(d.Payload) {
			exports++
		}
	}
	if 2*exports > len(first) {
		return Exports
	}
	return Packets
}

// looksLikeExport tells whether a datagram begins as those of the protocols that
// are read do.
func looksLikeExport(b []byte) bool {
	if len(b) < 24 {
		return false
	}
	be := binary.BigEndian
	count := be.Uint16(b[2:])
	set := func(at int, lowest uint16) bool {
		id, length := be.Uint16(b[at:]), be.Uint16(b[at+2:])
		return length >= 4 && (id == lowest || id == lowest+1 || id >= 256)
	}
	switch be.Uint16(b) {
	case 0: // sFlow, with the agent's address of IPv4 or IPv6
		return count == 5 && be.Uint32(b[4:])-1 < 2
	case 1, 5, 7:
		return count >= 1 && count <= 30
	case 9:
		return set(20, 0)
	case 10:
		return count >= 16+4 && set(16, 2)
	}
	return false
}
