// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/selector"
)

func BenchmarkDecodeAndSelectV5(b *testing.B) {
	dgram := make([]byte, 24+30*48)
	binary.BigEndian.PutUint16(dgram, 5)
	binary.BigEndian.PutUint16(dgram[2:], 30)
	for i := range 30 {
		binary.BigEndian.PutUint32(dgram[24+48*i+16:], 36)
	}
	sel, _ := selector.New(1e-6)
	var d Decoder
	hits := uint64(0)
	emit := func(r *flow.Record) {
		n := r.Packets
		if r.Interval > 1 {
			n *= uint64(r.Interval)
		}
		hits += sel.Take(n)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		d.Decode(dgram, emit)
		n += 30
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
}
