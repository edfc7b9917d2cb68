// SPDX-License-Identifier: BSD-3-Clause

package sflow

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
)

// xdr writes words as RFC 4506 has them, after the specification and not after
// the decoder.
type xdr []byte

func words(v ...uint32) xdr {
	var x xdr
	for _, w := range v {
		x = binary.BigEndian.AppendUint32(x, w)
	}
	return x
}

func (x xdr) words(v ...uint32) xdr { return append(x, words(v...)...) }

// opaque is of variable length: with the length in front and padding behind.
func (x xdr) opaque(b []byte) xdr {
	x = append(x.words(uint32(len(b))), b...)
	for n := len(b); n%4 != 0; n++ {
		x = append(x, 0)
	}
	return x
}

func (x xdr) address(s string) xdr {
	if s == "" {
		return x.words(0)
	}
	a := netip.MustParseAddr(s)
	if a.Is4() {
		x = x.words(1)
	} else {
		x = x.words(2)
	}
	return append(x, a.AsSlice()...)
}

// datagram of an agent; the samples have their format and length already.
func datagram(agent string, samples ...xdr) []byte {
	return claiming(agent, uint32(len(samples)), samples...)
}

func claiming(agent string, count uint32, samples ...xdr) []byte {
	x := words(5).address(agent).words(3 /* sub-agent */, 17 /* sequence */, 90_000 /* uptime */, count)
	for _, s := range samples {
		x = append(x, s...)
	}
	return x
}

// tagged puts the format and the length in front of a sample or a record.
func tagged(format uint32, content xdr) xdr { return words(format).opaque(content) }

// sampling is the head of a flow sample.
type sampling struct {
	sequence, class, index, rate, pool, drops uint32
	inFormat, in, outFormat, out              uint32
	count                                     uint32 // 0: as many as there are records
}

func (s sampling) number(records []xdr) uint32 {
	if s.count != 0 {
		return s.count
	}
	return uint32(len(records))
}

func (s sampling) compact(records ...xdr) xdr {
	x := words(s.sequence, s.class<<24|s.index, s.rate, s.pool, s.drops, s.inFormat<<30|s.in, s.outFormat<<30|s.out, s.number(records))
	for _, r := range records {
		x = append(x, r...)
	}
	return tagged(1, x)
}

func (s sampling) expanded(records ...xdr) xdr {
	x := words(s.sequence, s.class, s.index, s.rate, s.pool, s.drops, s.inFormat, s.in, s.outFormat, s.out, s.number(records))
	for _, r := range records {
		x = append(x, r...)
	}
	return tagged(3, x)
}

// raw is a raw packet header of an Ethernet frame of 4 bytes more, its checksum.
func raw(protocol uint32, header []byte) xdr {
	return tagged(1, words(protocol, uint32(len(header))+4, 4).opaque(header))
}

var (
	ip4 = []byte{0x45, 0x28, 5, 0xdc, 0, 1, 0x40, 0, 57, 6, 0, 0, 198, 51, 100, 7, 203, 0, 113, 9}
	tcp = []byte{0x01, 0xbb, 0xc3, 0x4f, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x1b, 1, 0, 0, 0, 0, 0}
	ip6 = []byte{0x62, 0x80, 0, 0, 0, 28, 17, 63, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}
	udp = []byte{0x01, 0xbb, 0xc3, 0x4f, 0, 28, 0, 0}
)

func bytesOf(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func ethernet(ethertype uint16, parts ...[]byte) []byte {
	return bytesOf([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, byte(ethertype >> 8), byte(ethertype)}, bytesOf(parts...))
}

func key(src, dst string, protocol uint8, sport, dport uint16) flow.Key {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	k := flow.Key{Protocol: protocol, SrcPort: sport, DstPort: dport, Family: flow.IPv4}
	if a.Is6() {
		k.Family = flow.IPv6
	}
	copy(k.Src[:], a.AsSlice())
	copy(k.Dst[:], b.AsSlice())
	return k
}

// tcp4 and udp6 are what the headers above are of, alone in a sample.
func tcp4() flow.Record {
	return flow.Record{
		Key:    key("198.51.100.7", "203.0.113.9", 6, 443, 49999),
		Known:  flow.HasPackets | flow.HasBytes | flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasTTL,
		Source: flow.Source{Protocol: flow.SFlow, Version: 5},
		TOS:    0x28, TCPFlags: 0x1b, TTL: 57, MaxTTL: 57, Interval: 300, Packets: 1, Bytes: 1500,
	}
}

func udp6() flow.Record {
	return flow.Record{
		Key:    key("2001:db8::7", "2001:db8::9", 17, 443, 49999),
		Known:  flow.HasPackets | flow.HasBytes | flow.HasPorts | flow.HasTOS | flow.HasTTL,
		Source: flow.Source{Protocol: flow.SFlow, Version: 5},
		TOS:    0x28, TTL: 63, MaxTTL: 63, Interval: 300, Packets: 1, Bytes: 68,
	}
}

func decode(t testing.TB, b []byte) ([]flow.Record, Stats, error) {
	t.Helper()
	d := NewDecoder()
	var got []flow.Record
	err := d.Decode(b, func(r *flow.Record) { got = append(got, *r) })
	return got, d.Stats, err
}

func TestBadDatagramsAreNamedAndLoseNoWholeSample(t *testing.T) {
	good := sampling{rate: 300}.compact(raw(11, bytesOf(ip4, tcp)))
	whole := datagram("192.0.2.1", good, good)
	bad := func(content xdr) []byte { return datagram("192.0.2.1", good, content, good) }
	head := words(1, 2, 300, 4, 0, 6, 7) // of a flow sample, without the number of records
	const many = 1<<32 - 1
	for _, c := range []struct {
		name    string
		b       []byte
		records int
		noFlow  uint64
		err     error
	}{
		{"nothing", nil, 0, 0, ErrShort},
		{"half a version", []byte{0, 0, 0}, 0, 0, ErrShort},
		{"a version alone", words(5), 0, 0, ErrShort},
		{"half an agent", words(5, 2, 1, 2, 3), 0, 0, ErrShort},
		{"a header one byte short", whole[:27], 0, 0, ErrShort},
		{"version 4", words(4, 1, 1, 1, 1, 1, 1), 0, 0, ErrVersion},
		{"version 2", words(2, 1, 1, 1, 1, 1, 1), 0, 0, ErrVersion},
		{"version 5 in the wrong byte order", append([]byte{5, 0, 0, 0}, whole[4:]...), 0, 0, ErrVersion},
		{"NetFlow version 5", append([]byte{0, 5, 0, 2}, whole[4:]...), 0, 0, ErrVersion},
		{"an agent address of type 3", append(words(5, 3), whole[8:]...), 0, 0, ErrAgent},
		{"an agent address of type 2^32-1", append(words(5, many), whole[8:]...), 0, 0, ErrAgent},
		{"no samples", datagram("192.0.2.1"), 0, 0, nil},
		{"an agent without an address", datagram("", good), 1, 0, nil},
		{"an agent with an IPv6 address", datagram("2001:db8::1", good), 1, 0, nil},
		{"2^32-1 samples in 28 bytes", claiming("192.0.2.1", many), 0, 0, ErrCount},
		{"2^32-1 samples, two there", claiming("192.0.2.1", many, good, good), 2, 0, ErrCount},
		{"2^32-1 samples, empty ones", claiming("192.0.2.1", many, make(xdr, 8000)), 0, 0, ErrCount},
		{"the last sample one byte short", whole[:len(whole)-1], 1, 0, ErrCount},
		{"the last sample's head cut", whole[:len(whole)-len(good)+7], 1, 0, ErrCount},
		{"a sample that leads outside", bad(words(1, 100_000)), 1, 0, ErrCount},
		{"a sample of 2^32-1 bytes", bad(words(1, many)), 1, 0, ErrCount},
		{"fewer samples claimed than there are", claiming("192.0.2.1", 1, good, good), 1, 0, nil},
		{"bytes behind the last sample", append(datagram("192.0.2.1", good), 1, 2, 3), 1, 0, nil},
		{"a vendor's sample", bad(tagged(9<<12|1, words(1, 2, 3))), 2, 0, nil},
		{"an empty sample", bad(tagged(1, nil)), 2, 1, ErrSample},
		{"a sample cut in its head", bad(tagged(1, head)), 2, 1, ErrSample},
		{"an expanded sample cut in its head", bad(tagged(3, append(head, make(xdr, 12)...))), 2, 1, ErrSample},
		{"a sample of no records", bad(sampling{}.compact()), 2, 1, nil},
		{"2^32-1 records in none", bad(sampling{count: many}.compact()), 2, 1, ErrSample},
		{"2^32-1 records, empty ones", bad(sampling{count: many}.compact(make(xdr, 800))), 2, 1, ErrSample},
		{"a record that leads outside", bad(sampling{}.compact(words(1, 400))), 2, 1, ErrSample},
		{"a record of 2^32-1 bytes", bad(sampling{}.compact(words(1, many))), 2, 1, ErrSample},
		{"a flow, and then damage", bad(sampling{count: 2}.compact(raw(11, bytesOf(ip4, tcp)), words(1, 400))), 3, 0, ErrSample},
		{"a raw header cut in its head", bad(sampling{}.compact(tagged(1, words(1, 2, 3)))), 2, 1, ErrSample},
		{"a raw header that claims more than there is", bad(sampling{}.compact(tagged(1, append(words(11, 1500, 0, many), bytesOf(ip4, tcp)...)))), 3, 0, ErrSample},
		{"a raw header of ARP", bad(sampling{}.compact(raw(1, ethernet(0x0806, ip4)))), 2, 1, nil},
		{"a raw header of half an IP header", bad(sampling{}.compact(raw(11, ip4[:19]))), 2, 1, nil},
		{"a raw header of X.25", bad(sampling{}.compact(raw(6, ip4))), 2, 1, nil},
		{"a sampled IPv4 one byte short", bad(sampling{}.compact(tagged(3, make(xdr, 31)))), 2, 1, ErrSample},
		{"a sampled IPv6 one word short", bad(sampling{}.compact(tagged(4, make(xdr, 52)))), 2, 1, ErrSample},
		{"a sampled IPv4 of protocol 256", bad(sampling{}.compact(tagged(3, words(40, 256, 1, 2, 3, 4, 5, 6)))), 2, 1, ErrSample},
		{"a vendor's record", bad(sampling{}.compact(tagged(9<<12|1, bytesOf(ip4, ip4)))), 2, 1, nil},
	} {
		got, stats, err := decode(t, c.b)
		if err != c.err || len(got) != c.records || stats.NoFlow != c.noFlow {
			t.Errorf("%s: %d records, %d samples without a flow and %v, want %d, %d and %v", c.name, len(got), stats.NoFlow, err, c.records, c.noFlow, c.err)
		}
		for _, r := range got {
			r.Interval = 300
			if diff := cmp.Diff(tcp4().Key, r.Key); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}

func TestSamplesAreCountedByTheirKind(t *testing.T) {
	good := sampling{rate: 300}.compact(raw(11, bytesOf(ip4, tcp)))
	got, stats, err := decode(t, datagram("192.0.2.1",
		tagged(2, words(1, 2, 0)), tagged(4, words(1, 0, 2, 0)), good,
		tagged(5, words(1, 0, 2, 0, 3, 4, 256, 0)), // discarded packets, sflow.org/sflow_drops.txt
		tagged(4300<<12|1, nil), sampling{}.compact(), tagged(2, nil)))
	want := Stats{FlowSamples: 2, CounterSamples: 3, OtherSamples: 2, NoFlow: 1}
	if err != nil || len(got) != 1 || stats != want {
		t.Errorf("%d records, %v, %+v, want %+v", len(got), err, stats, want)
	}
}

func TestEveryRecordIsRead(t *testing.T) {
	header4, header6 := raw(1, ethernet(0x0800, ip4, tcp)), raw(1, ethernet(0x86dd, ip6, udp))
	path := func(segments ...[]uint32) xdr {
		x := words(0).address("192.0.2.254")[4:].words(64500, 64501, 64502, uint32(len(segments)))
		for _, s := range segments {
			x = x.words(2, uint32(len(s))).words(s...)
		}
		return tagged(1003, x.words(0 /* communities */, 100 /* local preference */))
	}
	const many = 1<<32 - 1
	change := func(r flow.Record, f func(*flow.Record)) flow.Record {
		f(&r)
		return r
	}
	as := func(src, dst uint32) flow.Record {
		return change(tcp4(), func(r *flow.Record) { r.SrcAS, r.DstAS, r.Known = src, dst, r.Known|flow.HasAS })
	}
	inVLAN := func(r flow.Record, id uint16) flow.Record {
		return change(r, func(r *flow.Record) { r.VLAN, r.Known = id, r.Known|flow.HasVLAN })
	}
	noTTL := func(r *flow.Record) { r.TTL, r.MaxTTL, r.Known = 0, 0, r.Known&^flow.HasTTL }
	sampled4 := tagged(3, words(1500, 6, 0xc6336407, 0xcb007109, 443, 49999, 0x1b, 0x28))
	sampled6 := tagged(4, bytesOf(words(68, 17), ip6[8:40], words(443, 49999, 0, 0x28)))
	for _, c := range []struct {
		name    string
		records []xdr
		want    flow.Record
		err     error
	}{
		{"Ethernet, IPv4", []xdr{header4}, tcp4(), nil},
		{"Ethernet, IPv6", []xdr{header6}, udp6(), nil},
		{"PPP", []xdr{raw(7, bytesOf([]byte{0xff, 3, 0, 0x21}, ip4, tcp))}, tcp4(), nil},
		{"PPP over SONET", []xdr{raw(14, bytesOf([]byte{0xff, 3, 0, 0x57}, ip6, udp))}, udp6(), nil},
		{"IPv4", []xdr{raw(11, bytesOf(ip4, tcp))}, tcp4(), nil},
		{"IPv6", []xdr{raw(12, bytesOf(ip6, udp))}, udp6(), nil},
		{"MPLS", []xdr{raw(13, bytesOf([]byte{0, 1, 1, 64}, ip4, tcp))}, tcp4(), nil},
		{"a header cut in the TCP header", []xdr{raw(11, bytesOf(ip4, tcp[:6]))},
			change(tcp4(), func(r *flow.Record) { r.TCPFlags, r.Known = 0, r.Known&^flow.HasTCPFlags }), nil},
		{"a header cut behind the IP header", []xdr{raw(11, ip4)}, change(tcp4(), func(r *flow.Record) {
			r.SrcPort, r.DstPort, r.TCPFlags, r.Known = 0, 0, 0, r.Known&^(flow.HasTCPFlags|flow.HasPorts)
		}), nil},
		{"padding that looks like ports", []xdr{tagged(1, append(words(11, 100, 4, 22), bytesOf(ip4, tcp[:4])...))}, change(tcp4(), func(r *flow.Record) {
			r.SrcPort, r.DstPort, r.TCPFlags, r.Known = 0, 0, 0, r.Known&^(flow.HasTCPFlags|flow.HasPorts)
		}), nil},
		{"an IP header without a length: the frame tells it", []xdr{tagged(1, words(1, 9014+4, 4).opaque(ethernet(0x0800, ip4[:2], []byte{0, 0}, ip4[4:], tcp)))},
			change(tcp4(), func(r *flow.Record) { r.Bytes = 9000 }), nil},
		{"neither the IP header nor the frame has a length", []xdr{tagged(1, words(1, 0, many).opaque(ethernet(0x0800, ip4[:2], []byte{0, 0}, ip4[4:], tcp)))},
			change(tcp4(), func(r *flow.Record) { r.Bytes = 40 }), nil},
		{"sampled IPv4", []xdr{sampled4}, change(tcp4(), noTTL), nil},
		{"sampled IPv6", []xdr{sampled6}, change(udp6(), noTTL), nil},
		{"sampled IPv4 before the header: the header wins", []xdr{tagged(3, words(9, 17, 1, 2, 3, 4, 5, 6)), header4}, tcp4(), nil},
		{"sampled IPv4 behind the header: the header wins", []xdr{header4, tagged(3, words(9, 17, 1, 2, 3, 4, 5, 6))}, tcp4(), nil},
		{"sampled IPv4 beside a header that is not read", []xdr{raw(5, ip4), sampled4}, change(tcp4(), noTTL), nil},
		{"two headers: the first", []xdr{header4, header6}, tcp4(), nil},
		{"sampled ICMP has no ports", []xdr{tagged(3, words(1500, 1, 0xc6336407, 0xcb007109, 0, 0x0800, 0, 0x28))}, change(tcp4(), func(r *flow.Record) {
			noTTL(r)
			r.Protocol, r.SrcPort, r.DstPort, r.TCPFlags, r.Known = 1, 0, 0, 0, r.Known&^(flow.HasPorts|flow.HasTCPFlags)
		}), nil},
		{"what sampled IPv4 has in words that are too large", []xdr{tagged(3, words(0, 6, 0xc6336407, 0xcb007109, 443, 65536, 256, 256))}, flow.Record{
			Key: key("198.51.100.7", "203.0.113.9", 6, 0, 0), Known: flow.HasPackets, Source: tcp4().Source, Interval: 300, Packets: 1}, nil},
		{"extended switch", []xdr{header4, tagged(1001, words(7, 0, 8, 0))}, inVLAN(tcp4(), 7), nil},
		{"extended switch in front", []xdr{tagged(1001, words(7, 0, 8, 0)), header4}, inVLAN(tcp4(), 7), nil},
		{"extended switch and the packet's own tag", []xdr{tagged(1001, words(7, 0, 8, 0)), raw(1, ethernet(0x8100, []byte{0, 99, 8, 0}, ip4, tcp))}, inVLAN(tcp4(), 99), nil},
		{"extended switch that knows no VLAN", []xdr{header4, tagged(1001, words(0, 0, 8, 0))}, tcp4(), nil},
		{"extended switch, VLAN 2^32-1", []xdr{header4, tagged(1001, words(many, many, 8, 0))}, tcp4(), nil},
		{"extended switch cut", []xdr{header4, tagged(1001, words(7, 0, 8))}, tcp4(), ErrSample},
		{"extended router", []xdr{header4, tagged(1002, words(0).address("192.0.2.254")[4:].words(24, 16))}, tcp4(), nil},
		{"extended gateway", []xdr{header4, path([]uint32{64510, 64511}, []uint32{64512})}, as(64501, 64512), nil},
		{"extended gateway in front", []xdr{path([]uint32{64510}), header4}, as(64501, 64510), nil},
		{"extended gateway, an empty last segment", []xdr{header4, path([]uint32{64510, 64511}, nil)}, as(64501, 64511), nil},
		{"extended gateway, no path", []xdr{header4, path()}, as(64501, 0), nil},
		{"extended gateway that knows nothing", []xdr{header4, tagged(1003, words(0, 64500, 0, 0, 0, 0, 0))}, tcp4(), nil},
		{"extended gateway, IPv6", []xdr{header4, tagged(1003, words(0).address("2001:db8::1")[4:].words(64500, 64501, 64502, 0, 0, 0))}, as(64501, 0), nil},
		{"extended gateway of 2^32-1 segments", []xdr{header4, tagged(1003, words(0, 1, 2, 3, many))}, tcp4(), ErrSample},
		{"extended gateway of 2^32-1 empty segments", []xdr{header4, tagged(1003, words(0, 1, 2, 3, many).words(make([]uint32, 1000)...))}, tcp4(), ErrSample},
		{"extended gateway with a path of 2^32-1", []xdr{header4, tagged(1003, words(0, 1, 2, 3, 1, 2, many, 64510))}, tcp4(), ErrSample},
		{"extended gateway with a path of 2^30, whose bytes are 0 in 32 bits", []xdr{header4, tagged(1003, words(0, 1, 2, 3, 1, 2, 1<<30, 64510))}, tcp4(), ErrSample},
		{"extended gateway cut", []xdr{header4, tagged(1003, words(1, 1, 64500, 64501, 64502))}, tcp4(), ErrSample},
		{"extended gateway with a next hop of type 9", []xdr{header4, tagged(1003, words(9, 1, 64500, 64501, 64502, 0, 0, 0, 0))}, tcp4(), ErrSample},
		{"extended NAT", []xdr{header4, tagged(1007, xdr{}.address("192.0.2.7").address("192.0.2.9"))}, change(tcp4(), func(r *flow.Record) {
			r.TranslatedSrc, r.TranslatedDst = [16]byte{192, 0, 2, 7}, [16]byte{192, 0, 2, 9}
			r.Known |= flow.HasTranslatedSrc | flow.HasTranslatedDst
		}), nil},
		{"extended NAT of IPv6, in front", []xdr{tagged(1007, xdr{}.address("2001:db8::aa").address("")), header6}, change(udp6(), func(r *flow.Record) {
			r.TranslatedSrc = netip.MustParseAddr("2001:db8::aa").As16()
			r.Known |= flow.HasTranslatedSrc
		}), nil},
		{"extended NAT port", []xdr{header4, tagged(1020, words(1024, 65535))}, change(tcp4(), func(r *flow.Record) {
			r.TranslatedSrcPort, r.TranslatedDstPort, r.Known = 1024, 65535, r.Known|flow.HasTranslatedPorts
		}), nil},
		{"extended NAT port 65536", []xdr{header4, tagged(1020, words(1024, 65536))}, tcp4(), nil},
		{"a vendor's record of the same format number", []xdr{tagged(9<<12|1, bytesOf(ip6, ip6)), header4, tagged(1<<12|1001, words(9, 9, 9, 9))}, tcp4(), nil},
		{"a record whose length is no multiple of 4", []xdr{tagged(77, make(xdr, 13)), header4}, tcp4(), nil},
		{"an empty record", []xdr{tagged(77, nil), header4}, tcp4(), nil},
	} {
		for name, sample := range map[string]xdr{"compact": sampling{rate: 300}.compact(c.records...), "expanded": sampling{rate: 300}.expanded(c.records...)} {
			got, _, err := decode(t, datagram("192.0.2.1", sample))
			if err != c.err {
				t.Errorf("%s, %s: %v, want %v", c.name, name, err, c.err)
			}
			for i := range got { // a translation that is not told may stand there
				if got[i].Known&flow.HasTranslatedSrc == 0 {
					got[i].TranslatedSrc = [16]byte{}
				}
				if got[i].Known&flow.HasTranslatedDst == 0 {
					got[i].TranslatedDst = [16]byte{}
				}
			}
			if diff := cmp.Diff([]flow.Record{c.want}, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", c.name, name, diff)
			}
		}
	}
}

func TestATranslationIntoAnotherFamilyIsNotTold(t *testing.T) {
	got, _, err := decode(t, datagram("192.0.2.1", sampling{rate: 300}.compact(raw(12, bytesOf(ip6, udp)),
		tagged(1007, xdr{}.address("192.0.2.7").address("192.0.2.9")))))
	if err != nil || len(got) != 1 || got[0].Known != udp6().Known {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestInterfaces(t *testing.T) {
	const discard = flow.HasForwardingStatus | flow.HasDropped
	for _, c := range []struct {
		name     string
		s        sampling
		known    flow.Field
		in, out  uint32
		expanded bool // in this encoding only
	}{
		{"both known", sampling{in: 48, out: 47}, flow.HasIngress | flow.HasEgress, 48, 47, false},
		{"both unknown", sampling{}, 0, 0, 0, false},
		{"to the device itself", sampling{in: 48, out: 0x3fffffff}, flow.HasIngress, 48, 0, false},
		{"from the device itself", sampling{in: 0x3fffffff, out: 47}, flow.HasEgress, 0, 47, false},
		{"discarded by an access list", sampling{in: 48, outFormat: 1, out: 258}, flow.HasIngress | discard, 48, 0, false},
		{"to 7 interfaces", sampling{in: 48, outFormat: 2, out: 7}, flow.HasIngress, 48, 0, false},
		{"to an unknown number of interfaces", sampling{in: 48, outFormat: 2}, flow.HasIngress, 48, 0, false},
		{"formats of the future", sampling{inFormat: 3, in: 48, outFormat: 3, out: 47}, 0, 0, 0, false},
		{"numbers of 31 bits", sampling{in: 1<<31 - 1, out: 1 << 30}, flow.HasIngress | flow.HasEgress, 1<<31 - 1, 1 << 30, true},
		{"a number of 32 bits is none", sampling{in: 1<<32 - 1, out: 1 << 31}, 0, 0, 0, true},
	} {
		c.s.rate = 300
		want := tcp4()
		want.Known |= c.known
		want.Ingress, want.Egress = c.in, c.out
		if c.known&flow.HasDropped != 0 {
			want.Dropped, want.ForwardingStatus = 1, 0x80
		}
		header := raw(11, bytesOf(ip4, tcp))
		samples := map[string]xdr{"expanded": c.s.expanded(header)}
		if !c.expanded {
			samples["compact"] = c.s.compact(header)
		}
		for name, s := range samples {
			got, _, err := decode(t, datagram("192.0.2.1", s))
			if err != nil {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
			if diff := cmp.Diff([]flow.Record{want}, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", c.name, name, diff)
			}
		}
	}
}

func TestTheIntervalFollowsThePoolWhereTheAgentDropsSamples(t *testing.T) {
	type step struct {
		sequence, pool, drops, rate uint32
		want                        uint32
	}
	for _, c := range []struct {
		name  string
		steps []step
		drops uint64
	}{
		{"no drops", []step{{1, 300, 0, 300, 300}, {2, 900, 0, 300, 300}, {3, 1800, 0, 300, 300}}, 0},
		{"drops from before we listened", []step{{1, 300, 7, 300, 300}, {2, 900, 7, 300, 300}}, 0},
		{"every other sample dropped", []step{{1, 300, 0, 300, 300}, {2, 900, 1, 300, 600}, {3, 1500, 2, 300, 600}, {4, 1800, 2, 300, 300}}, 2},
		{"rounded", []step{{1, 0, 0, 10, 10}, {4, 50, 1, 10, 17}, {6, 81, 2, 10, 16}}, 2},
		{"datagrams lost between", []step{{1, 0, 0, 300, 300}, {101, 60_000, 100, 300, 600}}, 100},
		{"a pool that grew less than the rate", []step{{1, 0, 0, 300, 300}, {2, 200, 1, 300, 300}}, 1},
		{"a pool that stood still", []step{{1, 50, 0, 300, 300}, {2, 50, 1, 300, 300}}, 1},
		{"a pool that fell", []step{{1, 5000, 0, 300, 300}, {2, 4000, 1, 300, 300}}, 1},
		{"1000 times the rate", []step{{1, 0, 0, 300, 300}, {2, 300_000, 1, 300, 300_000}}, 1},
		{"more than 1000 times the rate", []step{{1, 0, 0, 300, 300}, {2, 300_001, 1, 300, 300}}, 1},
		{"a rate that was not told", []step{{1, 0, 0, 0, 0}, {2, 600, 1, 0, 0}}, 1},
		{"the largest rate", []step{{1, 0, 0, 1<<32 - 1, 1<<32 - 1}, {2, 1 << 30, 1, 1<<32 - 1, 1<<32 - 1}}, 1},
		{"everything wraps", []step{{1<<32 - 1, 1<<32 - 301, 1<<32 - 1, 300, 300}, {0, 299, 0, 300, 600}, {1, 899, 1, 300, 600}}, 2},
		{"a step of 65536", []step{{1, 0, 0, 10, 10}, {65537, 65536 * 20, 9, 10, 20}}, 9},
		{"a step of 65537", []step{{1, 0, 0, 10, 10}, {65538, 65537 * 20, 9, 10, 10}}, 9},
		{"the agent starts anew", []step{{5000, 9_000_000, 70, 300, 300}, {1, 300, 0, 300, 300}, {2, 900, 1, 300, 600}}, 1},
		{"the agent starts anew and drops more than before", []step{{5000, 9_000_000, 2, 300, 300}, {1, 300, 50, 300, 300}, {2, 900, 50, 300, 300}}, 0},
		{"a sample twice", []step{{7, 300, 0, 300, 300}, {8, 900, 1, 300, 600}, {8, 900, 1, 300, 300}, {9, 1500, 2, 300, 600}}, 2},
		{"samples in another order", []step{{70, 300, 0, 300, 300}, {72, 1500, 2, 300, 600}, {71, 900, 1, 300, 300}, {73, 2100, 3, 300, 600}}, 3},
		{"drops that fell", []step{{1, 300, 9, 300, 300}, {2, 900, 8, 300, 300}, {3, 1500, 9, 300, 600}}, 1},
	} {
		for _, expanded := range []bool{false, true} {
			d := NewDecoder()
			for i, s := range c.steps {
				head := sampling{sequence: s.sequence, index: 3, rate: s.rate, pool: s.pool, drops: s.drops}
				sample := head.compact(raw(11, bytesOf(ip4, tcp)))
				if expanded {
					sample = head.expanded(raw(11, bytesOf(ip4, tcp)))
				}
				got := uint32(12345)
				if err := d.Decode(datagram("192.0.2.1", sample), func(r *flow.Record) { got = r.Interval }); err != nil || got != s.want {
					t.Errorf("%s, step %d: %v, interval %d, want %d", c.name, i, err, got, s.want)
				}
			}
			if d.Stats.Drops != c.drops {
				t.Errorf("%s: %d drops, want %d", c.name, d.Stats.Drops, c.drops)
			}
		}
	}
}

func TestTheSourcesOfAllAgentsAreKeptApart(t *testing.T) {
	d := NewDecoder()
	header := raw(11, bytesOf(ip4, tcp))
	one := func(agent string, sub, class, index uint32, s sampling) (interval uint32) {
		s.class, s.index, s.rate = class, index, 100
		b := datagram(agent, s.expanded(header))
		binary.BigEndian.PutUint32(b[len(b)-len(s.expanded(header))-16:], sub)
		if err := d.Decode(b, func(r *flow.Record) { interval = r.Interval }); err != nil {
			t.Fatal(err)
		}
		return interval
	}
	sources := []struct {
		agent             string
		sub, class, index uint32
	}{
		{"192.0.2.1", 0, 0, 1}, {"192.0.2.2", 0, 0, 1}, {"192.0.2.1", 1, 0, 1}, {"192.0.2.1", 0, 1, 1}, {"192.0.2.1", 0, 0, 2},
		{"c000:0201::", 0, 0, 1}, {"2001:db8::1", 0, 0, 1}, {"", 0, 0, 1},
	}
	for i, s := range sources { // each is at another place, so that a mix-up would show
		n := uint32(i+1) * 1000
		one(s.agent, s.sub, s.class, s.index, sampling{sequence: n, pool: n * 1000, drops: n})
	}
	for i, s := range sources {
		n, m := uint32(i+1)*1000, uint32(i+2)
		if got := one(s.agent, s.sub, s.class, s.index, sampling{sequence: n + 1, pool: n*1000 + 100*m, drops: n + 1}); got != 100*m {
			t.Errorf("%+v: interval %d, want %d", s, got, 100*m)
		}
	}
	if d.Stats.Drops != uint64(len(sources)) {
		t.Errorf("%d drops", d.Stats.Drops)
	}
	// Other sources push the first ones out, which then start anew.
	for i := range uint32(maxSources) {
		one("198.51.100.1", 0, 0, i, sampling{sequence: 1})
	}
	if got := one("192.0.2.1", 0, 0, 1, sampling{sequence: 1002, pool: 1_000_500, drops: 1002}); got != 100 || d.table.Len() != maxSources {
		t.Errorf("interval %d of a source that was forgotten, %d sources", got, d.table.Len())
	}
}

func TestARecordHoldsNothingOfThoseBefore(t *testing.T) {
	rich := sampling{rate: 300, in: 1, outFormat: 1, out: 2}.compact(raw(1, ethernet(0x8100, []byte{0, 99, 8, 0}, ip4, tcp)),
		tagged(1003, words(0, 1, 2, 3, 0)), tagged(1007, xdr{}.address("192.0.2.7").address("192.0.2.9")), tagged(1020, words(1, 2)))
	poor := sampling{rate: 300}.compact(raw(12, bytesOf(ip6[:6], []byte{59}, ip6[7:])))
	none := sampling{rate: 300}.compact(raw(1, ethernet(0x0806, ip4)))
	got, stats, err := decode(t, datagram("192.0.2.1", rich, poor, rich, none, tagged(1, nil), poor))
	fresh, _, _ := decode(t, datagram("192.0.2.1", poor))
	if err != ErrSample || len(got) != 4 || stats.NoFlow != 2 {
		t.Fatalf("%v, %d records, %+v", err, len(got), stats)
	}
	for _, i := range []int{1, 3} {
		if diff := cmp.Diff(fresh[0], got[i]); diff != "" {
			t.Errorf("(-fresh decoder +used one):\n%s", diff)
		}
	}
}

// likeReal is a datagram as a switch sends it: seven samples of 128 bytes of
// header each, with VLANs.
func likeReal() []byte {
	var samples []xdr
	for i := range uint32(7) {
		header := ethernet(0x0800, ip4, tcp, make([]byte, 128-14-40))
		samples = append(samples, sampling{sequence: 100 + i, index: 47, rate: 300, pool: 30_000 + 300*i, in: 48, out: 47}.compact(
			tagged(1, words(1, 1518, 4).opaque(header)), tagged(1001, words(1, 0, 1, 0))))
	}
	return datagram("192.0.2.1", samples...)
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	d := NewDecoder()
	b := likeReal()
	n, index := 0, uint32(0)
	emit := func(*flow.Record) { n++ }
	if allocs := testing.AllocsPerRun(1000, func() {
		index++ // new sources all the time
		binary.BigEndian.PutUint32(b[28+12:], index)
		d.Decode(b, emit)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if n != 7*1001 {
		t.Errorf("%d records", n)
	}
}

// FuzzDecode decodes sequences of datagrams, each with its length in front, with
// one decoder: what a datagram leaves behind must not harm the next.
func FuzzDecode(f *testing.F) {
	sequence := func(datagrams ...[]byte) []byte {
		var b []byte
		for _, d := range datagrams {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(d))), d...)
		}
		return b
	}
	var all []xdr
	for i, r := range []xdr{raw(1, ethernet(0x0800, ip4, tcp)), raw(12, bytesOf(ip6, udp)), tagged(3, words(1500, 6, 1, 2, 3, 4, 5, 6)),
		tagged(4, make(xdr, 56)), tagged(1001, words(7, 0, 8, 0)), tagged(1003, words(1, 1, 1, 2, 3, 1, 2, 1, 64500, 0, 1)),
		tagged(1007, xdr{}.address("192.0.2.7").address("2001:db8::9")), tagged(1020, words(1, 2))} {
		s := sampling{sequence: uint32(i), index: 1, rate: 10, pool: uint32(i) * 50, drops: uint32(i), in: 1, out: 2}
		all = append(all, s.compact(raw(11, bytesOf(ip4, tcp)), r), s.expanded(r))
	}
	seeds := [][]byte{sequence(likeReal(), likeReal()), sequence(datagram("192.0.2.1", all...), datagram("2001:db8::1", all...)),
		sequence(claiming("192.0.2.1", 1<<32-1), words(4, 1, 2, 3, 4, 5, 6), nil)}
	for _, s := range seeds {
		f.Add(s)
	}
	if len(seeds) == 0 {
		f.Fatal("an empty corpus")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		used := NewDecoder()
		for range 16 {
			if len(b) < 2 {
				return
			}
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			one := b[2 : 2+n : 2+n]
			b = b[2+n:]
			before := used.Stats
			var got []flow.Record
			err := used.Decode(one, func(r *flow.Record) { got = append(got, *r) })
			samples := used.Stats.FlowSamples - before.FlowSamples
			if len(got)*80 > len(one) || samples-(used.Stats.NoFlow-before.NoFlow) != uint64(len(got)) {
				t.Fatalf("%d records of %d samples in %d bytes", len(got), samples, len(one))
			}
			if used.table.Len() > maxSources {
				t.Fatalf("%d sources", used.table.Len())
			}
			// A decoder that knows nothing reads the same, but for the interval.
			var fresh []flow.Record
			fresher := Decoder{table: lru.New[source](1)}
			again := fresher.Decode(one, func(r *flow.Record) { fresh = append(fresh, *r) })
			if err != again || len(fresh) != len(got) {
				t.Fatalf("%v and %d records, of a fresh decoder %v and %d", err, len(got), again, len(fresh))
			}
			for i := range got {
				r := &got[i]
				if r.Family != flow.IPv4 && r.Family != flow.IPv6 || r.Packets != 1 || r.Known&flow.HasPackets == 0 || r.Known&(flow.HasStart|flow.HasEnd) != 0 {
					t.Fatalf("the record %+v", r)
				}
				r.Interval = fresh[i].Interval
				if *r != fresh[i] {
					t.Fatalf("(-fresh decoder +used one):\n%s", cmp.Diff(fresh[i], *r))
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, sources := range []uint32{1, 48} {
		b.Run(fmt.Sprintf("sources=%d", sources), func(b *testing.B) {
			d := NewDecoder()
			datagram := likeReal()
			emit := func(*flow.Record) {}
			n := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				for at := 28; at < len(datagram); at += 8 + int(binary.BigEndian.Uint32(datagram[at+4:])) {
					n++
					binary.BigEndian.PutUint32(datagram[at+12:], n%sources)
				}
				d.Decode(datagram, emit)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(7*b.N), "ns/record")
		})
	}
}
