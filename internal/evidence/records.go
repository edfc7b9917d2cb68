// SPDX-License-Identifier: BSD-3-Clause

package evidence

import "github.com/overflowd/overflowd/internal/flow"

// Record returns the reasons to suspect a flow that an exporter or connection
// tracking tells of, and which stands for so many packets, at a time in ms since the Unix epoch. The guard is that of the
// interface where the packets came in, or nil. Records tell of one direction, late and
// in any order: whether somebody asked for an answer they do not tell. It does not
// allocate.
func (d *Detector) Record(g *Guard, r *flow.Record, packets uint64, now int64) (s Reasons) {
	if g != nil {
		s = g.check(&r.Key)
	}
	if l := d.look; l != nil && l.MayEither(&r.Key) {
		s |= d.listed(&r.Key)
	}
	if r.Protocol == protoTCP && r.Known&flow.HasTCPFlags != 0 && r.TCPFlags&^0xc0 == syn {
		s |= d.opened(r, now)
	}
	if packets >= uint64(d.o.Limit) && d.tooMany(r, packets) {
		s |= Rate
	}
	return s
}

// tooMany tells whether a record is of more packets a second than the limit. One that
// took less than a second is not fast for that.
func (d *Detector) tooMany(r *flow.Record, packets uint64) bool {
	const times = flow.HasStart | flow.HasEnd
	return d.o.Limit != 0 && r.Known&times == times && r.End >= r.Start &&
		min(packets, 1<<48)*1000 >= uint64(d.o.Limit)*uint64(min(max(r.End-r.Start, 1000), 1<<32))
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
