// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/overflowd/overflowd/internal/flow"
)

// message is a datagram of v9 or IPFIX in the making, written from the RFCs'
// figures, independently of the decoder.
type message struct {
	version uint16
	domain  uint32
	seconds uint32 // 0: unixNow
	uptime  uint32
	sets    [][]byte
}

const unixNow = 1_790_000_000

func (m message) bytes() []byte {
	body := slices.Concat(m.sets...)
	seconds := m.seconds
	if seconds == 0 {
		seconds = unixNow
	}
	b := binary.BigEndian.AppendUint16(nil, m.version)
	if m.version == 9 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.sets)))
		b = binary.BigEndian.AppendUint32(b, m.uptime)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(16+len(body)))
	}
	b = binary.BigEndian.AppendUint32(b, seconds)
	b = binary.BigEndian.AppendUint32(b, 7) // sequence
	b = binary.BigEndian.AppendUint32(b, m.domain)
	return append(b, body...)
}

func v9(sets ...[]byte) message    { return message{version: 9, sets: sets} }
func ipfix(sets ...[]byte) message { return message{version: 10, sets: sets} }

// set returns a set of the records.
func set(id uint16, records ...[]byte) []byte {
	body := slices.Concat(records...)
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(body)))
	return append(b, body...)
}

// fs is a field specifier: type, length, and an enterprise number of IPFIX.
type fs [3]int

func specs(fields []fs) (b []byte) {
	for _, f := range fields {
		id := uint16(f[0])
		if f[2] != 0 {
			id |= 0x8000
		}
		b = binary.BigEndian.AppendUint16(b, id)
		b = binary.BigEndian.AppendUint16(b, uint16(f[1]))
		if f[2] != 0 {
			b = binary.BigEndian.AppendUint32(b, uint32(f[2]))
		}
	}
	return b
}

// tmpl is a template record.
func tmpl(id uint16, fields ...fs) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(fields)))
	return append(b, specs(fields)...)
}

// options9 and options10 are options template records of v9 and IPFIX; the first
// fields are the scope.
func options9(id uint16, scope int, fields ...fs) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, uint16(4*scope))
	b = binary.BigEndian.AppendUint16(b, uint16(4*(len(fields)-scope)))
	return append(b, specs(fields)...)
}

func options10(id uint16, scope int, fields ...fs) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(fields)))
	b = binary.BigEndian.AppendUint16(b, uint16(scope))
	return append(b, specs(fields)...)
}

// rec is a data record: values of 1, 2, 4 and 8 bytes by their type, addresses,
// and bytes as they are.
func rec(values ...any) (b []byte) {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b = append(b, netip.MustParseAddr(v).AsSlice()...)
		case []byte:
			b = append(b, v...)
		case uint8:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		default:
			panic(fmt.Sprintf("%T", v))
		}
	}
	return b
}

// collector feeds datagrams to one decoder.
type collector struct {
	*Decoder
	t   testing.TB
	got []flow.Record
}

func newCollector(t testing.TB) *collector { return &collector{Decoder: NewDecoder(8), t: t} }

// take decodes datagrams from an exporter and returns the records of them.
func (c *collector) takeFrom(from string, messages ...message) []flow.Record {
	c.t.Helper()
	c.got = nil
	for _, m := range messages {
		if err := c.Decode(netip.MustParseAddrPort(from), m.bytes(), func(r *flow.Record) { c.got = append(c.got, *r) }); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.got
}

func (c *collector) take(messages ...message) []flow.Record {
	c.t.Helper()
	return c.takeFrom("192.0.2.1:4000", messages...)
}

// short is a template of 16 bytes a record, and shortRec one of its records.
var short = []fs{{8, 4}, {12, 4}, {2, 4}, {1, 4}}

func shortRec(n int) []byte { return rec("198.51.100.7", "203.0.113.9", uint32(n), uint32(100*n)) }

// counts are the packet counts of records.
func counts(records []flow.Record) (n []uint64) {
	for i := range records {
		n = append(n, records[i].Packets)
	}
	return n
}

func key(src, dst string, sport, dport uint16, protocol uint8) flow.Key {
	k := flow.Key{SrcPort: sport, DstPort: dport, Protocol: protocol, Family: flow.IPv6}
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if a.Is4() {
		k.Family = flow.IPv4
	}
	copy(k.Src[:], a.AsSlice())
	copy(k.Dst[:], b.AsSlice())
	return k
}

func addr16(s string) (a [16]byte) {
	copy(a[:], netip.MustParseAddr(s).AsSlice())
	return a
}

func TestEveryFieldThatTemplatesTellIsRead(t *testing.T) {
	fields := []fs{
		{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {2, 4}, {1, 8}, {10, 4}, {14, 2}, {58, 2}, {52, 1}, {53, 1},
		{16, 4}, {17, 2}, {133, 4}, {89, 1}, {225, 4}, {226, 4}, {227, 2}, {228, 2}, {22, 4}, {21, 4},
	}
	record := rec("198.51.100.7", "203.0.113.9", uint16(443), uint16(50123), uint8(6), uint8(0x28), uint8(0x1b), uint32(3), uint64(1<<40),
		uint32(70000), uint16(12), uint16(0xf064), uint8(57), uint8(64), uint32(4_200_000_000), uint16(64501), uint32(2), uint8(0x42),
		"192.0.2.7", "192.0.2.9", uint16(1024), uint16(1025), uint32(90_000), uint32(95_500))
	want := flow.Record{
		Key: key("198.51.100.7", "203.0.113.9", 443, 50123, 6),
		Known: flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasPackets | flow.HasBytes | flow.HasStart | flow.HasEnd | flow.HasTTL |
			flow.HasTranslatedSrc | flow.HasTranslatedDst | flow.HasTranslatedPorts | flow.HasIngress | flow.HasEgress | flow.HasVLAN |
			flow.HasAS | flow.HasDropped | flow.HasForwardingStatus,
		Source: flow.Source{Protocol: flow.NetFlow, Version: 9},
		TOS:    0x28, TCPFlags: 0x1b, TTL: 57, MaxTTL: 64, ForwardingStatus: 0x42, VLAN: 100, Packets: 3, Bytes: 1 << 40,
		Start: unixNow*1000 - 10_000, End: unixNow*1000 - 4_500, Dropped: 2, Ingress: 70000, Egress: 12, SrcAS: 4_200_000_000, DstAS: 64501,
		TranslatedSrc: addr16("192.0.2.7"), TranslatedDst: addr16("192.0.2.9"), TranslatedSrcPort: 1024, TranslatedDstPort: 1025,
	}
	m := v9(set(0, tmpl(256, fields...)), set(256, record, record))
	m.uptime = 100_000
	if diff := cmp.Diff([]flow.Record{want, want}, newCollector(t).take(m)); diff != "" {
		t.Errorf("v9 (-want +got):\n%s", diff)
	}

	// The same in IPFIX, where the boot time is options data.
	want.Source = flow.Source{Protocol: flow.IPFIX, Version: 10}
	got := newCollector(t).take(ipfix(
		set(3, options10(257, 1, fs{149, 4}, fs{160, 8})), set(257, rec(uint32(0), uint64(unixNow*1000-100_000))),
		set(2, tmpl(256, fields...)), set(256, record)))
	if diff := cmp.Diff([]flow.Record{want}, got); diff != "" {
		t.Errorf("IPFIX (-want +got):\n%s", diff)
	}

	// And in any order of the fields, in fields of variable length behind others
	// of unknown kinds, and in reduced sizes.
	got = newCollector(t).take(ipfix(
		set(2, tmpl(300, fs{82, variable}, fs{1, 5}, fs{999, 3, 4242}, fs{12, 4}, fs{2, 3}, fs{95, variable}, fs{96, variable}, fs{8, 4}, fs{4, 1})),
		set(300,
			rec(uint8(3), []byte("eth"), uint8(0), uint32(1000), []byte{1, 2, 3}, "203.0.113.9", []byte{0, 0, 9}, uint8(0), uint8(255), uint16(300), make([]byte, 300), "198.51.100.7", uint8(6)),
			rec(uint8(255), uint16(2), []byte("lo"), uint8(1), uint32(0), []byte{1, 2, 3}, "203.0.113.10", []byte{1, 0, 0}, uint8(1), uint8(7), uint8(0), "198.51.100.8", uint8(17)))))
	known := flow.HasPackets | flow.HasBytes
	wants := []flow.Record{
		{Key: key("198.51.100.7", "203.0.113.9", 0, 0, 6), Known: known, Source: want.Source, Packets: 9, Bytes: 1000},
		{Key: key("198.51.100.8", "203.0.113.10", 0, 0, 17), Known: known, Source: want.Source, Packets: 65536, Bytes: 1 << 32},
	}
	if diff := cmp.Diff(wants, got); diff != "" {
		t.Errorf("variable (-want +got):\n%s", diff)
	}
}

// TestFieldsOfVariableLengthInVersion9: H3C's NetStream ends its records with the
// name of the VRF.
func TestFieldsOfVariableLengthInVersion9(t *testing.T) {
	c := newCollector(t)
	got := c.take(v9(set(0, tmpl(256, append(slices.Clone(short), fs{236, variable})...)), set(256,
		shortRec(1), rec(uint8(0)), shortRec(2), rec(uint8(3), []byte("red")), shortRec(3), rec(uint8(255), uint16(300), make([]byte, 300)), shortRec(4), rec(uint8(0)), make([]byte, 3))))
	if diff := cmp.Diff([]uint64{1, 2, 3, 4}, counts(got)); diff != "" || c.Dropped != [Drops]uint64{} {
		t.Errorf("dropped %v (-want +got):\n%s", c.Dropped, diff)
	}
}

func TestIPv6AndItsTranslations(t *testing.T) {
	fields := []fs{{27, 16}, {28, 16}, {281, 16}, {282, 16}, {2, 8}, {139, 2}, {4, 1}, {195, 1}}
	got := newCollector(t).take(ipfix(set(2, tmpl(256, fields...)), set(256,
		rec("2001:db8::1", "2001:db8::2", "2001:db8:1::1", "::", uint64(5), uint16(0x8000), uint8(58), uint8(46)))))
	want := []flow.Record{{Key: key("2001:db8::1", "2001:db8::2", 0, 0x8000, 58), Source: flow.Source{Protocol: flow.IPFIX, Version: 10},
		Known: flow.HasPorts | flow.HasPackets | flow.HasTranslatedSrc | flow.HasTOS, Packets: 5, TOS: 46 << 2, TranslatedSrc: addr16("2001:db8:1::1")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestATemplateOfBothFamilies(t *testing.T) {
	fields := []fs{{8, 4}, {12, 4}, {27, 16}, {28, 16}, {2, 4}}
	records := [][]byte{
		rec("192.0.2.1", "192.0.2.2", "::", "::", uint32(1)),
		rec("0.0.0.0", "0.0.0.0", "2001:db8::1", "2001:db8::2", uint32(2)),
		rec("0.0.0.0", "0.0.0.0", "::", "::", uint32(3)),
		rec("192.0.2.3", "192.0.2.4", "::", "::", uint32(4)),
	}
	c := newCollector(t)
	got := c.take(v9(set(0, tmpl(256, fields...)), set(256, records...)))
	want := []flow.Key{key("192.0.2.1", "192.0.2.2", 0, 0, 0), key("2001:db8::1", "2001:db8::2", 0, 0, 0), key("192.0.2.3", "192.0.2.4", 0, 0, 0)}
	keys := make([]flow.Key, len(got))
	for i := range got {
		keys[i] = got[i].Key
	}
	if diff := cmp.Diff(want, keys); diff != "" || c.Dropped[NoFlow] != 1 {
		t.Errorf("%d without a flow (-want +got):\n%s", c.Dropped[NoFlow], diff)
	}
	// With ipVersion (60) the record says which: nProbe fills both.
	fields = append(fields, fs{60, 1})
	got = c.take(v9(set(0, tmpl(256, fields...)), set(256,
		append(rec("192.0.2.1", "192.0.2.2", "::1", "::1", uint32(1)), 6), append(rec("192.0.2.1", "192.0.2.2", "::1", "::1", uint32(1)), 4))))
	if len(got) != 2 || got[0].Family != flow.IPv6 || got[1].Family != flow.IPv4 {
		t.Errorf("%v", got)
	}
}

// TestOfATunnelTheOuterHeaderIsRead: routers that begin or end SRv6 tell the
// packet within, too, behind the one that they forward.
func TestOfATunnelTheOuterHeaderIsRead(t *testing.T) {
	outer6 := []fs{{2, 4}, {27, 16}, {28, 16}, {7, 2}, {11, 2}, {4, 1}}
	inner4 := []fs{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}}
	inner6 := []fs{{27, 16}, {28, 16}, {7, 2}, {11, 2}, {4, 1}}
	around := func(protocol uint8) []byte {
		return rec(uint32(1), "2001:db8::1", "2001:db8::2", uint16(0), uint16(0), protocol)
	}
	within := func(src, dst string) []byte { return rec(src, dst, uint16(1111), uint16(2222), uint8(17)) }
	got := newCollector(t).take(ipfix(
		set(2, tmpl(256, slices.Concat(outer6, inner4)...), tmpl(257, slices.Concat(outer6, inner6)...), tmpl(258, slices.Concat(inner4, outer6)...)),
		set(256, slices.Concat(around(4), within("192.0.2.1", "192.0.2.2")), slices.Concat(around(4), within("192.0.2.3", "192.0.2.4"))),
		set(257, slices.Concat(around(41), within("2001:db8::3", "2001:db8::4"))),
		set(258, slices.Concat(rec("192.0.2.1", "192.0.2.2", uint16(0), uint16(0), uint8(41)), rec(uint32(1), "2001:db8::3", "2001:db8::4", uint16(1111), uint16(2222), uint8(17))))))
	want := []flow.Key{key("2001:db8::1", "2001:db8::2", 0, 0, 4), key("2001:db8::1", "2001:db8::2", 0, 0, 4), key("2001:db8::1", "2001:db8::2", 0, 0, 41), key("192.0.2.1", "192.0.2.2", 0, 0, 41)}
	keys := make([]flow.Key, len(got))
	for i := range got {
		keys[i] = got[i].Key
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestICMPTypesInTheirOwnFields(t *testing.T) {
	for _, c := range []struct {
		fields   []fs
		values   []any
		protocol uint8
		want     uint16
	}{
		{[]fs{{32, 2}}, []any{uint16(0x0303)}, 1, 0x0303},
		{[]fs{{139, 2}}, []any{uint16(0x8100)}, 58, 0x8100},
		{[]fs{{176, 1}, {177, 1}}, []any{uint8(11), uint8(1)}, 1, 0x0b01},
		{[]fs{{178, 1}, {179, 1}}, []any{uint8(1), uint8(4)}, 58, 0x0104},
		{[]fs{{32, 2}, {7, 2}, {11, 2}}, []any{uint16(0), uint16(53), uint16(5353)}, 17, 5353},
	} {
		fields := append([]fs{{8, 4}, {12, 4}, {2, 4}, {4, 1}}, c.fields...)
		values := append([]any{"192.0.2.1", "192.0.2.2", uint32(1), c.protocol}, c.values...)
		got := newCollector(t).take(ipfix(set(2, tmpl(256, fields...)), set(256, rec(values...))))
		if len(got) != 1 || got[0].DstPort != c.want || got[0].Known&flow.HasPorts == 0 || c.protocol != 17 && got[0].SrcPort != 0 {
			t.Errorf("%v: %+v", c.fields, got)
		}
	}
}

func TestPostCountsAreOfTheSameDirection(t *testing.T) {
	const pen = reversePEN
	for _, c := range []struct {
		name           string
		fields         []fs
		values         []any
		packets, bytes []uint64
	}{
		{"alone", []fs{{24, 4}, {23, 4}}, []any{uint32(5), uint32(500)}, []uint64{5}, []uint64{500}},
		{"beside those that came in", []fs{{2, 4}, {1, 4}, {24, 4}, {23, 4}}, []any{uint32(7), uint32(700), uint32(5), uint32(500)}, []uint64{7}, []uint64{700}},
		{"of a flow that is counted as it leaves", []fs{{2, 4}, {1, 4}, {24, 4}, {23, 4}}, []any{uint32(0), uint32(0), uint32(5), uint32(500)}, []uint64{5}, []uint64{500}},
		{"packets alone", []fs{{1, 4}, {24, 4}}, []any{uint32(700), uint32(5)}, []uint64{5}, []uint64{700}},
		{"a total alone", []fs{{172, 4}, {171, 4}}, []any{uint32(9), uint32(900)}, []uint64{9}, []uint64{900}},
		{"a total beside what came of late", []fs{{172, 4}, {171, 4}, {24, 4}, {23, 4}}, []any{uint32(9), uint32(900), uint32(5), uint32(500)}, []uint64{5}, []uint64{500}},
		{"a total beside nothing of late", []fs{{2, 4}, {1, 4}, {172, 4}, {171, 4}}, []any{uint32(0), uint32(0), uint32(9), uint32(900)}, []uint64{0}, []uint64{0}},
		{"of the way back", []fs{{2, 4}, {1, 4}, {24, 4, pen}, {23, 4, pen}}, []any{uint32(7), uint32(700), uint32(5), uint32(500)}, []uint64{7, 5}, []uint64{700, 500}},
		{"of the way back, beside those that came in", []fs{{2, 4}, {24, 4, pen}, {23, 4, pen}, {2, 4, pen}, {1, 4, pen}},
			[]any{uint32(7), uint32(5), uint32(500), uint32(6), uint32(600)}, []uint64{7, 6}, []uint64{0, 600}},
	} {
		got := newCollector(t).take(ipfix(set(2, tmpl(256, append([]fs{{8, 4}, {12, 4}}, c.fields...)...)),
			set(256, append(rec("192.0.2.1", "192.0.2.2"), rec(c.values...)...))))
		var bytes []uint64
		for i := range got {
			bytes = append(bytes, got[i].Bytes)
		}
		if diff := cmp.Diff(c.packets, counts(got)) + cmp.Diff(c.bytes, bytes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestABiflowIsTwoRecords(t *testing.T) {
	const pen = reversePEN
	head := []fs{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}, {2, 4}, {1, 4}, {6, 1}, {152, 8}, {153, 8}, {16, 4}, {17, 4}}
	headRec := func(n uint32, protocol uint8) []byte {
		return rec("198.51.100.7", "203.0.113.9", uint16(50123), uint16(443), protocol, n, n*100, uint8(2), uint64(1000), uint64(2000), uint32(1), uint32(2))
	}
	reverse := []fs{{2, 4, pen}, {1, 4, pen}, {6, 1, pen}, {152, 8, pen}, {153, 8, pen}, {5, 1, pen}}
	fields := append(slices.Clone(head), reverse...)
	backRec := func(n uint32) []byte { return rec(n, n*1000, uint8(0x12), uint64(1100), uint64(1900), uint8(8)) }
	got := newCollector(t).take(ipfix(set(2, tmpl(256, fields...)), set(256,
		slices.Concat(headRec(3, 6), backRec(4)), slices.Concat(headRec(5, 17), backRec(0)), slices.Concat(headRec(0, 17), backRec(6)),
		slices.Concat(headRec(7, 1), backRec(7)))))
	source := flow.Source{Protocol: flow.IPFIX, Version: 10}
	known := flow.HasPorts | flow.HasPackets | flow.HasBytes | flow.HasTCPFlags | flow.HasStart | flow.HasEnd | flow.HasAS
	forth := func(n uint64, protocol uint8) flow.Record {
		return flow.Record{Key: key("198.51.100.7", "203.0.113.9", 50123, 443, protocol), Known: known, Source: source,
			TCPFlags: 2, Packets: n, Bytes: 100 * n, Start: 1000, End: 2000, SrcAS: 1, DstAS: 2}
	}
	back := func(n uint64, protocol uint8) flow.Record {
		return flow.Record{Key: key("203.0.113.9", "198.51.100.7", 443, 50123, protocol), Known: known | flow.HasTOS, Source: source,
			TCPFlags: 0x12, TOS: 8, Packets: n, Bytes: 1000 * n, Start: 1100, End: 1900, SrcAS: 2, DstAS: 1}
	}
	ping := back(7, 1)
	ping.Known, ping.SrcPort, ping.DstPort = ping.Known&^flow.HasPorts, 0, 0 // the answer's type is not told
	want := []flow.Record{forth(3, 6), back(4, 6), forth(5, 17), back(6, 17), forth(7, 1), ping}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestInitiatorAndResponder: Cisco's firewalls and NBAR count so; with
// biflowDirection 2 the record's source is the responder.
func TestInitiatorAndResponder(t *testing.T) {
	fields := []fs{{8, 4}, {12, 4}, {298, 8}, {231, 4}, {299, 8}, {232, 4}, {239, 1}}
	record := func(direction uint8) []byte {
		return rec("192.0.2.1", "192.0.2.2", uint64(10), uint32(1000), uint64(20), uint32(2000), direction)
	}
	got := newCollector(t).take(v9(set(0, tmpl(256, fields...)), set(256, record(1), record(2))))
	var text []string
	for _, r := range got {
		text = append(text, fmt.Sprint(r.SrcAddr(), r.DstAddr(), r.Packets, r.Bytes))
	}
	want := []string{"192.0.2.1 192.0.2.2 10 1000", "192.0.2.2 192.0.2.1 20 2000", "192.0.2.1 192.0.2.2 20 2000", "192.0.2.2 192.0.2.1 10 1000"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryEncodingOfTimes(t *testing.T) {
	const ms = unixNow * 1000
	ntp := func(unixMs int64) uint64 {
		return uint64(unixMs/1000+2_208_988_800)<<32 | uint64(unixMs%1000)<<32/1000
	}
	for _, c := range []struct {
		name       string
		version    uint16
		fields     []fs
		values     []any
		start, end int64 // 0: not told
	}{
		{"21 and 22, v9's uptime", 9, []fs{{22, 4}, {21, 4}}, []any{uint32(99_000), uint32(99_999)}, ms - 1000, ms - 1},
		{"21 and 22 around the wrap of the uptime", 9, []fs{{22, 4}, {21, 4}}, []any{uint32(math.MaxUint32 - 999), uint32(0)}, ms - 101_000, ms - 100_000},
		{"21 alone", 9, []fs{{21, 4}}, []any{uint32(100_000)}, 0, ms},
		{"an end before the start", 9, []fs{{22, 4}, {21, 4}}, []any{uint32(2000), uint32(1000)}, 0, 0},
		{"flows that ended long after the export: the uptime is in seconds", 9, []fs{{22, 4}, {21, 4}}, []any{uint32(98_000_000), uint32(99_000_000)}, 0, 0},
		{"21 and 22 in IPFIX without a boot time", 10, []fs{{22, 4}, {21, 4}}, []any{uint32(1), uint32(2)}, 0, 0},
		{"21 and 22 with a boot time in the record", 10, []fs{{22, 4}, {21, 4}, {160, 8}}, []any{uint32(1000), uint32(2000), uint64(ms - 50_000)}, ms - 49_000, ms - 48_000},
		{"seconds", 10, []fs{{150, 4}, {151, 4}}, []any{uint32(unixNow - 9), uint32(unixNow - 1)}, ms - 9000, ms - 1000},
		{"milliseconds", 10, []fs{{152, 8}, {153, 8}}, []any{uint64(ms - 1234), uint64(ms - 1)}, ms - 1234, ms - 1},
		{"microseconds, in NTP's form", 10, []fs{{154, 8}, {155, 8}}, []any{ntp(ms - 1234), ntp(ms - 1)}, ms - 1234, ms - 1},
		{"nanoseconds, in NTP's form", 10, []fs{{156, 8}, {157, 8}}, []any{ntp(ms - 1234), ntp(ms - 1)}, ms - 1234, ms - 1},
		{"NTP's next era", 10, []fs{{157, 8}}, []any{uint64(5) << 32}, 0, (5 + 1<<32 - 2_208_988_800) * 1000},
		{"microseconds before the export", 10, []fs{{158, 4}, {159, 4}}, []any{uint32(3_000_000), uint32(1_000_000)}, ms - 3000, ms - 1000},
		{"the start and how long it took", 10, []fs{{152, 8}, {161, 4}}, []any{uint64(ms - 5000), uint32(4000)}, ms - 5000, ms - 1000},
		{"the end and how long it took, in microseconds", 10, []fs{{153, 8}, {162, 4}}, []any{uint64(ms - 5000), uint32(4_000_000)}, ms - 9000, ms - 5000},
		{"the time of an event", 9, []fs{{323, 8}}, []any{uint64(ms - 7)}, 0, ms - 7},
		{"the best of several", 10, []fs{{150, 4}, {152, 8}, {22, 4}, {153, 8}, {151, 4}}, []any{uint32(1), uint64(ms - 2000), uint32(1), uint64(ms), uint32(2)}, ms - 2000, ms},
		{"zeros", 10, []fs{{152, 8}, {151, 4}}, []any{uint64(0), uint32(0)}, 0, 0},
	} {
		m := message{version: c.version, uptime: 100_000}
		templates := uint16(0)
		if c.version == 10 {
			templates = 2
		}
		m.sets = [][]byte{set(templates, tmpl(256, append(slices.Clone(short), c.fields...)...)), set(256, append(shortRec(1), rec(c.values...)...))}
		got := newCollector(t).take(m)
		if len(got) != 1 {
			t.Fatalf("%s: %d records", c.name, len(got))
		}
		r, start, end := got[0], int64(0), int64(0)
		if r.Known&flow.HasStart != 0 {
			start = r.Start
		}
		if r.Known&flow.HasEnd != 0 {
			end = r.End
		}
		if start != c.start || end != c.end {
			t.Errorf("%s: %d to %d, want %d to %d", c.name, start, end, c.start, c.end)
		}
	}
	got := newCollector(t).take(ipfix(set(2, tmpl(256, append(slices.Clone(short), fs{22, 4}, fs{21, 4}, fs{160, 8})...)), set(256,
		append(shortRec(1), rec(uint32(1000), uint32(2000), uint64(ms-50_000))...), append(shortRec(2), rec(uint32(1000), uint32(2000), uint64(0))...))))
	if len(got) != 2 || got[0].Known&flow.HasStart == 0 || got[1].Known&(flow.HasStart|flow.HasEnd) != 0 {
		t.Errorf("a boot time is of its record alone: %+v", got)
	}
	m := v9(set(0, tmpl(256, append(slices.Clone(short), fs{22, 4}, fs{21, 4})...)), set(256, append(shortRec(1), rec(uint32(5), uint32(6))...)))
	b := m.bytes()
	clear(b[8:12]) // an exporter whose clock was never set
	c := newCollector(t)
	if err := c.Decode(someone, b, func(r *flow.Record) {
		if r.Known&(flow.HasStart|flow.HasEnd) != 0 {
			t.Errorf("%d to %d", r.Start, r.End)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestSeveralSetsOfEachKindInOneDatagram(t *testing.T) {
	scope9 := []fs{{1, 4}, {34, 4}}
	c := newCollector(t)
	got := c.take(v9(
		set(0, tmpl(256, short...), tmpl(257, append(short, fs{4, 1})...)),
		set(1, options9(300, 1, scope9...), []byte{0, 0}), // padding
		set(256, shortRec(1), shortRec(2), []byte{0, 0, 0}),
		set(2, []byte("a set of a kind that is not known")),
		set(300, rec(uint32(0), uint32(100)), []byte{0}),
		set(257, append(shortRec(3), 6), append(shortRec(4), 17), []byte{1, 2, 3, 4, 5, 6, 7}), // non-zero padding
		set(256, shortRec(5)),
		set(0, tmpl(258, short...), []byte{0, 0, 0, 0}),
		set(258, shortRec(6))))
	if diff := cmp.Diff([]uint64{1, 2, 3, 4, 5, 6}, counts(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got[1].Interval != 0 || got[2].Interval != 100 || got[5].Interval != 100 {
		t.Errorf("intervals %d, %d, %d", got[1].Interval, got[2].Interval, got[5].Interval)
	}
	if c.Dropped != [Drops]uint64{} {
		t.Errorf("dropped %v", c.Dropped)
	}
}

func TestDamagedDatagramsAreNamedAndLoseNoWholeRecord(t *testing.T) {
	template := set(2, tmpl(256, short...))
	whole := ipfix(template, set(256, shortRec(1), shortRec(2)), set(256, shortRec(3))).bytes()
	setLength := func(n uint16, length int) []byte {
		b := slices.Clone(whole)
		binary.BigEndian.PutUint16(b[16+len(template)+2:], n)
		return b[:length]
	}
	claims := func(n uint16) []byte {
		b := slices.Clone(whole)
		binary.BigEndian.PutUint16(b[2:], n)
		return b
	}
	for _, c := range []struct {
		name    string
		b       []byte
		records int
		err     error
	}{
		{"a v9 header one byte short", v9().bytes()[:19], 0, ErrShort},
		{"an IPFIX header one byte short", whole[:15], 0, ErrShort},
		{"an IPFIX length of less than its header", claims(15), 0, ErrShort},
		{"whole", whole, 3, nil},
		{"bytes behind the message", append(slices.Clone(whole), 1, 2, 3, 4, 5), 3, nil},
		{"a message that ends before", claims(uint16(len(whole) - 20)), 2, nil},
		{"more claimed than there is", claims(uint16(len(whole) + 1)), 3, ErrCount},
		{"one byte missing", whole[:len(whole)-1], 2, ErrSet},
		{"cut within the second record", whole[:16+len(template)+4+31], 1, ErrSet},
		{"a set of length 3", setLength(3, len(whole)), 0, ErrSet},
		{"a set of length 0", setLength(0, len(whole)), 0, ErrSet},
		{"a set beyond the end", setLength(65535, len(whole)), 3, ErrSet},
		{"65,535 records claimed in 24 bytes of v9", append([]byte{0, 9, 255, 255}, make([]byte, 20)...), 0, nil},
	} {
		n := 0
		err := NewDecoder(4).Decode(someone, c.b, func(*flow.Record) { n++ })
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || n != c.records {
			t.Errorf("%s: %d records and %v, want %d and %v", c.name, n, err, c.records, c.err)
		}
	}
}

func TestDataBeforeTheirTemplateAreHeldBack(t *testing.T) {
	c := newCollector(t)
	data := func(n int) message { m := v9(set(256, shortRec(n))); m.uptime = uint32(n); return m }
	if got := c.take(data(1), data(2)); len(got) != 0 {
		t.Fatalf("%d records without a template", len(got))
	}
	c.takeFrom("192.0.2.1:4001", v9(set(0, tmpl(256, short...)))) // of another port
	other := v9(set(0, tmpl(256, short...)))
	other.domain = 1
	c.take(other) // and of another domain
	c.takeFrom("192.0.2.2:4000", v9(set(0, tmpl(256, short...))))
	if len(c.got) != 0 {
		t.Fatalf("%d records by a template that is not theirs", len(c.got))
	}
	got := c.take(v9(set(256, shortRec(3)), set(0, tmpl(256, short...)), set(256, shortRec(4))))
	if diff := cmp.Diff([]uint64{1, 2, 3, 4}, counts(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := c.take(v9(set(0, tmpl(256, short...)))); len(got) != 0 || c.Dropped != [Drops]uint64{} {
		t.Errorf("%d records again, dropped %v", len(got), c.Dropped)
	}
	for n := range 20 {
		c.take(v9(set(400, shortRec(n))))
	}
	if c.Dropped[NoTemplate] != 20-heldSets {
		t.Errorf("%d sets lost", c.Dropped[NoTemplate])
	}
	c.take(v9(set(401, make([]byte, heldSize+1))))
	if c.Dropped[NoTemplate] != 20-heldSets+1 {
		t.Errorf("%d sets lost with a long one", c.Dropped[NoTemplate])
	}
	got = c.take(v9(set(0, tmpl(400, short...))))
	if n := counts(got); len(n) != heldSets || slices.Min(n) != 20-heldSets {
		t.Errorf("held: %v", n)
	}
}

func TestDataAreNotHeldBackForATemplateOfAnotherTime(t *testing.T) {
	for _, c := range []struct {
		name            string
		seconds, uptime uint32 // of the template; the data are of unixNow and 100,000
		want            int
	}{
		{"soon after", unixNow + 1, 101_000, 1},
		{"overtaken by the data", unixNow - 1, 99_000, 1},
		{"14 minutes later", unixNow + 840, 940_000, 1},
		{"16 minutes later", unixNow + 960, 1_060_000, 0},
		{"a year later", unixNow + 31_000_000, 100_000, 0},
		{"after a restart", unixNow + 30, 5_000, 0},
	} {
		k := newCollector(t)
		data := v9(set(256, shortRec(1)))
		data.uptime = 100_000
		template := v9(set(0, tmpl(256, short...)))
		template.seconds, template.uptime = c.seconds, c.uptime
		if got := k.take(data, template); len(got) != c.want || k.Dropped[NoTemplate] != uint64(1-c.want) {
			t.Errorf("%s: %d records, %d sets dropped", c.name, len(got), k.Dropped[NoTemplate])
		}
	}
}

func TestTemplatesAreOfTheirExporterPortAndDomain(t *testing.T) {
	c := newCollector(t)
	other := append(slices.Clone(short), fs{4, 1})
	send := func(from string, domain uint32, sets ...[]byte) int {
		m := v9(sets...)
		m.domain = domain
		return len(c.takeFrom(from, m))
	}
	send("192.0.2.1:4000", 0, set(0, tmpl(256, short...)))
	send("192.0.2.1:4001", 0, set(0, tmpl(256, other...)))
	send("192.0.2.1:4000", 9, set(0, tmpl(256, other...)))
	send("192.0.2.2:4000", 0, set(0, tmpl(256, other...)))
	send("[::ffff:192.0.2.2]:4000", 0, set(0, tmpl(256, other...))) // the same as the one before
	body := make([]byte, 3*17)
	if n := send("192.0.2.1:4000", 0, set(256, body[:3*16])); n != 3 {
		t.Errorf("%d records of the first template", n)
	}
	for _, from := range []string{"192.0.2.1:4001", "192.0.2.2:4000"} {
		if n := send(from, 0, set(256, body)); n != 3 {
			t.Errorf("%s: %d records", from, n)
		}
	}
	if n := send("192.0.2.1:4000", 9, set(256, body)); n != 3 {
		t.Errorf("domain 9: %d records", n)
	}
	if n := send("192.0.2.3:4000", 0, set(256, body)); n != 0 {
		t.Errorf("an exporter without templates: %d records", n)
	}
}

func TestTemplatesChangeAndAreWithdrawn(t *testing.T) {
	wider := append(slices.Clone(short), fs{4, 1})
	for _, c := range []struct {
		name    string
		change  []byte
		records int // of a set of 3*17 bytes: 3 of 17 or of 16 bytes
		last    uint8
		bad     uint64
	}{
		{"the same again", set(2, tmpl(256, short...)), 3, 0, 0},
		{"another definition replaces it", set(2, tmpl(256, wider...)), 3, 9, 0},
		{"a withdrawal is ignored", set(2, tmpl(256)), 3, 0, 0},
		{"the withdrawal of all is ignored", set(2, tmpl(2)), 3, 0, 0},
		{"of all options too", set(3, tmpl(3)), 3, 0, 0},
		{"one of no bytes removes it", set(2, tmpl(256, fs{8, 0}, fs{12, 0})), 0, 0, 1},
		{"one of too many fields removes it", set(2, tmpl(256, make([]fs, 600)...)), 0, 0, 1},
		{"one whose fields are missing removes it", set(2, tmpl(256, short...)[:12]), 0, 0, 1},
		{"one of 65,535 fields removes it", set(2, []byte{1, 0, 255, 255}), 0, 0, 1},
		{"one of longer records than there can be removes it", set(2, tmpl(256, fs{8, 4}, fs{12, 65000}, fs{2, 4}, fs{1, 600})), 0, 0, 1},
		{"a bad one of another number does not", set(2, tmpl(257, fs{8, 0})), 3, 0, 1},
		{"nor one whose number is that of a set", set(2, tmpl(255, short...)), 3, 0, 1},
		{"a good one behind a bad one counts", set(2, tmpl(257, fs{8, 0}), tmpl(256, wider...)), 3, 9, 1},
		{"options of the same number replace it", set(3, options10(256, 1, short...)), 0, 0, 0},
		{"options without a scope remove it", set(3, options10(256, 0, short...)), 0, 0, 1},
		{"options of more scopes than fields remove it", set(3, options10(256, 5, short...)), 0, 0, 1},
	} {
		k := newCollector(t)
		k.take(ipfix(set(2, tmpl(256, short...))))
		k.take(ipfix(c.change))
		record := append(shortRec(1), 9)
		got := k.take(ipfix(set(256, record, record, record)))
		if len(got) != c.records || c.records > 0 && got[0].Protocol != c.last || k.Dropped[BadTemplate] != c.bad {
			t.Errorf("%s: %d records, %d bad templates", c.name, len(got), k.Dropped[BadTemplate])
		}
	}
	// v9 has no withdrawals: no fields are a bad definition.
	k := newCollector(t)
	k.take(v9(set(0, tmpl(256, short...))), v9(set(0, tmpl(256))))
	if got := k.take(v9(set(256, shortRec(1)))); len(got) != 0 || k.Dropped[BadTemplate] != 1 {
		t.Errorf("v9: %d records, %d bad templates", len(got), k.Dropped[BadTemplate])
	}
}

func TestZeroLengthFieldsAreLegalInARecordOfBytes(t *testing.T) {
	got := newCollector(t).take(v9(set(0, tmpl(256, fs{8, 0}, fs{8, 4}, fs{94, 0}, fs{12, 4}, fs{2, 4}, fs{1, 4}, fs{11, 0})), set(256, shortRec(1), shortRec(2))))
	if diff := cmp.Diff([]uint64{1, 2}, counts(got)); diff != "" || got[0].Known&flow.HasPorts != 0 {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRecordsThatAreNoFlowsAreCounted(t *testing.T) {
	c := newCollector(t)
	got := c.take(ipfix(set(2, tmpl(256, fs{56, 6}, fs{80, 6}, fs{2, 4}), tmpl(257, fs{8, 4}, fs{12, 4}, fs{230, 1}), tmpl(258, fs{8, 4}, fs{2, 4})),
		set(256, make([]byte, 3*16)), set(257, make([]byte, 2*9)), set(258, make([]byte, 8))))
	if want := [Drops]uint64{NoFlow: 4, NoCount: 2}; len(got) != 0 || c.Dropped != want {
		t.Errorf("%d records, dropped %v", len(got), c.Dropped)
	}
}

// TestRecordsThatBearAPacket: PSAMP (RFC 5476), with the packet in a field of
// fixed or of variable length, from the link layer or from layer 3.
func TestRecordsThatBearAPacket(t *testing.T) {
	ip := rec([]byte{0x45, 0x28, 0, 100, 0, 0, 0, 0, 57, 6, 0, 0}, "198.51.100.7", "203.0.113.9", uint16(443), uint16(50123), make([]byte, 9), uint8(0x12))
	frame := rec(make([]byte, 12), uint16(0x0800), ip)
	pad := make([]byte, 400)
	size := uint16(len(frame))
	want := flow.Record{Key: key("198.51.100.7", "203.0.113.9", 443, 50123, 6), Source: flow.Source{Protocol: flow.IPFIX, Version: 10},
		Known: flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasTTL | flow.HasPackets | flow.HasBytes | flow.HasIngress,
		TOS:   0x28, TCPFlags: 0x12, TTL: 57, MaxTTL: 57, Packets: 1, Bytes: 100, Ingress: 7}
	for _, c := range []struct {
		name   string
		fields []fs
		record []byte
	}{
		{"of fixed length", []fs{{10, 2}, {315, int(size)}}, rec(uint16(7), frame)},
		{"of fixed length, with padding and the size of what was exported", []fs{{410, 2}, {315, int(size) + 400}, {10, 4}}, rec(size, frame, pad, uint32(7))},
		{"of variable length", []fs{{10, 2}, {315, variable}}, rec(uint16(7), uint8(size), frame)},
		{"of variable length, told in three bytes", []fs{{315, variable}, {10, 2}}, rec(uint8(255), size, frame, uint16(7))},
		{"behind other fields of variable length", []fs{{82, variable}, {83, variable}, {4, 1}, {315, variable}, {96, variable}, {10, 1}},
			rec(uint8(2), []byte("if"), uint8(0), uint8(1), uint8(size), frame, uint8(0), uint8(7))},
		{"of fixed length behind one of variable length", []fs{{10, 4}, {82, variable}, {4, 1}, {315, int(size)}, {83, variable}},
			rec(uint32(7), uint8(1), []byte("x"), uint8(1), frame, uint8(0))},
		{"from layer 3", []fs{{313, variable}, {10, 2}}, rec(uint8(len(ip)), ip, uint16(7))},
		{"from both, of which the frame counts", []fs{{313, len(ip)}, {315, int(size)}, {10, 2}}, rec(make([]byte, len(ip)), frame, uint16(7))},
	} {
		k := newCollector(t)
		got := k.take(ipfix(set(2, tmpl(256, c.fields...)), set(256, c.record, c.record)))
		if diff := cmp.Diff([]flow.Record{want, want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	// A size beyond what there is, also where an int has 32 bits.
	for _, n := range []uint32{1 << 31, 1<<32 - 1, uint32(size)} {
		got := newCollector(t).take(ipfix(set(2, tmpl(256, fs{410, 4}, fs{10, 2}, fs{315, int(size)})), set(256, rec(n, uint16(7), frame))))
		if diff := cmp.Diff([]flow.Record{want}, got); diff != "" {
			t.Errorf("of a size of %d (-want +got):\n%s", n, diff)
		}
	}
	k := newCollector(t)
	sampled := k.take(ipfix(set(3, options10(300, 1, fs{302, 4}, fs{304, 2}, fs{305, 4}, fs{306, 4})), set(300, rec(uint32(1), uint16(1), uint32(1), uint32(999))),
		set(2, tmpl(256, fs{302, 4}, fs{323, 8}, fs{315, variable})), set(256, rec(uint32(1), uint64(5000), uint8(size), frame))))
	if len(sampled) != 1 || sampled[0].Interval != 1000 || sampled[0].Known&flow.HasEnd == 0 || sampled[0].End != 5000 {
		t.Errorf("sampled: %+v", sampled)
	}
	got := k.take(ipfix(set(2, tmpl(257, fs{315, variable})), set(257,
		rec(uint8(0)), rec(uint8(3), []byte("arp")), rec(uint8(13), frame[:13]), rec(uint8(size), frame), []byte{200})))
	if len(got) != 1 || k.Dropped[NoFlow] != 3 {
		t.Errorf("of packets that are no flow: %d records, dropped %v", len(got), k.Dropped)
	}
}
