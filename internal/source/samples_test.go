// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/overflowd/overflowd/internal/flow"
)

// TestRecordedSamplesAreReadAsTsharkReadsThem compares every flow sample of the
// recordings of sFlow with what samples.py took from tshark.
func TestRecordedSamplesAreReadAsTsharkReadsThem(t *testing.T) {
	for capture, table := range recordings(t, ".tshark.tsv", 4, "sflow/*") {
		name := strings.TrimSuffix(filepath.Base(capture), ".pcap")
		feed, got, err := read(t, capture)
		if err != nil {
			t.Fatal(err)
		}
		c := &feed.Counters
		damaged := c.Drops[Damaged].Load()
		if name == "pmacctd-ip6" {
			// sfprobe has overwritten the begin of the first datagram. The length that
			// stands there leads into the middle of a sample, and from there to two that
			// are whole; tshark gives the datagram up.
			got = got[2:]
			damaged--
		}
		if damaged != 0 || c.Drops[Cut].Load() != 0 || c.Untaken.Load() != 0 {
			t.Errorf("%s: %d datagrams damaged, %d cut, %d samples not taken", name, c.Drops[Damaged].Load(), c.Drops[Cut].Load(), c.Untaken.Load())
		}
		rows := rowsOf(t, table)
		if len(rows) != len(got) || len(rows) < 30 {
			t.Fatalf("%s: %d samples, tshark has %d", name, len(got), len(rows))
		}
		for i, row := range rows {
			if strings.HasPrefix(row["srcaddr"], "fe80:") {
				got[i].Known &^= flow.HasAS // of which sfprobe was told nothing; it repeats others
			}
			if diff := cmp.Diff(sampleOf(t, row), describeSample(&got[i])); diff != "" {
				t.Errorf("%s, sample %d (-tshark +overflowd):\n%s", name, i, diff)
				break
			}
		}
	}
}

func describeSample(r *flow.Record) string {
	return describe(r) + fmt.Sprintln("interval", r.Interval)
}

// sampleOf writes what tshark tells of a sample as describeSample does.
func sampleOf(t *testing.T, row map[string]string) string {
	number := func(name string) uint64 {
		if row[name] == "" {
			return 0
		}
		n, err := strconv.ParseUint(row[name], 10, 64)
		if err != nil {
			t.Fatalf("%s %q", name, row[name])
		}
		return n
	}
	var b strings.Builder
	say := func(name string, v ...any) { fmt.Fprintln(&b, name, strings.TrimSuffix(fmt.Sprintln(v...), "\n")) }
	say("from", row["srcaddr"])
	say("to", row["dstaddr"])
	say("protocol", number("ip_protocol"))
	switch {
	case row["fragment_offset"] != "" && row["fragment_offset"] != "0": // which bears no ports
	case row["icmp_type"] != "":
		say("ports", 0, number("icmp_type")<<8|number("icmp_code"))
	case row["srcport"] != "":
		say("ports", number("srcport"), number("dstport"))
	}
	say("tos", number("tos"))
	if row["tcp_flags"] != "" {
		say("flags", number("tcp_flags")&0xff)
	}
	say("packets", 1)
	if strings.Contains(row["srcaddr"], ":") {
		say("bytes", 40+number("ip_length")) // the header does not count there
	} else {
		say("bytes", number("ip_length"))
	}
	const unknown = 0x3fffffff // the device itself
	if n := number("input"); n != 0 && n != unknown {
		say("ingress", n)
	}
	if n := number("output"); n != 0 && n != unknown {
		say("egress", n)
	}
	if n := number("vlan"); n != 0 {
		say("vlan", n)
	} else if n := number("switch_vlan"); n != 0 {
		say("vlan", n)
	}
	say("ttl", number("ttl"), number("ttl"))
	if src, dst := asOf(row["srcaddr"]), asOf(row["dstaddr"]); strings.Contains(row["records"], "1003") && src+dst != 0 {
		say("as", src, dst)
	}
	say("interval", number("rate"))
	return b.String()
}

// asOf is what record.sh told sfprobe of the networks; the table does not have
// it.
func asOf(a string) uint32 {
	switch {
	case strings.HasPrefix(a, "45.83."):
		return 64512
	case strings.HasPrefix(a, "91.200.16."):
		return 4200000001
	case strings.HasPrefix(a, "2a01:4f8:"):
		return 24940
	}
	return 0
}

// TestRecordedSamplesAreReadAsNfdumpReadsThem has a second witness, sfcapd.
func TestRecordedSamplesAreReadAsNfdumpReadsThem(t *testing.T) {
	for capture, table := range recordings(t, ".nfdump.json", 4, "sflow/*") {
		name := strings.TrimSuffix(filepath.Base(capture), ".pcap")
		_, got, err := read(t, capture)
		if err != nil {
			t.Fatal(err)
		}
		if name == "pmacctd-ip6" {
			got = got[2:] // of the damaged datagram: see above
		}
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) != len(got) {
			t.Errorf("%s: %d samples, nfdump has %d", name, len(got), len(lines))
			continue
		}
		for i, line := range lines {
			var n nfdumpRecord
			if err := json.Unmarshal([]byte(line), &n); err != nil {
				t.Fatal(err)
			}
			r := &got[i]
			switch {
			case n.Protocol == 44: // it stops at the header of an IPv6 fragment
				n.Protocol, n.SrcPort, n.DstPort = r.Protocol, r.SrcPort, r.DstPort
			case n.Protocol == 1 || n.Protocol == 58: // it loses the type, or takes it for the code
				n.SrcPort, n.DstPort = 0, r.DstPort
			}
			// It writes an interface that is not told as 0x3fffffff, and counts a
			// sample as so many packets as it stands for.
			in, out := r.Ingress, r.Egress
			if r.Known&flow.HasIngress == 0 {
				in = n.Ingress
			}
			if r.Known&flow.HasEgress == 0 {
				out = n.Egress
			}
			want := fmt.Sprintln(n.Src4+n.Src6, n.Dst4+n.Dst6, n.SrcPort, n.DstPort, n.Protocol, n.Packets, n.Ingress, n.Egress)
			is := fmt.Sprintln(r.SrcAddr(), r.DstAddr(), r.SrcPort, r.DstPort, r.Protocol, r.Packets*uint64(r.Interval), in, out)
			if diff := cmp.Diff(want, is); diff != "" {
				t.Errorf("%s, sample %d (-nfdump +overflowd):\n%s", name, i, diff)
				break
			}
		}
	}
}
