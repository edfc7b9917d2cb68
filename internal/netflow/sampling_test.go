// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
)

func TestWhatOptionsTellOfSampling(t *testing.T) {
	f64, f32 := math.Float64bits(0.001), math.Float32bits(0.01)
	for _, c := range []struct {
		name   string
		fields []fs
		values []any
		want   uint32
	}{
		{"SAMPLING_INTERVAL and its algorithm", []fs{{34, 4}, {35, 1}}, []any{uint32(100), uint8(2)}, 100},
		{"an interval above what fits in v5", []fs{{34, 4}}, []any{uint32(1 << 20)}, 1 << 20},
		{"an interval in 8 bytes that is too large", []fs{{34, 8}}, []any{uint64(1 << 40)}, math.MaxUint32},
		{"FLOW_SAMPLER_RANDOM_INTERVAL", []fs{{49, 1}, {50, 4}}, []any{uint8(2), uint32(2000)}, 2000},
		{"a random interval of 0 beside it", []fs{{50, 4}, {34, 4}}, []any{uint32(0), uint32(100)}, 100},
		{"1 packet and 499 left out", []fs{{304, 2}, {305, 4}, {306, 4}}, []any{uint16(1), uint32(1), uint32(499)}, 500},
		{"2 packets and 4 left out", []fs{{305, 4}, {306, 4}}, []any{uint32(2), uint32(4)}, 3},
		{"2 packets and 5 left out, rounded", []fs{{305, 4}, {306, 4}}, []any{uint32(2), uint32(5)}, 4},
		{"each packet", []fs{{305, 4}, {306, 4}}, []any{uint32(1), uint32(0)}, 1},
		{"sums that overflow", []fs{{305, 8}, {306, 8}}, []any{uint64(1), uint64(math.MaxUint64)}, math.MaxUint32},
		{"a packet interval without a space", []fs{{305, 4}}, []any{uint32(512)}, 512},
		{"5 out of 1000", []fs{{309, 4}, {310, 4}}, []any{uint32(5), uint32(1000)}, 200},
		{"1 out of 256, and a packet interval of 1 without a space", []fs{{305, 4}, {304, 2}, {309, 4}, {310, 4}}, []any{uint32(1), uint16(3), uint32(1), uint32(256)}, 256},
		{"1 out of 256, and a packet interval of as much", []fs{{305, 4}, {309, 4}, {310, 4}}, []any{uint32(256), uint32(1), uint32(256)}, 256},
		{"a packet interval, and a population of none", []fs{{305, 4}, {309, 4}, {310, 4}}, []any{uint32(512), uint32(0), uint32(0)}, 512},
		{"1 packet and 9 left out, and a population", []fs{{305, 4}, {306, 4}, {309, 4}, {310, 4}}, []any{uint32(1), uint32(9), uint32(1), uint32(10)}, 10},
		{"0 out of 1000", []fs{{309, 4}, {310, 4}}, []any{uint32(0), uint32(1000)}, 0},
		{"a chance in 8 bytes", []fs{{311, 8}}, []any{f64}, 1000},
		{"a chance in 4 bytes", []fs{{311, 4}}, []any{f32}, 100},
		{"a chance of NaN", []fs{{311, 8}}, []any{math.Float64bits(math.NaN())}, 0},
		{"a chance of 0", []fs{{311, 8}}, []any{uint64(0)}, 0},
		{"a chance above 1", []fs{{311, 8}}, []any{math.Float64bits(2)}, 0},
		{"an interval of 0", []fs{{34, 4}}, []any{uint32(0)}, 0},
		{"nothing", []fs{{41, 8}, {42, 8}}, []any{uint64(7), uint64(8)}, 0},
	} {
		k := newCollector(t)
		got := k.take(ipfix(set(3, options10(300, 1, append([]fs{{149, 4}}, c.fields...)...)), set(300, append(rec(uint32(0)), rec(c.values...)...)),
			set(2, tmpl(256, short...)), set(256, shortRec(1))))
		if len(got) != 1 || got[0].Interval != c.want {
			t.Errorf("%s, in options: %d, want %d", c.name, got[0].Interval, c.want)
		}
		// Some put it in each record, as Huawei's NetStream.
		got = newCollector(t).take(ipfix(set(2, tmpl(256, append(slices.Clone(short), c.fields...)...)), set(256, append(shortRec(1), rec(c.values...)...))))
		if len(got) != 1 || got[0].Interval != c.want {
			t.Errorf("%s, in the record: %d, want %d", c.name, got[0].Interval, c.want)
		}
	}
}

// intervals are the sampling intervals of records.
func intervals(records []flow.Record) string {
	var n []uint32
	for i := range records {
		n = append(n, records[i].Interval)
	}
	return fmt.Sprint(n)
}

func TestARecordFindsItsSampler(t *testing.T) {
	sampled := append(slices.Clone(short), fs{48, 1})
	byID := set(1, options9(300, 1, fs{1, 4}, fs{48, 1}, fs{50, 4}))
	is := func(id uint8, n uint32) []byte { return rec(uint32(0), id, n) }
	record := func(id uint8) []byte { return append(shortRec(1), id) }
	template := set(0, tmpl(256, sampled...), tmpl(257, short...))

	c := newCollector(t)
	got := c.take(v9(byID, set(300, is(1, 100), is(2, 4000)), template, set(256, record(1), record(2), record(3), record(0)), set(257, shortRec(1))))
	if s := intervals(got); s != "[100 4000 0 0 0]" {
		t.Errorf("two samplers: %s", s)
	}
	got = c.take(v9(set(300, is(1, 200)), set(256, record(1), record(2))))
	if s := intervals(got); s != "[200 4000]" {
		t.Errorf("one of them changed: %s", s)
	}
	got = newCollector(t).take(v9(byID, set(300, is(1, 100)), template, set(256, record(1), record(0)), set(257, shortRec(1))))
	if s := intervals(got); s != "[100 0 100]" {
		t.Errorf("a single sampler: %s", s)
	}

	// Options from another port count for the domain, whose data may come first.
	c = newCollector(t)
	if s := intervals(c.take(v9(template, set(256, record(1))))); s != "[0]" {
		t.Errorf("before the options: %s", s)
	}
	c.takeFrom("192.0.2.1:9999", v9(byID, set(300, is(1, 100))))
	if s := intervals(c.take(v9(set(256, record(1))))); s != "[100]" {
		t.Errorf("options from another port: %s", s)
	}
	other := v9(template, set(256, record(1), record(2)), set(257, shortRec(1)))
	other.domain = 5
	// Cisco's line cards announce the samplers in a domain of their own.
	if s := intervals(c.take(other)); s != "[100 0 0]" {
		t.Errorf("options of another domain: %s", s)
	}
	if s := intervals(c.takeFrom("192.0.2.2:4000", v9(template, set(256, record(1))))); s != "[0]" {
		t.Errorf("options of another exporter: %s", s)
	}

	// Options of domain 0 are of the whole exporting process.
	c = newCollector(t)
	c.take(ipfix(set(3, options10(300, 1, fs{144, 4}, fs{34, 4})), set(300, rec(uint32(1), uint32(64)))))
	other = ipfix(set(2, tmpl(257, short...)), set(257, shortRec(1)))
	other.domain = 77
	if s := intervals(c.take(other)); s != "[64]" {
		t.Errorf("options of domain 0: %s", s)
	}
}

func TestSamplingByInterface(t *testing.T) {
	record := func(ifIndex uint32) []byte { return append(shortRec(1), rec(ifIndex)...) }
	template := append(slices.Clone(short), fs{10, 4})
	for name, m := range map[string]message{
		"v9":    v9(set(1, options9(300, 1, fs{2, 4}, fs{34, 4})), set(0, tmpl(256, template...))),
		"IPFIX": ipfix(set(3, options10(300, 1, fs{10, 4}, fs{34, 4})), set(2, tmpl(256, template...))),
	} {
		c := newCollector(t)
		c.take(m)
		m.sets = [][]byte{set(300, rec(uint32(3), uint32(100)), rec(uint32(4), uint32(1))), set(256, record(3), record(4), record(5))}
		if s := intervals(c.take(m)); s != "[100 1 0]" {
			t.Errorf("%s: %s", name, s)
		}
		for i := range uint32(maxSelectors + 5) { // the oldest make room
			m.sets = [][]byte{set(300, rec(100+i, uint32(7)))}
			c.take(m)
		}
		m.sets = [][]byte{set(256, record(3), record(100), record(100+maxSelectors))}
		if s := intervals(c.take(m)); s != "[0 0 7]" {
			t.Errorf("%s: of many: %s", name, s)
		}
	}
}

func TestTheIntervalOfExportersThatDoNotTell(t *testing.T) {
	c := newCollector(t)
	c.Interval = 50
	sampled := append(slices.Clone(short), fs{34, 4})
	told := func(n uint32) []byte { return append(shortRec(1), rec(n)...) }
	got := c.take(v9(set(0, tmpl(256, short...), tmpl(257, sampled...)), set(256, shortRec(1), shortRec(2)), set(257, told(0), told(1), told(9))))
	if s := intervals(got); s != "[50 50 50 1 9]" {
		t.Errorf("without options: %s", s)
	}
	got = c.take(v9(set(1, options9(300, 1, fs{1, 4}, fs{34, 4})), set(300, rec(uint32(0), uint32(100))), set(256, shortRec(1))))
	if s := intervals(got); s != "[100]" {
		t.Errorf("with options: %s", s)
	}
	if s := intervals(c.take(v9(set(257, told(0), told(9))))); s != "[100 9]" {
		t.Errorf("an interval of 0 in the record, with options: %s", s)
	}
	for header, want := range map[uint16]string{0: "[50 50]", 0x4000: "[50 50]", 1: "[1 1]", 0x400a: "[10 10]"} {
		c.got = nil
		b := exported{version: 5, count: -1, sampling: header, records: twoRecords}.bytes()
		if err := c.Decode(someone, b, func(r *flow.Record) { c.got = append(c.got, *r) }); err != nil || intervals(c.got) != want {
			t.Errorf("v5, %#04x: %v %v, want %s", header, intervals(c.got), err, want)
		}
	}
}
