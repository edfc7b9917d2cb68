// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/prefix"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func setOf(texts ...string) *prefix.Set {
	var b prefix.Builder
	for _, p := range prefixes(texts...) {
		b.Add(p)
	}
	return b.Set()
}

// exportedFrom is a record of an exporter whose packets came in at an interface.
func exportedFrom(src string, ingress uint32) *flow.Record {
	a := netip.MustParseAddr(src)
	r := &flow.Record{Known: flow.HasIngress, Source: flow.Source{Protocol: flow.NetFlow, Version: 9}, Ingress: ingress}
	r.Family = flow.IPv6
	if a.Is4() {
		r.Family = flow.IPv4
	}
	copy(r.Src[:], a.AsSlice())
	return r
}

func TestSourcesOfExportedFlows(t *testing.T) {
	special := setOf("10.0.0.0/8", "0.0.0.0/8", "fc00::/7")
	edge, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	every := netip.MustParsePrefix("0.0.0.0/0")
	x := NewOrigins(OriginOptions{Special: special, Exporters: MakeGuards([]ExporterInterface{
		{Exporters: netip.PrefixFrom(edge, 32), Index: 3, Role: LAN, Prefixes: prefixes("45.83.0.0/16", "2600:1::/32")},
		{Exporters: netip.PrefixFrom(edge, 32), Index: 4, Role: LAN, Prefixes: prefixes("10.7.0.0/16")},
		{Exporters: netip.PrefixFrom(edge, 32), Index: 5, Role: LAN},
		{Exporters: every, Index: 7, Role: WAN},
	}, special)}, nil)
	for _, c := range []struct {
		src      string
		exporter netip.Addr
		index    uint32
		want     Verdict
	}{
		{"45.83.1.1", edge, 3, Verdict{No, "prefix", LAN}},
		{"45.84.1.1", edge, 3, Verdict{Yes, "prefix", LAN}},
		{"2600:1::9", edge, 3, Verdict{No, "prefix", LAN}},
		{"2600:2::9", edge, 3, Verdict{Yes, "prefix", LAN}},
		{"0.0.0.0", edge, 3, Verdict{Unknown, "", LAN}},
		{"10.7.1.1", edge, 4, Verdict{No, "prefix", LAN}},
		{"2600:1::9", edge, 4, Verdict{Unknown, "", LAN}}, // it serves no IPv6 that we know of
		{"45.83.1.1", edge, 5, Verdict{Unknown, "", LAN}}, // nor this one anything
		{"45.83.1.1", edge, 7, Verdict{Yes, "prefix", WAN}},
		{"10.7.1.1", other, 7, Verdict{Yes, "prefix", WAN}},
		{"10.8.1.1", edge, 7, Verdict{Yes, "special", WAN}},
		{"8.8.8.8", edge, 7, Verdict{Unknown, "", WAN}},
		{"45.83.1.1", other, 3, Verdict{}}, // of another exporter
		{"45.83.1.1", edge, 9, Verdict{}},  // of another interface
	} {
		if got := x.Judge(exportedFrom(c.src, c.index), c.exporter); got != c.want {
			t.Errorf("%s from interface %d of %s: %+v, want %+v", c.src, c.index, c.exporter, got, c.want)
		}
	}
	r := exportedFrom("45.83.1.1", 3)
	r.Known = 0
	if v := x.Judge(r, edge); v != (Verdict{}) {
		t.Errorf("a record that does not tell the interface: %+v", v)
	}
	// What was captured is not judged without the kernel's word.
	r = exportedFrom("45.83.1.1", 3)
	r.Source.Protocol = flow.Capture
	if v := x.Judge(r, netip.Addr{}); v.Spoofed != Unknown {
		t.Errorf("%+v", v)
	}
}

func TestRecordsAreSuspected(t *testing.T) {
	const now = 1_790_000_000_000
	d := NewDetector(DetectorOptions{Limit: 1000})
	opening := func(n uint32) *flow.Record {
		r := &flow.Record{Known: flow.HasTCPFlags | flow.HasPorts, TCPFlags: syn, Interval: 1}
		r.Family, r.Protocol, r.DstPort = flow.IPv4, protoTCP, 25
		binary.BigEndian.PutUint32(r.Src[:], n*2654435761)
		return r
	}
	flagged := 0
	for n := range uint32(1000) {
		if d.Record(nil, opening(n), 1, now) == SYN {
			flagged++
		}
	}
	if flagged != 1000-synLimit+1 {
		t.Errorf("%d of 1000 openings are suspected", flagged)
	}
	r := opening(1)
	r.TCPFlags |= ack
	if s := d.Record(nil, r, 1, now); s != 0 {
		t.Errorf("one that was completed: %v", s.Names())
	}
	r.Known |= flow.HasStart | flow.HasEnd
	r.Start, r.End = now-10_000, now
	for packets, want := range map[uint64]Reasons{9999: 0, 10000: Rate, 1 << 63: Rate} {
		if s := d.Record(nil, r, packets, now); s != want {
			t.Errorf("%d packets in 10 s: %v", packets, s.Names())
		}
	}
	r.Start, r.End = now, now
	if s := d.Record(nil, r, 999, now); s != 0 {
		t.Errorf("a short flow: %v", s.Names())
	}
	guard := &Guard{ours: setOf("45.83.0.0/16"), special: setOf("10.0.0.0/8")}
	if s := d.Record(guard, exportedFrom("10.1.1.1", 1), 1, now); s != Special {
		t.Errorf("%v", s.Names())
	}
	if n := testing.AllocsPerRun(1000, func() { d.Record(guard, r, 1<<20, now); d.Record(nil, opening(7), 1, now) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// TestTooManyPacketsToOneAddress: the flows to it are suspected, new ones too, and those
// to others are not, in time and out of it.
func TestTooManyPacketsToOneAddress(t *testing.T) {
	d := NewDetector(DetectorOptions{Flows: 8192, Limit: 10_000})
	table := flowtable.New(8192)
	suspected := map[byte]int{}
	turn := 0
	second := func(at int64, packets int) {
		clear(suspected)
		for n := range packets {
			for dst := range byte(2) {
				if dst == 1 && n%8 != 0 {
					continue // an eighth
				}
				p := &flowtable.Packets{Count: 1, Bytes: 100, Time: at + int64(n)*1000/int64(packets)}
				p.Family, p.Protocol, p.SrcPort, p.TCPFlags, p.Known = flow.IPv4, protoTCP, uint16(n), ack, flow.HasPorts
				p.Dst[3] = dst
				e := table.Add(p)
				if Pending(e.Suspicion) {
					d.Look(nil, table, p, e, &flow.Key{}, false)
				}
				if turn++; turn%SampleRate == 0 {
					d.Sample(p, e, 1)
				}
				if Of(e.Suspicion)&Rate != 0 {
					suspected[dst]++
				}
			}
		}
	}
	at := int64(1_790_000_000_000) >> 10 << 10
	second(at, 5000)
	if len(suspected) != 0 {
		t.Errorf("%v are suspected of half the limit", suspected)
	}
	second(at+20_000, 40_000)
	if suspected[0] < 25_000 || suspected[1] != 0 {
		t.Errorf("%v are suspected of 40000 packets and of 5000, of a limit of 10000", suspected)
	}
	second(at+60_000, 5000)
	if len(suspected) != 0 {
		t.Errorf("%v are suspected when it is over", suspected)
	}
}

// TestLookingDoesNotAllocate at packets of any kind, and bounds what is kept.
func TestLookingDoesNotAllocate(t *testing.T) {
	d := NewDetector(DetectorOptions{Flows: 64, Limit: 10, Ways: true})
	d.use(setOf("9.0.0.0/8"), nil)
	guard := &Guard{ours: setOf("45.83.0.0/16"), special: setOf("10.0.0.0/8")}
	table := flowtable.New(64)
	n := uint32(0)
	if got := testing.AllocsPerRun(20_000, func() {
		n++
		p := flowtable.Packets{Count: 1, Bytes: uint64(n % 1500), Time: int64(n) * 50, Port: flowtable.Port(n % 4)}
		p.Family = []flow.Family{flow.IPv4, flow.IPv6}[n%2]
		p.Protocol = []uint8{6, 17, 1, 58, 47}[n%5]
		p.TCPFlags, p.SrcPort, p.DstPort, p.Known = uint8(n*7), uint16(n%200), uint16(n), flow.HasPorts
		binary.BigEndian.PutUint32(p.Src[:], n*2654435761)
		binary.BigEndian.PutUint32(p.Dst[:], n%3)
		e := table.Add(&p)
		q := reverse(&p.Key)
		d.Look(guard, table, &p, e, &q, n%9 == 0)
		d.Look(guard, table, &p, e, &q, n%9 == 0)
		d.Sample(&p, e, 3)
	}); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}
