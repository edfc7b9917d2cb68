// SPDX-License-Identifier: BSD-3-Clause

package flowtable

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

const start = 1_790_000_000_000

// one is a packet of the n-th flow.
func one(n uint32, at time.Duration) *Packets {
	p := packet.Packet{Key: flow.Key{SrcPort: 1024, DstPort: 443, Protocol: 6, Family: flow.IPv4}}
	binary.BigEndian.PutUint32(p.Src[:], n)
	p.Known = flow.HasPorts | flow.HasTOS | flow.HasTTL | flow.HasTCPFlags | flow.HasBytes
	p.TTL, p.TCPFlags, p.TOS = 64, 2, 8
	return &Packets{Packet: p, Time: start + at.Milliseconds(), Count: 1, Bytes: 100}
}

func record(e *Entry) (r flow.Record) {
	e.Fill(&r)
	return r
}

func TestAPacketCarriesTheCountsOfItsFlowSoFar(t *testing.T) {
	table := New(64)
	for i := range 5 {
		table.Add(one(1, time.Duration(i)*time.Second))
		table.Add(one(2, time.Duration(i)*time.Second))
	}
	last := one(1, 7*time.Second)
	last.TTL, last.TCPFlags, last.VLAN, last.Count, last.Bytes = 50, 16, 7, 3, 4500
	got := record(table.Add(last))
	want := flow.Record{Key: last.Key, Known: flow.HasPorts | flow.HasTOS | flow.HasTTL | flow.HasTCPFlags | flow.HasPackets |
		flow.HasBytes | flow.HasStart | flow.HasEnd, TOS: 8, TCPFlags: 18, TTL: 50, MaxTTL: 64, Packets: 8, Bytes: 5000,
		Start: start, End: start + 7000}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if table.Flows != 2 || table.Evicted != 0 {
		t.Errorf("%d flows, %d evicted", table.Flows, table.Evicted)
	}
}

func TestAFlowBeginsAnew(t *testing.T) {
	for name, c := range map[string]struct {
		times   []time.Duration
		packets uint64
		start   time.Duration // of the last
	}{
		"after it was idle":                      {[]time.Duration{0, time.Second, time.Second + Idle + 1e6}, 1, time.Second + Idle + 1e6},
		"not before":                             {[]time.Duration{0, time.Second, time.Second + Idle}, 3, 0},
		"when the clock is set back":             {[]time.Duration{time.Hour, 0}, 1, 0},
		"not by a packet that comes out of turn": {[]time.Duration{time.Second, 0, 2 * time.Second}, 3, 0},
		"when the clock is set at last":          {[]time.Duration{-50 * 365 * 24 * time.Hour, 0}, 1, 0},
	} {
		table := New(64)
		var e *Entry
		for _, at := range c.times {
			e = table.Add(one(1, at))
		}
		r := record(e)
		if r.Packets != c.packets || r.Start != start+c.start.Milliseconds() {
			t.Errorf("%s: %d packets since %v", name, r.Packets, time.Duration(r.Start-start)*time.Millisecond)
		}
		if end := max(c.times[len(c.times)-1], c.start); r.End != start+end.Milliseconds() {
			t.Errorf("%s: it ends after %v", name, time.Duration(r.End-start)*time.Millisecond)
		}
	}
	table := New(64)
	begins := 0
	for at := time.Duration(0); at <= 2*Active; at += Idle {
		if r := record(table.Add(one(1, at))); r.Packets == 1 {
			begins++
		}
	}
	if begins != 2 {
		t.Errorf("a flow that goes on for twice the active timeout began %d times", begins)
	}
	table = New(64)
	p := one(1, 0)
	p.Count = math.MaxUint32 - 5
	table.Add(p)
	p.Count = 6
	if r := record(table.Add(p)); r.Packets != 6 {
		t.Errorf("%d packets, of a count that is full", r.Packets)
	}
}

func TestPortsAreKeptApart(t *testing.T) {
	table := New(64)
	p := one(1, 0)
	table.Add(p)
	p.Port = 1
	if r := record(table.Add(p)); r.Packets != 1 {
		t.Errorf("%d packets at the second port", r.Packets)
	}
	table.Forget(1)
	if r := record(table.Add(p)); r.Packets != 1 {
		t.Errorf("%d packets of a port that was forgotten", r.Packets)
	}
	p.Port = 0
	if r := record(table.Add(p)); r.Packets != 2 {
		t.Errorf("%d packets of the other", r.Packets)
	}
}

// TestTheLeastRecentlySeenMakesRoom against a model: a set is a list.
func TestTheLeastRecentlySeenMakesRoom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table := New(ways) // one set
	var model []uint32 // from the oldest
	counts := map[uint32]uint64{}
	evicted := uint64(0)
	for range 100_000 {
		n := random.Uint32N(3 * ways)
		at := -1
		for i, m := range model {
			if m == n {
				at = i
			}
		}
		switch {
		case at >= 0:
			model = append(model[:at], model[at+1:]...)
		case len(model) == ways:
			delete(counts, model[0])
			model = model[1:]
			evicted++
		}
		model = append(model, n)
		counts[n]++
		if r := record(table.Add(one(n, 0))); r.Packets != counts[n] {
			t.Fatalf("%d packets, want %d", r.Packets, counts[n])
		}
	}
	if table.Evicted != evicted {
		t.Errorf("%d evicted, want %d", table.Evicted, evicted)
	}
}

// TestAFloodLeavesBusyFlows: of a flood of sources each of which comes once, a
// flow that goes on keeps its place.
func TestAFloodLeavesBusyFlows(t *testing.T) {
	const flows, flood = 2048, 1_000_000
	table := New(flows)
	packets := uint64(0)
	for i := range uint32(flood) {
		table.Add(one(1000+i, 0))
		if i%100 == 0 {
			packets++
			if r := record(table.Add(one(1, 0))); r.Packets != packets {
				t.Fatalf("%d packets, want %d", r.Packets, packets)
			}
		}
	}
	if table.Evicted != flood+1-flows {
		t.Errorf("%d evicted of %d, with room for %d", table.Evicted, flood+1, flows)
	}
}

// TestKeysSpreadOverTheSets evenly, however alike they are: chi-square of 4095
// degrees of freedom has a mean of 4095 and a deviation of 90.
func TestKeysSpreadOverTheSets(t *testing.T) {
	for name, key := range map[string]func(p *Packets, i uint32){
		"sources":  func(p *Packets, i uint32) { binary.BigEndian.PutUint32(p.Src[:], i) },
		"networks": func(p *Packets, i uint32) { binary.BigEndian.PutUint32(p.Src[:], i<<12) },
		"hosts of IPv6": func(p *Packets, i uint32) {
			p.Family = flow.IPv6
			binary.LittleEndian.PutUint32(p.Dst[12:], i)
		},
		"ports": func(p *Packets, i uint32) { p.SrcPort, p.DstPort = uint16(i), uint16(i>>16) },
	} {
		const sets, mean = 4096, 3 // 1 set in 260 is full, and 1 in 900 overflows
		table, other := New(sets*ways), New(sets*ways)
		p := one(0, 0)
		for i := range uint32(sets * mean) {
			key(p, i)
			table.Add(p)
			other.Add(p)
		}
		chi, same := 0.0, 0
		for i := range table.sets {
			n := 0
			for w := range ways {
				if table.sets[i].entries[w].packets != 0 {
					n++
				}
				if k := table.sets[i].entries[w].Key; k != (flow.Key{}) && k == other.sets[i].entries[0].Key {
					same++
				}
			}
			chi += float64((n-mean)*(n-mean)) / mean
		}
		if chi > 4095+6*90 {
			t.Errorf("%s: chi-square %.0f", name, chi)
		}
		if same > 30 { // 3 by chance
			t.Errorf("%s: in %d sets of two tables is the same key: the seed is not random", name, same)
		}
	}
}

// setOf returns the index of the set that holds a key.
func setOf(t *Table, k *flow.Key) int {
	for i := range t.sets {
		for w := range ways {
			if t.sets[i].entries[w].Key == *k {
				return i
			}
		}
	}
	return -1
}

func TestAllOfAKeyIsLookedAt(t *testing.T) {
	for i := range unsafe.Sizeof(flow.Key{}) {
		same := 0
		for range 4 { // seeds
			table := New(4096)
			p := one(1, 0)
			p.Family = flow.IPv6
			table.Add(p)
			set := setOf(table, &p.Key)
			(*[unsafe.Sizeof(flow.Key{})]byte)(unsafe.Pointer(&p.Key))[i] ^= 0x40
			if r := record(table.Add(p)); r.Packets != 1 {
				t.Errorf("byte %d of a key is not compared", i)
			}
			if setOf(table, &p.Key) == set { // 1 in 512 by chance
				same++
			}
		}
		if same == 4 {
			t.Errorf("byte %d of a key is not hashed", i)
		}
	}
}

func TestAnEntryHas64To80Bytes(t *testing.T) {
	share := unsafe.Sizeof(set{}) / ways
	if share < 64 || share > 80 {
		t.Errorf("an entry takes %d bytes", share)
	}
	if n := New(8192).Size(); n != 8192 {
		t.Errorf("room for %d flows", n)
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	table := New(1024)
	p := one(1, 0)
	n := uint32(0)
	if got := testing.AllocsPerRun(10_000, func() {
		n++
		binary.BigEndian.PutUint32(p.Src[:], n)
		table.Add(p)
		table.Add(p)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	for name, flows := range map[string]uint32{"of 5000 flows": 5000, "of a flood": math.MaxUint32} {
		b.Run(name, func(b *testing.B) {
			table := New(8192)
			p := one(1, 0)
			n := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				if n++; n == flows {
					n = 0
				}
				binary.BigEndian.PutUint32(p.Src[:], n*2654435761)
				table.Add(p)
			}
		})
	}
}

func TestSuspicionIsOfOneFlowUntilItEnds(t *testing.T) {
	table := New(64)
	table.Add(one(1, 0)).Suspicion = 7
	if e := table.Add(one(1, Idle)); e.Suspicion != 7 {
		t.Errorf("%d of a flow that goes on", e.Suspicion)
	}
	if e := table.Add(one(1, 3*Idle)); e.Suspicion != 0 {
		t.Errorf("%d of a flow that begins anew", e.Suspicion)
	}
	for n := range uint32(1000) { // and when another takes the place
		e := table.Add(one(1000+n, 3*Idle))
		if e.Suspicion != 0 {
			t.Fatal("a flow has the suspicion of another")
		}
		e.Suspicion = 7
	}
}

func TestHas(t *testing.T) {
	table := New(1024)
	for n := range uint32(200) {
		table.Add(one(n, 0))
	}
	for n := range uint32(400) {
		p := one(n, 0)
		if table.Has(&p.Key, table.HashOf(&p.Key), 0) != (n < 200) || table.Has(&p.Key, table.HashOf(&p.Key), 1) {
			t.Errorf("flow %d: %v, at another port %v", n, table.Has(&p.Key, table.HashOf(&p.Key), 0), table.Has(&p.Key, table.HashOf(&p.Key), 1))
		}
	}
	p := one(1, 0)
	p.Family, p.Src[9] = flow.IPv6, 3
	if table.Has(&p.Key, table.HashOf(&p.Key), 0) {
		t.Error("it has a key of IPv6 that was not added")
	}
	if table.Add(p); table.Hash != table.HashOf(&p.Key) {
		t.Error("the hash is another one")
	}
	if !table.Has(&p.Key, table.HashOf(&p.Key), 0) {
		t.Error("it has no key of IPv6 that was added")
	}
	// A key may lie anywhere.
	var odd struct {
		_ uint16
		k flow.Key
	}
	odd.k = p.Key
	if !table.Has(&odd.k, table.HashOf(&odd.k), 0) || testing.AllocsPerRun(100, func() { table.Has(&odd.k, table.HashOf(&odd.k), 0) }) != 0 {
		t.Error("a key at an odd place is not found, or found with an allocation")
	}
}
