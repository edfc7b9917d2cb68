// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"

	"github.com/overflowd/overflowd/internal/flow"
)

// NetFlow v1, v5 and v7 are fixed layouts of big-endian fields that Cisco
// published as tables ("NetFlow Export Datagram Format"). A header of 16 or 24
// bytes is followed by Count records of 52 or 48 bytes:
//
//	header           v1  v5  v7    record            v1  v5  v7
//	version           0   0   0    source address     0   0   0
//	count             2   2   2    dest. address      4   4   4
//	uptime, ms        4   4   4    packets           16  16  16
//	unix seconds      8   8   8    bytes (layer 3)   20  20  20
//	nanoseconds      12  12  12    input interface   12  12  12
//	sampling          -  22   -    output interface  14  14  14
//	                               first, uptime ms  24  24  24
//	                               last, uptime ms   28  28  28
//	                               source port       32  32  32
//	                               dest. port        34  34  34
//	                               TCP flags         40  37  37
//	                               protocol          38  38  38
//	                               TOS               39  39  39
//	                               source AS          -  40  40
//	                               dest. AS           -  42  42
//	length           16  24  24    length            52  48  52
//
// layout is what differs between them, but for the fields that v1 has not.
type layout struct{ header, record int }

var (
	layoutV1 = layout{header: 16, record: 52}
	// layoutV1Short is what softflowd writes: without the last, reserved field.
	layoutV1Short = layout{header: 16, record: 48}
	layoutV5      = layout{header: 24, record: 48}
	layoutV7      = layout{header: 24, record: 52}
)

// fixedFields are those that a v1, v5 and v7 record always holds.
const fixedFields = flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasPackets | flow.HasBytes | flow.HasIngress | flow.HasEgress

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
	if r.Interval == 0 {
		r.Interval = d.Interval
	}
	known := fixedFields
	if version != 1 {
		known |= flow.HasAS
	}
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
	whole := min(count, (len(b)-l.header)/l.record)
	for off := l.header; whole > 0; whole-- {
		p := (*[48]byte)(b[off : off+48])
		off += l.record
		*(*[4]byte)(r.Src[:4]) = [4]byte(p[0:4])
		*(*[4]byte)(r.Dst[:4]) = [4]byte(p[4:8])
		interfaces := binary.BigEndian.Uint32(p[12:16])
		r.Ingress, r.Egress = interfaces>>16, interfaces&0xffff
		r.Packets = uint64(binary.BigEndian.Uint32(p[16:20]))
		r.Bytes = uint64(binary.BigEndian.Uint32(p[20:24]))
		// The uptime wraps every 49.7 days, and some exporters stamp the
		// header before the last packet: the difference is signed.
		start := int32(uptime - binary.BigEndian.Uint32(p[24:28])) // before now
		end := int32(uptime - binary.BigEndian.Uint32(p[28:32]))
		r.Start, r.End, r.Known = now-int64(start), now-int64(end), known
		if end > start || end < -ahead { // one of the two is wrong: neither is told
			r.Known = known &^ (flow.HasStart | flow.HasEnd)
		}
		ports := binary.BigEndian.Uint32(p[32:36])
		r.SrcPort, r.DstPort = uint16(ports>>16), uint16(ports)
		if version == 1 {
			r.TCPFlags = p[40]
		} else {
			r.TCPFlags = p[37]
			as := binary.BigEndian.Uint32(p[40:44])
			r.SrcAS, r.DstAS = as>>16, as&0xffff
		}
		r.Protocol = p[38]
		r.TOS = p[39]
		emit(r)
	}
	if len(b)-l.header < count*l.record {
		return ErrCount
	}
	return nil
}
