// SPDX-License-Identifier: BSD-3-Clause

// Package compare holds benchmarks beside other programs' decoders. It is a
// module of its own, so that theirs are no dependencies of the program.
package compare

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/netsampler/goflow2/v2/decoders/netflowlegacy"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/selector"
)

const records = 30

// datagram is a full NetFlow v5 datagram, with 36 packets a record.
func datagram() []byte {
	b := make([]byte, 24+48*records)
	binary.BigEndian.PutUint16(b, 5)
	binary.BigEndian.PutUint16(b[2:], records)
	for i := range records {
		binary.BigEndian.PutUint32(b[24+48*i+16:], 36)
	}
	return b
}

func perRecord(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records), "ns/record")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkV5Overflowd(b *testing.B) {
	d := datagram()
	s, err := selector.New(1e-6)
	if err != nil {
		b.Fatal(err)
	}
	dec := netflow.NewDecoder(1)
	selected := uint64(0)
	emit := func(r *flow.Record) { selected += s.Take(r.Packets) }
	b.ReportAllocs()
	for b.Loop() {
		if err := dec.Decode(netip.AddrPort{}, d, emit); err != nil {
			b.Fatal(err)
		}
	}
	perRecord(b)
}

func BenchmarkV5Goflow2(b *testing.B) {
	d := datagram()
	b.ReportAllocs()
	for b.Loop() {
		var p netflowlegacy.PacketNetFlowV5
		if err := netflowlegacy.DecodeMessageVersion(bytes.NewBuffer(d), &p); err != nil {
			b.Fatal(err)
		}
	}
	perRecord(b)
}
