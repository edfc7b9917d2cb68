// SPDX-License-Identifier: BSD-3-Clause

// Package sflow decodes sFlow version 5 datagrams into flow records, one for
// each sampled packet.
//
// The format is XDR (RFC 4506) after sflow.org/sflow_version_5.txt: everything
// is made of big-endian words of 32 bits, and padded to them. A datagram holds
// samples, a flow sample holds records, and both say of what format and how long
// they are, so that what is not known is skipped:
//
//	datagram                  sample, record
//	version 5             0   enterprise, 20 bits, and format, 12   0
//	agent address type    4   length of what follows                4
//	agent address         8
//	  behind it:              raw packet header (0,1)
//	  sub-agent id        0   header protocol   0
//	  sequence            4   frame length      4
//	  uptime, ms          8   bytes stripped    8
//	  samples            12   header length    12
//	                          header           16
//	flow sample  (0,1) (0,3)
//	sequence        0     0   sampled IPv4 (0,3), IPv6 (0,4)
//	source class    4     4   length            0   0
//	source index    5     8   protocol          4   4
//	sampling rate   8    12   source address    8   8
//	sample pool    12    16   dest. address    12  24
//	drops          16    20   source port      16  40
//	input          20    24   dest. port       20  44
//	output         24    32   TCP flags        24  48
//	records        28    40   TOS, priority    28  52
//	length         32    44   length           32  56
//
// An interface is a format of 2 bits and a number of 30 in samples of format 1,
// and two words in those of format 3.
package sflow

import (
	"encoding/binary"
	"errors"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/packet"
)

// What can be wrong with a datagram. None of them loses a whole sample: what
// stands before the damage was emitted.
var (
	// ErrShort: too short for its header.
	ErrShort = errors.New("shorter than its header")
	// ErrVersion: not sFlow version 5.
	ErrVersion = errors.New("not sFlow version 5")
	// ErrAgent: the address of the agent is of a kind whose length is unknown.
	ErrAgent = errors.New("an agent address that is neither IPv4 nor IPv6")
	// ErrCount: the header promises more samples than the datagram holds, or a
	// sample leads outside of it. The whole ones were emitted.
	ErrCount = errors.New("fewer samples than its header promises")
	// ErrSample: within a sample a record leads outside of it, or is shorter
	// than its format. All other samples were emitted, and this one too if its
	// flow could be read.
	ErrSample = errors.New("a sample contradicts itself")
)

// Stats of a decoder since it was made.
type Stats struct {
	FlowSamples    uint64 // sampled packets, those without a flow too
	CounterSamples uint64 // of interfaces; not read
	OtherSamples   uint64 // of other formats and of vendors; not read
	NoFlow         uint64 // flow samples of no IP packet, or of none that could be read
	// Drops is how often agents said that they had no resources to take a
	// sample, from the second sample of each source on.
	Drops uint64
}

// A Decoder turns datagrams into records. It is not safe for concurrent use:
// each source owns one.
type Decoder struct {
	// Interval is the sampling interval of samples whose agent does not tell
	// one. It may be changed between datagrams.
	Interval uint32
	// Stats belong to the goroutine that decodes, which may copy them.
	Stats Stats

	rec    flow.Record
	packet packet.Packet
	source source
	// table gives the sources of all agents their slots in last.
	table *lru.Table[source]
	last  [maxSources]progress
	hints [256]uint8 // slots in which sources were found
}

// NewDecoder returns a decoder with all the memory that it will ever use.
func NewDecoder() *Decoder { return &Decoder{table: lru.New[source](maxSources)} }

// Last returns the record that was emitted last. It belongs to the decoder.
func (d *Decoder) Last() *flow.Record { return &d.rec }

// Decode calls emit for each sampled IP packet of the datagram. The record has
// one packet; Interval is the sampling rate, or more where the agent says that
// it dropped samples. sFlow tells no times. The record belongs to the decoder
// and is overwritten by the next one. Nothing of the datagram is kept. The
// errors are the package's sentinels; records may have been emitted all the same.
func (d *Decoder) Decode(datagram []byte, emit func(*flow.Record)) error {
	b := datagram
	if len(b) < 4 {
		return ErrShort
	}
	if binary.BigEndian.Uint32(b) != 5 {
		return ErrVersion
	}
	if len(b) < 8 {
		return ErrShort
	}
	d.source = source{}
	kind := binary.BigEndian.Uint32(b[4:])
	b = b[8:]
	address, ok := addressSize(kind)
	if !ok {
		return ErrAgent
	}
	if len(b) < address+16 {
		return ErrShort
	}
	switch address {
	case 4:
		d.source.low = uint64(binary.BigEndian.Uint32(b))
	case 16:
		d.source.high, d.source.low = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	}
	b = b[address:]
	d.source.agent = uint64(kind)<<32 | uint64(binary.BigEndian.Uint32(b))
	count := binary.BigEndian.Uint32(b[12:])
	b = b[16:]
	var damage error
	for ; count > 0; count-- {
		format, sample, rest, ok := next(b)
		if !ok {
			return ErrCount
		}
		b = rest
		switch format {
		case 1, 3:
			d.Stats.FlowSamples++
			if !d.flowSample(sample, format == 3) {
				damage = ErrSample
			}
			if d.rec.Family == 0 {
				d.Stats.NoFlow++
				continue
			}
			emit(&d.rec)
		case 2, 4:
			d.Stats.CounterSamples++
		default:
			d.Stats.OtherSamples++
		}
	}
	return damage
}

// next cuts the first sample or record off b, which takes at least 8 bytes. The
// padding behind it may be missing at the end.
func next(b []byte) (format uint32, data, rest []byte, ok bool) {
	if len(b) < 8 {
		return 0, nil, nil, false
	}
	format = binary.BigEndian.Uint32(b)
	size := binary.BigEndian.Uint32(b[4:])
	b = b[8:]
	if uint64(size) > uint64(len(b)) {
		return 0, nil, nil, false
	}
	n := int(size)
	return format, b[:n], b[min((n+3)&^3, len(b)):], true
}

// addressSize is the length of an address by its type: unknown, IPv4, IPv6.
func addressSize(kind uint32) (int, bool) {
	switch kind {
	case 0:
		return 0, true
	case 1:
		return 4, true
	case 2:
		return 16, true
	}
	return 0, false
}
