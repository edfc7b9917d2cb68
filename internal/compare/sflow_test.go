// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"bytes"
	"encoding/binary"
	"testing"

	goflow2 "github.com/netsampler/goflow2/v2/decoders/sflow"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/sflow"
)

const (
	samples = 7
	// snap is how much of a frame switches pass on unless told otherwise.
	snap = 128
)

// sflowDatagram is what a switch with 48 ports sends: seven flow samples, each
// with the header of a TCP segment and its VLAN.
func sflowDatagram() []byte {
	var b []byte
	words := func(v ...uint32) {
		for _, w := range v {
			b = binary.BigEndian.AppendUint32(b, w)
		}
	}
	words(5, 1, 0xc0000201, 0, 17, 90_000, samples)
	for i := range uint32(samples) {
		words(1, 32+8+16+snap+8+16)
		words(100+i, 7*i%48, 300, 30_000+300*i, 0, 48, 47, 2)
		words(1, 16+snap, 1, 1518, 4, snap)
		header := make([]byte, snap)
		copy(header[12:], []byte{8, 0, 0x45, 0, 5, 0xdc, 0, byte(i), 0x40, 0, 64, 6, 0, 0, 198, 51, 100, byte(i), 203, 0, 113, 9,
			1, 0xbb, 0xc3, 0x4f, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10})
		b = append(b, header...)
		words(1001, 16, 1, 0, 1, 0)
	}
	return b
}

func perSample(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*samples), "ns/record")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSFlowOverflowd reads the sampled headers too, as BenchmarkSFlowGoflow2
// does not.
func BenchmarkSFlowOverflowd(b *testing.B) {
	d := sflowDatagram()
	dec := sflow.NewDecoder()
	records := 0
	emit := func(r *flow.Record) { records++ }
	b.ReportAllocs()
	for b.Loop() {
		if err := dec.Decode(d, emit); err != nil {
			b.Fatal(err)
		}
	}
	if records != b.N*samples {
		b.Fatalf("%d records of %d datagrams", records, b.N)
	}
	perSample(b)
}

func BenchmarkSFlowGoflow2(b *testing.B) {
	d := sflowDatagram()
	b.ReportAllocs()
	for b.Loop() {
		var p goflow2.Packet
		if err := goflow2.DecodeMessageVersion(bytes.NewBuffer(d), &p); err != nil {
			b.Fatal(err)
		}
		if len(p.Samples) != samples {
			b.Fatalf("%d samples", len(p.Samples))
		}
	}
	perSample(b)
}
