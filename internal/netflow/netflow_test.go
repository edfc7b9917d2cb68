// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/overflowd/overflowd/internal/flow"
)

// exported is a datagram in the making; its zero fields are zero bytes.
type exported struct {
	version                            uint16
	count                              int // -1: as many as there are records
	uptime, seconds, nanoseconds, flow uint32
	sampling                           uint16
	records                            []exportedRecord
	trailing                           []byte
}

type exportedRecord struct {
	src, dst                    string
	packets, bytes, first, last uint32
	sport, dport                uint16
	flags, protocol, tos        uint8
}

// bytes writes the datagram from the published tables, independently of the
// decoder's layouts.
func (e exported) bytes() []byte {
	var b []byte
	u16 := func(v uint16) { b = binary.BigEndian.AppendUint16(b, v) }
	u32 := func(v uint32) { b = binary.BigEndian.AppendUint32(b, v) }
	u8 := func(v uint8) { b = append(b, v) }
	count := e.count
	if count < 0 {
		count = len(e.records)
	}
	u16(e.version)
	u16(uint16(count))
	u32(e.uptime)
	u32(e.seconds)
	u32(e.nanoseconds)
	switch e.version {
	case 5:
		u32(e.flow)
		u8(1) // engine type
		u8(2) // engine id
		u16(e.sampling)
	case 7:
		u32(e.flow)
		u32(0) // reserved
	}
	for _, r := range e.records {
		for _, a := range []string{r.src, r.dst, "192.0.2.99"} { // and next hop
			x := netip.MustParseAddr(a).As4()
			b = append(b, x[:]...)
		}
		u16(11) // input
		u16(12) // output
		u32(r.packets)
		u32(r.bytes)
		u32(r.first)
		u32(r.last)
		u16(r.sport)
		u16(r.dport)
		switch e.version {
		case 1:
			u16(0) // pad
			u8(r.protocol)
			u8(r.tos)
			u8(r.flags)
			b = append(b, make([]byte, 11)...)
		case 5, 7:
			u8(0) // pad; v7: which fields are invalid
			u8(r.flags)
			u8(r.protocol)
			u8(r.tos)
			u16(64500) // source AS
			u16(64501)
			u8(24) // masks
			u8(16)
			u16(0)
			if e.version == 7 {
				u32(0xc0000263) // router shortcut
			}
		}
	}
	return append(b, e.trailing...)
}

// someone is where datagrams come from, if it does not matter.
var someone = netip.MustParseAddrPort("192.0.2.1:4000")

func decode(b []byte) ([]flow.Record, error) {
	d := NewDecoder(4)
	var got []flow.Record
	err := d.Decode(someone, b, func(r *flow.Record) { got = append(got, *r) })
	return got, err
}

var twoRecords = []exportedRecord{
	{src: "198.51.100.7", dst: "203.0.113.9", packets: 3, bytes: 180, first: 90_000, last: 95_500,
		sport: 443, dport: 50123, flags: 0x1b, protocol: 6, tos: 0x28},
	{src: "198.51.100.8", dst: "203.0.113.10", packets: 1<<32 - 1, bytes: 1<<32 - 2, first: 0, last: 100_000,
		sport: 0, dport: 0x0800, protocol: 1},
}

func TestEveryFieldOfTheFixedVersionsIsRead(t *testing.T) {
	for _, version := range []uint16{1, 5, 7} {
		e := exported{version: version, count: -1, uptime: 100_000, seconds: 1_700_000_000, nanoseconds: 500_000_000,
			sampling: 0x4064, records: twoRecords}
		got, err := decode(e.bytes())
		if err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		interval := uint32(0)
		if version == 5 {
			interval = 100
		}
		key := func(src, dst string, sport, dport uint16, protocol uint8) flow.Key {
			k := flow.Key{SrcPort: sport, DstPort: dport, Protocol: protocol, Family: flow.IPv4}
			copy(k.Src[:], netip.MustParseAddr(src).AsSlice())
			copy(k.Dst[:], netip.MustParseAddr(dst).AsSlice())
			return k
		}
		source := flow.Source{Protocol: flow.NetFlow, Version: uint8(version)}
		known := flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasPackets | flow.HasBytes | flow.HasStart | flow.HasEnd |
			flow.HasIngress | flow.HasEgress
		srcAS, dstAS := uint32(0), uint32(0)
		if version != 1 {
			known |= flow.HasAS
			srcAS, dstAS = 64500, 64501
		}
		want := []flow.Record{
			{Key: key("198.51.100.7", "203.0.113.9", 443, 50123, 6), Known: known, Source: source,
				TOS: 0x28, TCPFlags: 0x1b, Interval: interval, Packets: 3, Bytes: 180,
				Start: 1_699_999_990_500, End: 1_699_999_996_000,
				Ingress: 11, Egress: 12, SrcAS: srcAS, DstAS: dstAS},
			{Key: key("198.51.100.8", "203.0.113.10", 0, 0x0800, 1), Known: known, Source: source,
				Interval: interval, Packets: 1<<32 - 1, Bytes: 1<<32 - 2,
				Start: 1_699_999_900_500, End: 1_700_000_000_500,
				Ingress: 11, Egress: 12, SrcAS: srcAS, DstAS: dstAS},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("v%d (-want +got):\n%s", version, diff)
		}
	}
}

func TestBadDatagramsAreNamedAndLoseNoWholeRecord(t *testing.T) {
	whole := exported{version: 5, count: -1, records: twoRecords}.bytes()
	for _, c := range []struct {
		name    string
		b       []byte
		records int
		err     error
	}{
		{"nothing", nil, 0, ErrShort},
		{"one byte", []byte{0}, 0, ErrShort},
		{"a version alone", []byte{0, 5}, 0, ErrShort},
		{"a header one byte short", whole[:23], 0, ErrShort},
		{"a v1 header one byte short", exported{version: 1}.bytes()[:15], 0, ErrShort},
		{"version 8", append([]byte{0, 8}, whole[2:]...), 0, ErrVersion},
		{"version 1280, a 5 in the wrong byte order", append([]byte{5, 0}, whole[2:]...), 0, ErrVersion},
		{"a count of zero", exported{version: 5, records: twoRecords}.bytes(), 0, ErrEmpty},
		{"65,535 records claimed in 24 bytes", exported{version: 5, count: 65535}.bytes(), 0, ErrCount},
		{"65,535 records claimed over two", exported{version: 5, count: 65535, records: twoRecords}.bytes(), 2, ErrCount},
		{"the last record one byte short", whole[:len(whole)-1], 1, ErrCount},
		{"fewer records claimed than there are", exported{version: 5, count: 1, records: twoRecords}.bytes(), 1, nil},
		{"bytes behind the last record", exported{version: 5, count: -1, records: twoRecords, trailing: []byte{1, 2, 3}}.bytes(), 2, nil},
	} {
		got, err := decode(c.b)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || len(got) != c.records {
			t.Errorf("%s: %d records and %v, want %d and %v", c.name, len(got), err, c.records, c.err)
		}
	}
}

func TestTheRoutersClock(t *testing.T) {
	const unix = 1_700_000_000
	for _, c := range []struct {
		name                string
		uptime, first, last uint32
		seconds             uint32
		nanoseconds         uint32
		start, end          int64 // ms; 0: not told
	}{
		{"a flow of the last minute", 3_600_000, 3_540_000, 3_599_999, unix, 0, unix*1000 - 60_000, unix*1000 - 1},
		{"a flow that began before the uptime wrapped", 1000, 1<<32 - 500, 800, unix, 0, unix*1000 - 1500, unix*1000 - 200},
		{"a flow that ended before the uptime wrapped", 1000, 1<<32 - 900, 1<<32 - 500, unix, 0, unix*1000 - 1900, unix*1000 - 1500},
		{"a last packet after the header was stamped", 5000, 4000, 5007, unix, 0, unix*1000 - 1000, unix*1000 + 7},
		{"a last packet after the uptime wrapped, the header before", 1<<32 - 1, 1<<32 - 101, 9, unix, 0, unix*1000 - 100, unix*1000 + 10},
		{"a flow of seven days", 700_000_000, 700_000_000 - 604_800_000, 700_000_000, unix, 0, (unix - 604_800) * 1000, unix * 1000},
		{"residual nanoseconds", 1000, 1000, 1000, unix, 999_999_999, unix*1000 + 999, unix*1000 + 999},
		{"nanoseconds of more than a second", 1000, 1000, 1000, unix, 4_000_000_000, unix * 1000, unix * 1000},
		{"an end before the start", 5000, 4000, 3999, unix, 0, 0, 0},
		{"an exporter whose clock was never set", 5000, 4000, 4500, 0, 0, 0, 0},
	} {
		got, err := decode(exported{version: 5, count: -1, uptime: c.uptime, seconds: c.seconds, nanoseconds: c.nanoseconds,
			records: []exportedRecord{{src: "192.0.2.1", dst: "192.0.2.2", first: c.first, last: c.last}}}.bytes())
		if err != nil {
			t.Fatal(err)
		}
		r := got[0]
		const both = flow.HasStart | flow.HasEnd
		if c.start == 0 {
			if r.Known&both != 0 {
				t.Errorf("%s: times are told", c.name)
			}
			continue
		}
		if r.Known&both != both || r.Start != c.start || r.End != c.end {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, r.Start, r.End, c.start, c.end)
		}
	}
}

func TestTheSamplingIntervalIsTheLowerFourteenBits(t *testing.T) {
	for header, want := range map[uint16]uint32{0: 0, 1: 1, 0x0064: 100, 0x4064: 100, 0x8001: 1, 0xffff: 16383, 0xc000: 0} {
		got, err := decode(exported{version: 5, count: -1, sampling: header, records: twoRecords}.bytes())
		if err != nil || got[0].Interval != want || got[1].Interval != want {
			t.Errorf("%#04x: %v, %v, want %d", header, got[0].Interval, err, want)
		}
	}
}

func TestARecordHoldsNothingOfThoseBefore(t *testing.T) {
	d := NewDecoder(4)
	var got flow.Record
	emit := func(r *flow.Record) { got = *r }
	d.Decode(someone, exported{version: 5, count: -1, seconds: 1, sampling: 7, records: twoRecords}.bytes(), emit)
	d.Decode(someone, exported{version: 1, count: -1, records: twoRecords[1:]}.bytes(), emit)
	fresh, _ := decode(exported{version: 1, count: -1, records: twoRecords[1:]}.bytes())
	if diff := cmp.Diff(fresh[0], got); diff != "" {
		t.Errorf("(-fresh decoder +used one):\n%s", diff)
	}
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	b := exported{version: 5, count: -1, records: twoRecords}.bytes()
	d := NewDecoder(4)
	n := 0
	emit := func(*flow.Record) { n++ }
	if allocs := testing.AllocsPerRun(100, func() { d.Decode(someone, b, emit) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if n != 2*101 {
		t.Errorf("%d records", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, version := range []uint16{1, 5, 7} {
		f.Add(exported{version: version, count: -1, seconds: 1, records: twoRecords}.bytes())
	}
	f.Add([]byte{0, 9, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b)
		if len(b) >= 2 && (b[1] == 9 || b[1] == 10) {
			return // no count of records of 48 bytes: see FuzzSequence
		}
		if len(b) >= 4 && err == nil && len(got) != int(binary.BigEndian.Uint16(b[2:])) {
			t.Errorf("%d records without an error, the header says %d", len(got), binary.BigEndian.Uint16(b[2:]))
		}
		if len(got)*48 > len(b) {
			t.Errorf("%d records out of %d bytes", len(got), len(b))
		}
		if err == ErrCount && len(got) > 0 { // the whole ones are those of a header that says so
			c := append([]byte(nil), b...)
			binary.BigEndian.PutUint16(c[2:], uint16(len(got)))
			again, err := decode(c)
			if diff := cmp.Diff(again, got); err != nil || diff != "" {
				t.Errorf("%v (-honest count +claimed count):\n%s", err, diff)
			}
		}
	})
}
