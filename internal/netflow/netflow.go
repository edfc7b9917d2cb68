// SPDX-License-Identifier: BSD-3-Clause

// Package netflow decodes flow export datagrams into flow records.
//
// NetFlow v1, v5 and v7 are fixed layouts of big-endian fields that Cisco
// published as tables ("NetFlow Export Datagram Format"). A header of 16 or 24
// bytes is followed by Count records of 52 or 48 bytes:
//
//	header           v1  v5  v7    record            v1  v5  v7
//	version           0   0   0    source address     0   0   0
//	count             2   2   2    dest. address      4   4   4
//	uptime, ms        4   4   4    packets           16  16  16
//	unix seconds      8   8   8    bytes (layer 3)   20  20  20
//	nanoseconds      12  12  12    first, uptime ms  24  24  24
//	sampling          -  22   -    last, uptime ms   28  28  28
//	                               source port       32  32  32
//	                               dest. port        34  34  34
//	                               TCP flags         40  37  37
//	                               protocol          38  38  38
//	                               TOS               39  39  39
//	length           16  24  24    length            52  48  52
package netflow

import (
	"encoding/binary"
	"errors"

	"github.com/overflowd/overflowd/internal/flow"
)

// What can be wrong with a datagram. None of them loses a whole record: what
// stands before the damage was emitted.
var (
	// ErrShort: too short for the header of its version.
	ErrShort = errors.New("shorter than its header")
	// ErrVersion: not the version number of a NetFlow that is decoded here.
	ErrVersion = errors.New("not NetFlow v1, v5 or v7")
	// ErrEmpty: the header says that no record follows.
	ErrEmpty = errors.New("no records")
	// ErrCount: the header promises more records than the datagram holds. The
	// whole ones were emitted.
	ErrCount = errors.New("fewer records than its header promises")
)

// A Decoder turns datagrams into records. The zero Decoder is ready. It is not
// safe for concurrent use: each source owns one.
type Decoder struct {
	rec flow.Record
}

// layout is what differs between the fixed versions, and the place of the TCP
// flags, which are at 40 in v1.
type layout struct{ header, record int }

var (
	layoutV1 = layout{header: 16, record: 52}
	// layoutV1Short is what softflowd writes: without the last, reserved field.
	layoutV1Short = layout{header: 16, record: 48}
	layoutV5      = layout{header: 24, record: 48}
	layoutV7      = layout{header: 24, record: 52}
)

// Decode calls emit for each flow record of the datagram. The record belongs to
// the decoder and is overwritten by the next one. Nothing of the datagram is
// kept. The errors are the package's sentinels; records may have been emitted
// all the same.
func (d *Decoder) Decode(datagram []byte, emit func(*flow.Record)) error {
	if len(datagram) < 2 {
		return ErrShort
	}
	switch version := binary.BigEndian.Uint16(datagram); version {
	case 5:
		return d.fixed(datagram, &layoutV5, 5, emit)
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

// fixedFields are those that a v1, v5 and v7 record always holds.
const fixedFields = flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasPackets | flow.HasBytes

func (d *Decoder) fixed(b []byte, l *layout, version uint8, emit func(*flow.Record)) error {
	if len(b) < l.header {
		return ErrShort
	}
	count := int(binary.BigEndian.Uint16(b[2:]))
	uptime := binary.BigEndian.Uint32(b[4:])
	seconds := binary.BigEndian.Uint32(b[8:])
	nanoseconds := binary.BigEndian.Uint32(b[12:])

	r := &d.rec
	*r = flow.Record{
		Key:    flow.Key{Family: flow.IPv4},
		Source: flow.Source{Protocol: flow.NetFlow, Version: version},
	}
	if version == 5 {
		// The upper two bits name the mode. Exporters leave it at 0 and set
		// an interval all the same, so the interval alone decides.
		r.Interval = uint32(binary.BigEndian.Uint16(b[22:]) & 0x3fff)
	}
	known := fixedFields
	now := int64(seconds) * 1000
	if seconds != 0 { // 0: the exporter's clock was never set
		known |= flow.HasStart | flow.HasEnd
	}
	if nanoseconds < 1e9 {
		now += int64(nanoseconds / 1e6)
	}

	if count == 0 {
		return ErrEmpty
	}
	b = b[l.header:]
	for size := l.record; count > 0; count-- {
		if len(b) < size {
			return ErrCount
		}
		p := (*[48]byte)(b)
		*(*[4]byte)(r.Src[:4]) = [4]byte(p[0:4])
		*(*[4]byte)(r.Dst[:4]) = [4]byte(p[4:8])
		r.Packets = uint64(binary.BigEndian.Uint32(p[16:20]))
		r.Bytes = uint64(binary.BigEndian.Uint32(p[20:24]))
		// The uptime wraps every 49.7 days, and some exporters stamp the
		// header before the last packet: the difference is signed.
		start := now - int64(int32(uptime-binary.BigEndian.Uint32(p[24:28])))
		end := now - int64(int32(uptime-binary.BigEndian.Uint32(p[28:32])))
		r.Start, r.End, r.Known = start, end, known
		if end < start { // one of the two is wrong: neither is told
			r.Known = known &^ (flow.HasStart | flow.HasEnd)
		}
		r.SrcPort = binary.BigEndian.Uint16(p[32:34])
		r.DstPort = binary.BigEndian.Uint16(p[34:36])
		r.TCPFlags = p[37]
		if version == 1 {
			r.TCPFlags = p[40]
		}
		r.Protocol = p[38]
		r.TOS = p[39]
		b = b[size:]
		emit(r)
	}
	return nil
}
