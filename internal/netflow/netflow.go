// SPDX-License-Identifier: BSD-3-Clause

// Package netflow decodes flow export datagrams into flow records: NetFlow v1,
// v5 and v7 (fixed.go), v9 (RFC 3954) and IPFIX (RFC 7011), in which templates
// say how the data lie (message.go).
//
// A template is compiled, when it arrives, to the loads of the fields that we
// read (template.go, elements.go). What is known of exporters stands in tables
// of fixed size (cache.go), whoever sends.
package netflow

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

// What can be wrong with a datagram. None of them loses a whole record: what
// stands before the damage was emitted.
var (
	// ErrShort: too short for the header of its version.
	ErrShort = errors.New("shorter than its header")
	// ErrVersion: not the version number of a NetFlow that is decoded here.
	ErrVersion = errors.New("not NetFlow v1, v5, v7 or v9, nor IPFIX")
	// ErrEmpty: the header says that no record follows.
	ErrEmpty = errors.New("no records")
	// ErrCount: the header promises more than the datagram holds. The whole
	// records were emitted.
	ErrCount = errors.New("less than its header promises")
	// ErrSet: a set of v9 or IPFIX has an impossible length, or there is less of
	// it. The whole records were emitted.
	ErrSet = errors.New("a set of an impossible length")
)

// Drop is a reason why a part of a datagram gave no record.
type Drop uint8

const (
	// NoTemplate: data whose template did not come, a set each. Some are held
	// back for it for a while, and count when they make room for others.
	NoTemplate Drop = iota
	// BadTemplate: a template record that is refused: no fields or too many, or
	// records of no bytes, or longer than it can be.
	BadTemplate
	// NoFlow: data records that do not tell the addresses of a flow.
	NoFlow
	// NoCount: data records that do not tell the number of packets.
	NoCount
	Drops
)

// A Decoder turns datagrams into records. It is not safe for concurrent use:
// each source owns one.
type Decoder struct {
	// Interval is the sampling interval of records whose exporter does not tell
	// one. It may be changed between datagrams.
	Interval uint32
	// Dropped counts what was dropped since the decoder was made.
	Dropped [Drops]uint64

	rec    flow.Record
	window [window]byte // see nowhere
	// Of records that bear a packet: as it stands in the datagram, and read.
	section []byte
	packet  packet.Packet
	cache   cache
	held    held
	back    flow.Record // of the other direction of a biflow
}

// NewDecoder returns a decoder that remembers the templates and the sampling of
// so many observation domains, about 5 kB each. All memory is taken here.
func NewDecoder(domains int) *Decoder {
	return &Decoder{cache: newCache(max(domains, minDomains)), held: newHeld()}
}

// Evicted returns how many observation domains and templates went to make room
// for others since the decoder was made. If that grows, there are more exporters
// than the decoder remembers.
func (d *Decoder) Evicted() uint64 { return d.cache.evicted }

// Last returns the record that was emitted last. It belongs to the decoder.
func (d *Decoder) Last() *flow.Record { return &d.rec }

// Held returns how many sets of data wait for their template.
func (d *Decoder) Held() uint64 { return d.held.waiting() }

// Decode calls emit for each flow record of the datagram, which came from that
// address and port. The record belongs to the decoder and is overwritten by the
// next one. The datagram is not kept. The errors are the package's sentinels;
// records may have been emitted all the same.
func (d *Decoder) Decode(from netip.AddrPort, datagram []byte, emit func(*flow.Record)) error {
	if len(datagram) < 2 {
		return ErrShort
	}
	switch version := binary.BigEndian.Uint16(datagram); version {
	case 5:
		return d.fixed(datagram, &layoutV5, 5, emit)
	case 9:
		return d.decodeV9(from, datagram, emit)
	case 10:
		return d.decodeIPFIX(from, datagram, emit)
	case 7:
		return d.fixed(datagram, &layoutV7, 7, emit)
	case 1:
		l := &layoutV1
		if short := &layoutV1Short; len(datagram) >= 4 &&
			len(datagram) == short.header+int(binary.BigEndian.Uint16(datagram[2:]))*short.record {
			l = short
		}
		return d.fixed(datagram, l, 1, emit)
	}
	return ErrVersion
}
