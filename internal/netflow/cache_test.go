// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
)

func TestTheLeastRecentlyUsedDomainGoesFirst(t *testing.T) {
	c := newCollector(t) // of 8 domains
	send := func(exporter byte, sets ...[]byte) int {
		return len(c.takeFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, exporter}), 4000).String(), v9(sets...)))
	}
	template, data := set(0, tmpl(256, short...)), set(256, shortRec(1))
	for i := range byte(8) {
		send(i, template)
	}
	send(0, data)
	send(8, template)
	if n := send(0, data); n != 1 || c.Evicted() != 1 {
		t.Errorf("the one that was used: %d records; %d evicted", n, c.Evicted())
	}
	if n := send(1, data); n != 0 {
		t.Errorf("the oldest: %d records", n)
	}
	// A template that came once is good for as long as nothing needs its place.
	for range 100_000 {
		if send(8, data) != 1 {
			t.Fatal("the template is gone")
		}
	}
}

func TestTemplatesOfOneExporterDoNotPushOutThoseOfOthers(t *testing.T) {
	c := newCollector(t)
	c.takeFrom("192.0.2.2:4000", v9(set(0, tmpl(256, short...))))
	for id := range uint16(10_000) {
		c.take(v9(set(0, tmpl(300+id, short...))))
	}
	if got := c.takeFrom("192.0.2.2:4000", v9(set(256, shortRec(1)))); len(got) != 1 {
		t.Error("the other exporter's template is gone")
	}
	newest := uint16(300 + 9_999)
	if got := c.take(v9(set(newest, shortRec(1)))); len(got) != 1 {
		t.Error("its newest template is gone")
	}
	if got := c.take(v9(set(newest-minQuota, shortRec(1)))); len(got) != 0 {
		t.Errorf("more than %d templates are kept", minQuota)
	}
	if got := c.take(v9(set(newest-minQuota+1, shortRec(1)))); len(got) != 1 {
		t.Errorf("fewer than %d templates are kept", minQuota)
	}
	var records [][]byte
	for id := range uint16(5000) { // in one datagram
		records = append(records, tmpl(20_000+id, short[:2]...))
	}
	before := c.Dropped[BadTemplate]
	c.take(v9(set(0, records...)))
	if n := c.Dropped[BadTemplate] - before; n != 5000-minQuota {
		t.Errorf("%d of 5,000 templates of one datagram refused", n)
	}
}

func TestDomainsOfOneExporterDoNotPushOutThoseOfOthers(t *testing.T) {
	c := newCollector(t) // of 8 domains
	c.takeFrom("192.0.2.2:4000", v9(set(0, tmpl(256, short...))))
	for domain := range uint32(1000) {
		m := v9(set(0, tmpl(256, short...)))
		m.domain = domain
		c.take(m)
	}
	if got := c.takeFrom("192.0.2.2:4000", v9(set(256, shortRec(1)))); len(got) != 1 {
		t.Error("the other exporter's template is gone")
	}
	for domain, want := range map[uint32]int{999: 1, 993: 1, 992: 0} { // 7 are kept
		m := v9(set(256, shortRec(1)))
		m.domain = domain
		if got := c.take(m); len(got) != want {
			t.Errorf("domain %d: %d records", domain, len(got))
		}
	}
}

// TestAsManyExportersAsThereIsRoomFor have templates and samplers.
func TestAsManyExportersAsThereIsRoomFor(t *testing.T) {
	const n = 32
	c := &collector{Decoder: NewDecoder(n), t: t}
	from := func(i int) string {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 4000).String()
	}
	sampled := append(slices.Clone(short), fs{48, 1})
	for i := range n {
		c.takeFrom(from(i), v9(set(0, tmpl(256, sampled...)), set(1, options9(300, 1, fs{1, 4}, fs{48, 1}, fs{50, 4})), set(300, rec(uint32(0), uint8(1), uint32(100+i)))))
	}
	for i := range n {
		if got := c.takeFrom(from(i), v9(set(256, append(shortRec(1), 1)))); len(got) != 1 || got[0].Interval != uint32(100+i) {
			t.Fatalf("exporter %d: %v", i, got)
		}
	}
	if c.Evicted() != 0 {
		t.Errorf("%d evicted", c.Evicted())
	}
}

// forged makes datagrams from addresses and of contents that never repeat.
type forged struct {
	n uint32
	b []byte
}

func (f *forged) next() (netip.AddrPort, []byte) {
	f.n++
	n := f.n
	template := tmpl(256+uint16(n%7), fs{8, 4}, fs{12, 4}, fs{2, 4}, fs{1, int(1 + n%8)})
	options := options9(300, 1, fs{1, 4}, fs{34, 4}, fs{48, 4})
	m := v9(set(0, template), set(1, options), set(300, rec(n, n, n)), set(256, shortRec(1)), set(uint16(400+n%1000), make([]byte, n%1000)))
	m.domain = n / 3
	if n%2 == 0 {
		options = options10(300, 1, fs{149, 4}, fs{34, 4}, fs{302, 4})
		m = ipfix(set(2, template), set(3, options), set(300, rec(n, n, n)), set(256, shortRec(1)), set(uint16(400+n%1000), make([]byte, n%1000)))
	}
	f.b = m.bytes()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(n)), f.b
}

func TestForgedExportersTakeNoMemory(t *testing.T) {
	d := NewDecoder(64)
	f := forged{}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	emit := func(*flow.Record) {}
	for range 10 {
		from, b := f.next()
		d.Decode(from, b, emit)
	}
	before := heap()
	for range 200_000 {
		from, b := f.next()
		d.Decode(from, b, emit)
	}
	if after := heap(); after > before+64<<10 {
		t.Errorf("%d bytes of heap, %d before", after, before)
	}
	runtime.KeepAlive(d)
	if d.Evicted() < 100_000 {
		t.Errorf("%d evicted: the datagrams are not read", d.Evicted())
	}
}

func TestDecodingWithTemplatesDoesNotAllocate(t *testing.T) {
	fields := append(slices.Clone(short), fs{48, 1}, fs{152, 8})
	record := append(shortRec(3), rec(uint8(1), uint64(5000))...)
	template := set(2, tmpl(256, fields...), tmpl(257, append(fields, fs{82, variable}, fs{2, 4, reversePEN})...))
	b := ipfix(template, set(3, options10(300, 1, fs{149, 4}, fs{302, 1}, fs{34, 4})), set(300, rec(uint32(0), uint8(1), uint32(9))), set(256, record, record), set(257, append(record, 1, 'x', 0, 0, 0, 9))).bytes()
	held := ipfix(set(999, make([]byte, 100))).bytes()
	d := NewDecoder(4)
	n := 0
	emit := func(*flow.Record) { n++ }
	port := uint16(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		port++ // templates learnt anew each time
		from := netip.AddrPortFrom(someone.Addr(), port)
		d.Decode(from, b, emit)
		d.Decode(from, held, emit)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if n != 4*1001 {
		t.Errorf("%d records", n)
	}
}

// FuzzSequence decodes several datagrams, from several exporters, with one
// decoder: each is preceded by a byte that says from where, and two of length.
func FuzzSequence(f *testing.F) {
	join := func(messages ...message) (b []byte) {
		for i, m := range messages {
			d := m.bytes()
			b = append(b, byte(i%3))
			b = binary.BigEndian.AppendUint16(b, uint16(len(d)))
			b = append(b, d...)
		}
		return b
	}
	template := set(2, tmpl(256, append(slices.Clone(short), fs{4, 1})...), tmpl(257, fs{82, variable}, fs{27, 16}, fs{28, 16}, fs{2, 4}, fs{2, 4, reversePEN}))
	seeds := [][]byte{
		join(ipfix(template), ipfix(set(256, append(shortRec(1), 6))), ipfix(set(257, rec(uint8(1), uint8('x'), "::1", "::2", uint32(1), uint32(2))))),
		join(v9(set(256, shortRec(1))), v9(set(0, tmpl(256, short...))), v9(set(0, tmpl(256, fs{8, 0})))),
		join(v9(set(1, options9(300, 1, fs{1, 4}, fs{34, 4}, fs{48, 1})), set(300, rec(uint32(0), uint32(100), uint8(1))))),
		join(ipfix(set(3, options10(300, 1, fs{149, 4}, fs{160, 8}, fs{311, 4})), set(300, rec(uint32(0), uint64(5), uint32(5))))),
		join(v9(set(0, tmpl(256, make([]fs, 512)...)), set(256, make([]byte, 9)))),
		join(ipfix(set(2, tmpl(256, fs{82, variable}, fs{315, variable}, fs{410, 2}), tmpl(257, fs{82, variable}, fs{313, 20})),
			set(256, rec(uint8(0), uint8(14), make([]byte, 14), uint16(9))), set(257, rec(uint8(1), uint8('x'), uint8(0x45), make([]byte, 19))))),
		join(ipfix(set(2, tmpl(256, fs{8, 4}, fs{12, 4}, fs{2, 8}, fs{210, 300}, fs{154, 16}, fs{225, 4}, fs{176, 1}, fs{177, 1}, fs{299, 8}, fs{239, 1})),
			set(256, make([]byte, 8+8+300+16+4+2+8+1)))),
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := NewDecoder(4)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		size := len(b)
		records := 0
		emit := func(r *flow.Record) {
			records++
			if r.Family != flow.IPv4 && r.Family != flow.IPv6 {
				t.Errorf("a record of family %d", r.Family)
			}
			const both = flow.HasStart | flow.HasEnd
			if r.Known&both == both && r.End < r.Start {
				t.Errorf("from %d to %d", r.Start, r.End)
			}
		}
		for len(b) >= 3 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, b[0] & 3}), uint16(b[0]>>2))
			n := min(int(binary.BigEndian.Uint16(b[1:])), len(b)-3)
			d.Decode(from, b[3:3+n], emit)
			b = b[3+n:]
			d.check(t)
		}
		runtime.ReadMemStats(&after)
		// A record takes at least the 8 bytes of its addresses, or 9 of a packet's
		// begin, and a biflow makes two.
		if records > size/4 {
			t.Errorf("%d records out of %d bytes", records, size)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%d bytes allocated for %d", n, size)
		}
	})
}

// check looks whether the cache's books are right.
func (d *Decoder) check(t *testing.T) {
	c := &d.cache
	of := map[uint64]int{}
	for slot := range c.ids.FromOldest() {
		if c.templates[slot].domain != c.ids.Key(slot).domain {
			t.Errorf("a template of domain %d under the key of %d", c.templates[slot].domain, c.ids.Key(slot).domain)
		}
		of[c.templates[slot].domain]++
	}
	for slot := range c.domainIDs.FromOldest() {
		dom := &c.domains[slot]
		if dom.templates != of[dom.number] || dom.templates > c.quota || dom.slot != slot {
			t.Errorf("domain %d counts %d templates and has %d", dom.number, dom.templates, of[dom.number])
		}
	}
	domains := map[[16]byte]int{}
	for slot := range c.domainIDs.FromOldest() {
		domains[c.domainIDs.Key(slot).exporter]++
	}
	for slot := range c.addresses.FromOldest() {
		if x := c.exporters[slot]; x.domains != domains[c.addresses.Key(slot)] {
			t.Errorf("an exporter counts %d domains and has %d", x.domains, domains[c.addresses.Key(slot)])
		}
	}
}
