// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/selector"
)

func udpKey(src, dst string) flow.Key {
	k := flow.Key{Protocol: 17, Family: flow.IPv4}
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	copy(k.Src[:], s.Addr().AsSlice())
	copy(k.Dst[:], d.Addr().AsSlice())
	k.SrcPort, k.DstPort = s.Port(), d.Port()
	return k
}

// connections is a source of them without a kernel, that selects all packets.
func connections(t *testing.T, flows int) (*Conntrack, chan Hit) {
	s, err := selector.New(1)
	if err != nil {
		t.Fatal(err)
	}
	hits := make(chan Hit, 100)
	return &Conntrack{outlet: outlet{sink: Sink{Hits: hits}, ctx: context.Background()}, o: Tracking{Draw: same(s), Flows: flows},
		known: lru.New[uint64](flows), states: make([]connection, flows)}, hits
}

// tracked is a masqueraded connection with so many packets out and back.
func tracked(id uint32, out, back uint64) *conntrack.Entry {
	return &conntrack.Entry{ID: id, Original: udpKey("10.0.0.2:1000", "91.200.16.2:53"), Reply: udpKey("91.200.16.2:53", "45.83.0.1:2000"),
		Counted: true, Packets: [2]uint64{out, back}, Bytes: [2]uint64{100 * out, 1000 * back}}
}

func TestConnectionsAreCountedByWhatWasAdded(t *testing.T) {
	c, hits := connections(t, 8)
	c.count(tracked(1, 50, 60), 1000, false) // was there before
	c.began = true
	if n := c.Counters.Packets.Load(); n != 0 || len(hits) != 0 {
		t.Fatalf("%d packets of before", n)
	}
	want := uint64(0)
	for i, step := range []struct {
		entry *conntrack.Entry
		ended bool
		added uint64
	}{
		{tracked(1, 51, 60), false, 1},
		{tracked(1, 51, 60), false, 0}, // nothing new; or it came twice in a list
		{tracked(2, 3, 2), false, 5},   // a new one
		{tracked(1, 60, 70), true, 19}, // the end
		{tracked(2, 4, 2), false, 1},
		{tracked(3, 7, 0), true, 7},  // one that began and ended between two lists
		{tracked(1, 4, 4), false, 8}, // the number is another connection's now
		{tracked(2, 1, 1), false, 2}, // somebody has set the counters back
		{tracked(2, 2, 2), true, 2},
	} {
		c.count(step.entry, 2000, step.ended)
		want += step.added
		if n := c.Counters.Packets.Load(); n != want {
			t.Errorf("step %d: %d packets, want %d", i, n, want)
		}
	}
}

func TestMoreConnectionsThanThereIsRoomForAreCountedAtTheirEnd(t *testing.T) {
	c, _ := connections(t, 2)
	c.began = true
	for round := range uint64(3) {
		for id := range uint32(4) {
			c.count(tracked(id, 10*(round+1), 0), 1000, false)
		}
	}
	if n := c.Counters.Packets.Load(); n != 2*30 {
		t.Errorf("%d packets of the two there is room for", n)
	}
	for id := range uint32(4) {
		c.count(tracked(id, 40, 0), 1000, true)
	}
	if n := c.Counters.Packets.Load(); n != 4*40 {
		t.Errorf("%d packets at the end", n)
	}
}

func TestARecordOfAConnection(t *testing.T) {
	c, hits := connections(t, 8)
	c.began = true
	c.count(tracked(1, 3, 0), 1_790_000_000_000, false)
	c.count(tracked(1, 10, 5), 1_790_000_010_000, false)
	<-hits
	var got []Hit
	for len(hits) > 0 {
		got = append(got, <-hits)
	}
	e := tracked(1, 10, 5)
	record := func(way int, key, other flow.Key) flow.Record {
		return flow.Record{Key: key, Source: flow.Source{Protocol: flow.Conntrack}, Interval: 1,
			Known: flow.HasPorts | flow.HasPackets | flow.HasBytes | flow.HasStart | flow.HasEnd |
				flow.HasTranslatedSrc | flow.HasTranslatedDst | flow.HasTranslatedPorts,
			Packets: e.Packets[way], Bytes: e.Bytes[way], Start: 1_790_000_000_000, End: 1_790_000_010_000,
			TranslatedSrc: other.Src, TranslatedDst: other.Dst, TranslatedSrcPort: other.SrcPort, TranslatedDstPort: other.DstPort}
	}
	want := []Hit{
		{record(conntrack.Original, e.Original, udpKey("45.83.0.1:2000", "91.200.16.2:53")), 7, 1, 0, netip.Addr{}},
		{record(conntrack.Reply, e.Reply, udpKey("91.200.16.2:53", "10.0.0.2:1000")), 5, 1, 0, netip.Addr{}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestConnectionsThatAreLeftAside(t *testing.T) {
	c, _ := connections(t, 8)
	c.began = true
	for i, k := range []flow.Key{udpKey("127.0.0.1:1", "127.0.0.1:2"), udpKey("45.83.0.1:1", "91.200.16.2:65535"), udpKey("45.83.0.1:65535", "91.200.16.2:1")} {
		c.count(&conntrack.Entry{ID: uint32(i), Original: k, Counted: true, Packets: [2]uint64{5, 0}, Bytes: [2]uint64{500, 0}}, 1000, true)
	}
	c.count(&conntrack.Entry{ID: 9, Original: udpKey("45.83.0.1:1", "91.200.16.2:2")}, 1000, true) // without counters
	if n := c.Counters.Packets.Load(); n != 0 {
		t.Errorf("%d packets", n)
	}
}
