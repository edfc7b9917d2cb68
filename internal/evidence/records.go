// SPDX-License-Identifier: BSD-3-Clause

package evidence

import "github.com/overflowd/overflowd/internal/flow"

// Record returns the reasons to suspect a flow that an exporter or connection
// tracking tells of, at a time in ms since the Unix epoch. The guard is that of the
// interface where the packets came in, or nil. Records tell of one direction, late and
// in any order: whether somebody asked for an answer they do not tell. It does not
// allocate.
func (d *Detector) Record(g *Guard, r *flow.Record, now int64) (s Reasons) {
	if g != nil {
		s = g.check(&r.Key)
	}
	if l := d.list; l != nil && (l.May(r.Family, &r.Src) && l.Contains(r.Family, &r.Src) || l.May(r.Family, &r.Dst) && l.Contains(r.Family, &r.Dst)) {
		s |= Listed
	}
	if r.Protocol == protoTCP && r.Known&flow.HasTCPFlags != 0 && r.TCPFlags&^0xc0 == syn {
		s |= d.opened(r, now)
	}
	if limit := uint64(d.o.Limit); limit != 0 && r.Known&(flow.HasStart|flow.HasEnd) == flow.HasStart|flow.HasEnd {
		packets := r.Packets
		if n := uint64(r.Interval); n > 1 {
			packets = min(packets, 1<<32) * n
		}
		// Whole seconds, rounded up: a flow that was short is not fast for that.
		if packets >= limit && r.End >= r.Start && min(packets, 1<<48)*1000 >= limit*uint64(min(max(r.End-r.Start, 1000), 1<<32)) {
			s |= Rate
		}
	}
	return s
}

// opened counts a flow of which nothing but SYN came.
func (d *Detector) opened(r *flow.Record, now int64) Reasons {
	if uint16(now>>windowBits) != d.window || d.started == 0 {
		d.turn(now)
	}
	src, dst := d.seed.address(r.Family, &r.Src), d.seed.address(r.Family, &r.Dst)
	n := uint32(min(uint64(max(r.Interval, 1)), synLimit))
	if d.openings.add(d.seed.pair(kindOpening, dst, uint32(r.DstPort)), d.window, n) >= synLimit {
		return SYN
	}
	return Reasons(d.probe(src, dst, r.DstPort, protoTCP)) & Scan
}
