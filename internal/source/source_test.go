// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/pcapfile"
	"github.com/overflowd/overflowd/internal/selector"
)

// exporter is where datagrams come from, if it does not matter.
var exporter = netip.MustParseAddrPort("192.0.2.1:2055")

// readExports reads a capture file of flow export datagrams.
func readExports(r io.Reader, feed *Feed) error {
	f := File{Frames: Exports, Feed: feed, Watch: NewWatch(context.Background(), Sink{}, 1, nil)}
	return f.Read(context.Background(), r)
}

func newFeed(s *selector.Selector, hits chan<- Hit, wait bool) *Feed {
	return NewFeed(context.Background(), Options{Draw: same(s), Sink: Sink{hits, wait}, Exporters: 8})
}

// read reads a capture file with a rate of 1 and returns all records.
func read(t testing.TB, file string) (*Feed, []flow.Record, error) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := selector.New(1)
	if err != nil {
		t.Fatal(err)
	}
	hits := make(chan Hit, 1<<17)
	feed := newFeed(s, hits, true)
	err = readExports(f, feed)
	close(hits)
	var records []flow.Record
	for h := range hits {
		if h.Selected != h.Record.Packets*uint64(max(1, h.Record.Interval)) {
			t.Fatalf("%d of %d packets selected at a rate of 1", h.Selected, h.Record.Packets)
		}
		records = append(records, h.Record)
	}
	return feed, records, err
}

// TestRecordedExportsAreReadAsTsharkReadsThem compares field by field with what
// record.sh took from tshark.
func TestRecordedExportsAreReadAsTsharkReadsThem(t *testing.T) {
	tables, _ := filepath.Glob("../../testdata/netflow/*-v[157]*.tshark.tsv")
	if len(tables) < 4 {
		t.Fatalf("%d tables", len(tables))
	}
	for _, table := range tables {
		capture := strings.TrimSuffix(table, ".tshark.tsv") + ".pcap"
		if strings.HasSuffix(capture, "-fragments.pcap") {
			continue // tshark puts fragments together, we count them
		}
		_, records, err := read(t, capture)
		if err != nil {
			t.Fatalf("%s: %v", capture, err)
		}
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		names := strings.Split(lines[0], "\t")
		if len(lines)-1 != len(records) || len(records) < 20 {
			t.Fatalf("%s: %d records, tshark has %d", capture, len(records), len(lines)-1)
		}
		if other := capture + "ng"; capture == "../../testdata/netflow/softflowd-v5.pcap" { // the same datagrams
			for _, other := range []string{other, strings.Replace(capture, ".pcap", "-sll2.pcap", 1)} {
				_, same, err := read(t, other)
				if diff := cmp.Diff(records, same); err != nil || diff != "" {
					t.Errorf("%s: %v (-%s +this):\n%s", other, err, capture, diff)
				}
			}
		}
		for i, line := range lines[1:] {
			want := map[string]string{}
			for j, v := range strings.Split(line, "\t") {
				want[names[j]] = v
			}
			seconds := func(name string) float64 {
				f, err := strconv.ParseFloat(want[name], 64)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			flags, _ := strconv.ParseUint(want["tcpflags"], 0, 8)
			tos, _ := strconv.ParseUint(want["tos"], 0, 8)
			base := seconds("unix_secs")*1000 + math.Floor(seconds("unix_nsecs")/1e6) - seconds("uptime")
			r := &records[i]
			if rate := want["sampling_rate"]; rate != "" && rate != fmt.Sprint(r.Interval) {
				t.Errorf("%s: sampling interval %d, tshark has %s", capture, r.Interval, rate)
			}
			got := fmt.Sprintln(r.Source.Version, r.SrcAddr(), r.DstAddr(), r.SrcPort, r.DstPort, r.Protocol, r.TOS, r.TCPFlags, r.Packets, r.Bytes, r.Start, r.End)
			expect := fmt.Sprintln(want["version"], want["srcaddr"], want["dstaddr"], want["srcport"], want["dstport"], want["protocol"], tos, flags,
				want["packets"], want["octets"], int64(base+seconds("start")), int64(base+seconds("end")))
			if diff := cmp.Diff(expect, got); diff != "" {
				t.Fatalf("%s, record %d (-tshark +overflowd):\n%s", capture, i, diff)
			}
		}
	}
}

// TestSoftflowdsShortRecordsOfVersion1: the same traffic as that of the v5
// export, in records of 48 bytes.
func TestSoftflowdsShortRecordsOfVersion1(t *testing.T) {
	feed, records, err := read(t, "../../testdata/netflow/softflowd-v1.pcap")
	v5, _, _ := read(t, "../../testdata/netflow/softflowd-v5.pcap")
	if err != nil || feed.Counters.Drops[Cut].Load() != 0 || len(records) < 20 {
		t.Fatalf("%v, %d records", err, len(records))
	}
	if got, want := feed.Counters.Bytes.Load(), v5.Counters.Bytes.Load(); got > want*11/10 || got < want*9/10 {
		t.Errorf("%d bytes, the v5 export has %d", got, want)
	}
}

func TestFragmentsOfExportDatagramsAreCounted(t *testing.T) {
	feed, records, err := read(t, "../../testdata/netflow/softflowd-v5-ip6-fragments.pcap")
	if err != nil || len(records) == 0 || feed.Counters.Drops[Fragment].Load() == 0 {
		t.Errorf("%v, %d records, %d fragments", err, len(records), feed.Counters.Drops[Fragment].Load())
	}
}

// oldRouter returns the path of a router's export of 2007, from
// traces.simpleweb.org, if the folder of further captures has it.
func oldRouter(t *testing.T) string {
	name := filepath.Join(os.Getenv("OVERFLOWD_CAPTURES"), "netflow_4M.pcap")
	if _, err := os.Stat(name); os.Getenv("OVERFLOWD_CAPTURES") == "" || err != nil {
		t.Skip("OVERFLOWD_CAPTURES names no folder with netflow_4M.pcap")
	}
	return name
}

// TestTheOldRoutersExport reads the capture of 2007 that CI has.
func TestTheOldRoutersExport(t *testing.T) {
	feed, records, err := read(t, oldRouter(t))
	if !errors.Is(err, pcapfile.ErrTruncated) {
		t.Errorf("the end: %v", err)
	}
	c := &feed.Counters
	if len(records) != 78704 || c.Datagrams.Load() != 2709 || c.Packets.Load() != 2862954 || c.Bytes.Load() != 2048164217 || c.Drops[Cut].Load() != 1 {
		t.Errorf("%d records, %d datagrams, %d packets, %d bytes, %d cut", len(records), c.Datagrams.Load(), c.Packets.Load(), c.Bytes.Load(), c.Drops[Cut].Load())
	}
	for i := range records {
		if y := time.UnixMilli(records[i].End).UTC(); y.Year() != 2007 || y.Month() != time.July {
			t.Fatalf("record %d is of %v", i, y)
		}
	}
}

// TestTheMeanNumberOfTracersOverSeeds is the exact law on real records: 2,862,954
// packets at 1e-5 are 28.63 selected ones.
func TestTheMeanNumberOfTracersOverSeeds(t *testing.T) {
	file, err := os.ReadFile(oldRouter(t))
	if err != nil {
		t.Fatal(err)
	}
	const want = 28.62954
	seeds := 200
	if testing.Short() { // an emulated processor
		seeds = 10
	}
	total := uint64(0)
	for seed := range seeds {
		s, _ := selector.NewSeeded(1e-5, [32]byte{byte(seed), 1})
		hits := make(chan Hit, 1000)
		readExports(bytes.NewReader(file), newFeed(s, hits, true))
		close(hits)
		for h := range hits {
			total += h.Selected
		}
	}
	mean := float64(total) / float64(seeds)
	if limit := 4 * math.Sqrt(want/float64(seeds)); math.Abs(mean-want) > limit {
		t.Errorf("%.2f packets a run, want %.2f ± %.2f", mean, want, limit)
	}
	t.Logf("%.2f packets a run", mean)
}

func TestOnlyListedExportersAreHeard(t *testing.T) {
	datagram := v5(3)
	for _, c := range []struct {
		exporters string
		heard     bool
	}{{"127.0.0.0/8", true}, {"127.0.0.2/32", false}, {"::1/128", false}} {
		u, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), []netip.Prefix{netip.MustParsePrefix(c.exporters)})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := selector.New(1)
		hits := make(chan Hit, 16)
		ctx, cancel := context.WithCancel(context.Background())
		feed := newFeed(s, hits, false)
		done := make(chan error)
		go func() { done <- u.Run(ctx, feed) }()
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		bad := []byte{0, 8, 0, 1}
		for _, b := range [][]byte{nil, bad, datagram[:30], datagram} { // bad ones before lose nothing
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		deadline := time.Now().Add(10 * time.Second)
		k := &feed.Counters
		for k.Drops[Stranger].Load() < 4 && k.Records.Load() < 3 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond) // a real socket has no synthetic clock
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.exporters, err)
		}
		if heard := k.Records.Load() == 3; heard != c.heard {
			t.Errorf("%s: %d records, %d strangers", c.exporters, k.Records.Load(), k.Drops[Stranger].Load())
		}
		if c.heard && (k.Drops[Version].Load() != 1 || k.Drops[Short].Load() != 1 || k.Drops[Cut].Load() != 1) {
			t.Errorf("drops: %d %d %d", k.Drops[Version].Load(), k.Drops[Short].Load(), k.Drops[Cut].Load())
		}
	}
}

// v5 returns a v5 datagram of n records of one packet and 100 bytes.
func v5(n int) []byte {
	b := make([]byte, 24+48*n)
	b[1], b[3], b[8] = 5, byte(n), 0x60
	for i := range n {
		b[24+48*i+19], b[24+48*i+23] = 1, 100
	}
	return b
}

func TestAFullQueueDropsAndCountsForTheWireAndWaitsForAFile(t *testing.T) {
	s, _ := selector.New(1)
	hits := make(chan Hit, 2)
	live := newFeed(s, hits, false)
	live.receive(exporter, 0, v5(5))
	if live.Counters.Lost.Load() != 3 || live.Counters.Hits.Load() != 5 || live.Counters.Bytes.Load() != 500 {
		t.Errorf("%d lost of %d", live.Counters.Lost.Load(), live.Counters.Hits.Load())
	}
	got := 0
	done := make(chan struct{})
	slow := make(chan Hit)
	go func() {
		for range slow {
			got++
		}
		close(done)
	}()
	file := newFeed(s, slow, true)
	file.receive(exporter, 0, v5(30))
	close(slow)
	if <-done; got != 30 || file.Counters.Lost.Load() != 0 {
		t.Errorf("%d of 30, %d lost", got, file.Counters.Lost.Load())
	}
}

func TestFeedingDoesNotAllocate(t *testing.T) {
	s, _ := selector.New(0.01)
	hits := make(chan Hit, 1)
	f := newFeed(s, hits, false)
	b := v5(30)
	if allocs := testing.AllocsPerRun(1000, func() { f.receive(exporter, 0, b) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if f.Counters.Hits.Load() == 0 {
		t.Error("nothing was selected")
	}
}

func BenchmarkFeedV5(b *testing.B) {
	s, _ := selector.New(1e-6)
	f := newFeed(s, make(chan Hit, 1), false)
	datagram := v5(30)
	b.ReportAllocs()
	for b.Loop() {
		f.receive(exporter, 0, datagram)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(30*b.N), "ns/record")
}

// same draws from all flows with one selector.
func same(s *selector.Selector) Draw {
	return Draw{selectors: [2]*selector.Selector{s, s}, rates: [2]float64{1, 1}}
}
