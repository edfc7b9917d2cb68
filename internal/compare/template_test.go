// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	goflow2 "github.com/netsampler/goflow2/v2/decoders/netflow"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/selector"
)

// fields are those of a usual router, type and length, 58 bytes: 24 records fill
// a datagram.
var fields = [][2]uint16{
	{8, 4}, {12, 4}, {15, 4}, {10, 4}, {14, 4}, {2, 4}, {1, 4}, {22, 4}, {21, 4}, {7, 2}, {11, 2},
	{6, 1}, {4, 1}, {5, 1}, {60, 1}, {16, 4}, {17, 4}, {9, 1}, {13, 1}, {61, 1}, {48, 1},
}

const perDatagram = 24

// message returns a message of version 9 or 10 with one set: the template, or
// records of 36 packets.
func message(version uint16, template bool) []byte {
	var set []byte
	id := uint16(256)
	if template {
		if id = 0; version == 10 {
			id = 2
		}
		set = binary.BigEndian.AppendUint16(set, 256)
		set = binary.BigEndian.AppendUint16(set, uint16(len(fields)))
		for _, f := range fields {
			set = binary.BigEndian.AppendUint16(set, f[0])
			set = binary.BigEndian.AppendUint16(set, f[1])
		}
	} else {
		for i := range perDatagram {
			for _, f := range fields {
				value := uint32(i)
				if f[0] == 2 {
					value = 36
				}
				set = append(set, binary.BigEndian.AppendUint32(nil, value)[4-f[1]:]...)
			}
		}
	}
	b := make([]byte, 20, 1500)
	binary.BigEndian.PutUint16(b[2:], perDatagram)
	binary.BigEndian.PutUint32(b[8:], 1_790_000_000)
	if version == 10 {
		b = b[:16]
		binary.BigEndian.PutUint16(b[2:], uint16(16+4+len(set)))
		binary.BigEndian.PutUint32(b[4:], 1_790_000_000)
	}
	binary.BigEndian.PutUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(set)))
	return append(b, set...)
}

func benchmarkOverflowd(b *testing.B, version uint16) {
	from := netip.MustParseAddrPort("192.0.2.1:2055")
	s, err := selector.New(1e-6)
	if err != nil {
		b.Fatal(err)
	}
	dec := netflow.NewDecoder(64)
	n, selected := 0, uint64(0)
	emit := func(r *flow.Record) { n++; selected += s.Take(r.Packets) }
	dec.Decode(from, message(version, true), emit)
	d := message(version, false)
	b.ReportAllocs()
	for b.Loop() {
		if err := dec.Decode(from, d, emit); err != nil {
			b.Fatal(err)
		}
	}
	if n != b.N*perDatagram {
		b.Fatalf("%d records", n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perDatagram), "ns/record")
	b.ReportMetric(0, "ns/op")
}

func benchmarkGoflow2(b *testing.B, version uint16) {
	templates := goflow2.CreateTemplateSystem()
	decode := func(d []byte) int {
		var v9 goflow2.NFv9Packet
		var ipfix goflow2.IPFIXPacket
		if err := goflow2.DecodeMessageVersion(bytes.NewBuffer(d), templates, &v9, &ipfix); err != nil {
			b.Fatal(err)
		}
		sets := v9.FlowSets
		if version == 10 {
			sets = ipfix.FlowSets
		}
		if data, ok := sets[0].(goflow2.DataFlowSet); ok {
			return len(data.Records)
		}
		return 0
	}
	decode(message(version, true))
	d := message(version, false)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n += decode(d)
	}
	if n != b.N*perDatagram {
		b.Fatalf("%d records", n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perDatagram), "ns/record")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkV9Overflowd(b *testing.B)    { benchmarkOverflowd(b, 9) }
func BenchmarkV9Goflow2(b *testing.B)      { benchmarkGoflow2(b, 9) }
func BenchmarkIPFIXOverflowd(b *testing.B) { benchmarkOverflowd(b, 10) }
func BenchmarkIPFIXGoflow2(b *testing.B)   { benchmarkGoflow2(b, 10) }
