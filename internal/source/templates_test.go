// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/overflowd/overflowd/internal/flow"
)

// recordings returns the tables that were recorded beside captures, by the paths
// of these; there are at least so many.
func recordings(t *testing.T, ending string, least int, patterns ...string) map[string]string {
	t.Helper()
	tables := map[string]string{}
	for _, pattern := range patterns {
		names, _ := filepath.Glob("../../testdata/" + pattern + ending)
		for _, name := range names {
			tables[strings.TrimSuffix(name, ending)+".pcap"] = name
		}
	}
	if len(tables) < least {
		t.Fatalf("%d tables of %v", len(tables), patterns)
	}
	return tables
}

// rowsOf reads a table that was recorded beside a capture.
func rowsOf(t *testing.T, table string) (rows []map[string]string) {
	t.Helper()
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	names := strings.Split(lines[0], "\t")
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, v := range strings.Split(line, "\t") {
			row[names[i]] = v
		}
		rows = append(rows, row)
	}
	return rows
}

// describe writes what a record tells, a line a field.
func describe(r *flow.Record) string {
	var b strings.Builder
	say := func(known flow.Field, name string, v any) {
		if r.Known&known == known {
			fmt.Fprintf(&b, "%s %v\n", name, v)
		}
	}
	say(0, "from", r.SrcAddr())
	say(0, "to", r.DstAddr())
	say(0, "protocol", r.Protocol)
	say(flow.HasPorts, "ports", fmt.Sprint(r.SrcPort, r.DstPort))
	say(flow.HasTOS, "tos", r.TOS)
	say(flow.HasTCPFlags, "flags", r.TCPFlags)
	say(flow.HasPackets, "packets", r.Packets)
	say(flow.HasBytes, "bytes", r.Bytes)
	say(flow.HasStart, "start", r.Start)
	say(flow.HasEnd, "end", r.End)
	say(flow.HasIngress, "ingress", r.Ingress)
	say(flow.HasEgress, "egress", r.Egress)
	say(flow.HasVLAN, "vlan", r.VLAN)
	say(flow.HasTTL, "ttl", fmt.Sprint(r.TTL, r.MaxTTL))
	say(flow.HasAS, "as", fmt.Sprint(r.SrcAS, r.DstAS))
	return b.String()
}

// recordOf makes the record that a row of tshark's tells; back is that of the
// other direction, if it had packets.
func recordOf(t *testing.T, row map[string]string) (r flow.Record, back *flow.Record) {
	number := func(known flow.Field, name string, bits int) uint64 {
		v := row[name]
		if v == "" {
			return 0
		}
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("%s %q", name, v)
		}
		r.Known |= known
		return n & (1<<bits - 1)
	}
	address := func(a *[16]byte, name string) {
		ip, err := netip.ParseAddr(row[name])
		if err != nil {
			t.Fatal(err)
		}
		r.Family = flow.IPv6
		if ip.Is4() {
			r.Family = flow.IPv4
		}
		copy(a[:], ip.AsSlice())
	}
	address(&r.Src, "srcaddr")
	address(&r.Dst, "dstaddr")
	r.Protocol = uint8(number(0, "protocol", 8))
	if row["srcport"] != "" {
		r.SrcPort, r.DstPort = uint16(number(flow.HasPorts, "srcport", 16)), uint16(number(flow.HasPorts, "dstport", 16))
	}
	isICMP := row["icmp_type"] != "" && (r.Protocol == 1 || r.Protocol == 58) // nfreplay writes it with each protocol
	if isICMP {
		r.SrcPort, r.DstPort = 0, uint16(number(flow.HasPorts, "icmp_type", 8)<<8|number(0, "icmp_code", 8))
	}
	r.TOS, r.TCPFlags = uint8(number(flow.HasTOS, "tos", 8)), uint8(number(flow.HasTCPFlags, "tcpflags", 8))
	r.Packets, r.Bytes = number(flow.HasPackets, "packets", 64), number(flow.HasBytes, "octets", 64)
	r.Ingress, r.Egress = uint32(number(flow.HasIngress, "ingress", 32)), uint32(number(flow.HasEgress, "egress", 32))
	r.VLAN = uint16(number(flow.HasVLAN, "vlan", 12))
	r.SrcAS, r.DstAS = uint32(number(flow.HasAS, "srcas", 32)), uint32(number(flow.HasAS, "dstas", 32))
	for _, x := range []struct {
		name  string
		known flow.Field
		ms    *int64
	}{{"start", flow.HasStart, &r.Start}, {"end", flow.HasEnd, &r.End}} {
		if row[x.name] != "" {
			f, err := strconv.ParseFloat(row[x.name], 64)
			if err != nil {
				t.Fatal(err)
			}
			*x.ms = int64(math.Floor(f))
			r.Known |= x.known
		}
	}
	for _, other := range strings.Split(row["other"], "; ") {
		name, v, _ := strings.Cut(other, "=")
		switch name {
		case "ip_ttl":
			n, _ := strconv.ParseUint(v, 10, 8)
			r.TTL, r.MaxTTL, r.Known = uint8(n), uint8(n), r.Known|flow.HasTTL
		case "ip_dscp": // only where there is no TOS
			if n, _ := strconv.ParseUint(v, 10, 8); row["tos"] == "" {
				r.TOS, r.Known = uint8(n)<<2, r.Known|flow.HasTOS
			}
		}
	}
	if row["reverse_packets"] == "" || row["reverse_packets"] == "0" {
		return r, nil
	}
	// What has no reverse element is of both directions, but for interfaces and
	// VLAN.
	b := r
	b.Src, b.Dst, b.SrcPort, b.DstPort = r.Dst, r.Src, r.DstPort, r.SrcPort
	b.SrcAS, b.DstAS = r.DstAS, r.SrcAS
	forward := r.Known
	r.Known = forward & (flow.HasPorts | flow.HasStart | flow.HasEnd | flow.HasAS)
	b.Packets, b.Bytes = number(flow.HasPackets, "reverse_packets", 64), number(flow.HasBytes, "reverse_octets", 64)
	b.TOS, b.TCPFlags = uint8(number(flow.HasTOS, "reverse_tos", 8)), uint8(number(flow.HasTCPFlags, "reverse_tcpflags", 8))
	if isICMP {
		b.SrcPort, b.DstPort = 0, uint16(number(0, "reverse_icmp_type", 8)<<8|number(0, "reverse_icmp_code", 8))
	}
	b.Known, r.Known = r.Known, forward
	return r, &b
}

// TestRecordedTemplatesAreReadAsTsharkReadsThem compares every record of every
// recording of v9 and IPFIX with what records.py took from tshark.
func TestRecordedTemplatesAreReadAsTsharkReadsThem(t *testing.T) {
	for capture, table := range recordings(t, ".tshark.tsv", 19, "netflow/*-v9*", "netflow/*-ipfix*") {
		name := strings.TrimSuffix(filepath.Base(capture), ".pcap")
		feed, got, err := read(t, capture)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var want []flow.Record
		rows := rowsOf(t, table)
		for _, row := range rows {
			r, back := recordOf(t, row)
			if r.Packets != 0 || back == nil {
				want = append(want, r)
			}
			if back != nil {
				want = append(want, *back)
			}
		}
		if len(got) != len(want) || len(want) < 50 {
			t.Errorf("%s: %d records, tshark has %d", name, len(got), len(want))
			continue
		}
		interval := uint32(0)
		switch {
		case strings.Contains(name, "sampled"):
			interval = 10
		case strings.HasPrefix(name, "softflowd"):
			interval = 1 // said in options
		case name == "ovs-ipfix":
			interval = 0
		}
		for i := range want {
			if strings.HasSuffix(name, "-micro") || strings.HasSuffix(name, "-nano") {
				// tshark rounds down what softflowd has rounded down: .999 for the next.
				for _, x := range [][2]*int64{{&want[i].Start, &got[i].Start}, {&want[i].End, &got[i].End}} {
					if *x[1] == *x[0]+1 {
						*x[0]++
					}
				}
			}
			w, g := describe(&want[i]), describe(&got[i])
			if strings.HasSuffix(name, "-usec") {
				// tshark reads no times of 16 bytes.
				var start, end int64
				for _, field := range strings.Split(rows[i]["other"], "; ") {
					var seconds, micros int64
					if _, err := fmt.Sscanf(field, "abstimestart_bytes=%16x%16x", &seconds, &micros); err == nil {
						start = seconds*1000 + micros/1000
					} else if _, err := fmt.Sscanf(field, "abstimeend_bytes=%16x%16x", &seconds, &micros); err == nil {
						end = seconds*1000 + micros/1000
					}
				}
				want[i].Start, want[i].End, want[i].Known = start, end, want[i].Known|flow.HasStart|flow.HasEnd
				w = describe(&want[i])
			}
			if diff := cmp.Diff(w, g); diff != "" {
				t.Errorf("%s, record %d (-tshark +overflowd):\n%s", name, i, diff)
				break
			}
			if got[i].Interval != interval {
				t.Errorf("%s, record %d: sampling interval %d, want %d", name, i, got[i].Interval, interval)
				break
			}
		}
		for r := range Reasons {
			if n := feed.Counters.Drops[r].Load(); n != 0 {
				t.Errorf("%s: %d %ss %s", name, n, r.Noun(), r)
			}
		}
	}
}

// nfdumpRecord is a record as "nfdump -o json" writes it, as far as it has what
// we read.
type nfdumpRecord struct {
	First     string `json:"first"`
	Last      string `json:"last"`
	Packets   uint64 `json:"in_packets"`
	Bytes     uint64 `json:"in_bytes"`
	BackCount uint64 `json:"out_packets"`
	BackBytes uint64 `json:"out_bytes"`
	Protocol  uint8  `json:"proto"`
	Flags     string `json:"tcp_flags"`
	ICMPType  uint8  `json:"icmp_type"`
	ICMPCode  uint8  `json:"icmp_code"`
	SrcPort   uint16 `json:"src_port"`
	DstPort   uint16 `json:"dst_port"`
	TOS       uint8  `json:"src_tos"`
	Src4      string `json:"src4_addr"`
	Dst4      string `json:"dst4_addr"`
	Src6      string `json:"src6_addr"`
	Dst6      string `json:"dst6_addr"`
	Ingress   uint32 `json:"input_snmp"`
	Egress    uint32 `json:"output_snmp"`
	SrcAS     uint32 `json:"src_as"`
	DstAS     uint32 `json:"dst_as"`
	VLAN      uint16 `json:"src_vlan"`
	Status    uint8  `json:"fwd_status"`
}

// TestRecordedTemplatesAreReadAsNfdumpReadsThem has a second witness.
func TestRecordedTemplatesAreReadAsNfdumpReadsThem(t *testing.T) {
	for capture, table := range recordings(t, ".nfdump.json", 19, "netflow/*") {
		name := strings.TrimSuffix(filepath.Base(capture), ".pcap")
		_, got, err := read(t, capture)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		// nfdump exchanges first and last of 21 and 22 in IPFIX, knows neither 150
		// and 151 nor 154 to 157 nor pmacct's 16 bytes of them, and takes 158 and 159
		// for times since 1970.
		timed := strings.Contains(name, "-v9") || name == "softflowd-ipfix-milli" || strings.HasPrefix(name, "pmacctd") && !strings.HasSuffix(name, "-usec")
		// It takes Open vSwitch's counts of all flows for those of the flow.
		counted := name != "ovs-ipfix"
		// It takes the TOS of the way back of a biflow for that of the way forth, and
		// the TCP flags of both together.
		oneWay := name != "softflowd-ipfix-biflow"
		i, compared := 0, 0
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			var n nfdumpRecord
			if err := json.Unmarshal([]byte(line), &n); err != nil {
				t.Fatal(err)
			}
			if i >= len(got) {
				t.Fatalf("%s: nfdump has more than our %d records", name, len(got))
			}
			if n.Packets == 0 && n.BackCount != 0 && counted { // we have the way back only
				if b := &got[i]; b.Packets != n.BackCount || b.Bytes != n.BackBytes {
					t.Fatalf("%s, record %d: %d packets back, nfdump has %d", name, i, b.Packets, n.BackCount)
				}
				i++
				continue
			}
			r := &got[i]
			isICMP := n.Protocol == 1 || n.Protocol == 58
			if isICMP {
				n.SrcPort, n.DstPort = 0, uint16(n.ICMPType)<<8|uint16(n.ICMPCode)
				if n.DstPort == 0 {
					n.DstPort = r.DstPort // it reads neither 139 in v9, nor 176 to 179, nor pmacct's destination port
				}
			}
			flags := 0 // as "...AP.SF"
			for bit, c := range n.Flags {
				if c != '.' {
					flags |= 128 >> bit
				}
			}
			if !timed {
				n.First, n.Last = millisText(r.Start), millisText(r.End)
			}
			if !counted {
				n.Packets, n.Bytes = r.Packets, r.Bytes
			}
			if !oneWay {
				n.TOS, flags = r.TOS, int(r.TCPFlags)
			}
			want := fmt.Sprintln(n.Src4+n.Src6, n.Dst4+n.Dst6, n.SrcPort, n.DstPort, n.Protocol, n.TOS, flags, n.Packets, n.Bytes, n.First, n.Last, n.Ingress, n.Egress,
				n.SrcAS, n.DstAS, n.VLAN, n.Status)
			is := fmt.Sprintln(r.SrcAddr(), r.DstAddr(), r.SrcPort, r.DstPort, r.Protocol, r.TOS, r.TCPFlags, r.Packets, r.Bytes, millisText(r.Start), millisText(r.End),
				r.Ingress, r.Egress, r.SrcAS, r.DstAS, r.VLAN, r.ForwardingStatus)
			if diff := cmp.Diff(want, is); diff != "" {
				t.Errorf("%s, record %d (-nfdump +overflowd):\n%s", name, i, diff)
				break
			}
			i++
			compared++
			if n.BackCount != 0 && counted && name == "softflowd-ipfix-biflow" {
				if b := &got[i]; b.Packets != n.BackCount || b.Bytes != n.BackBytes || b.Src != r.Dst {
					t.Fatalf("%s, record %d: %d packets back, nfdump has %d", name, i, b.Packets, n.BackCount)
				}
				i++
			}
		}
		if i != len(got) && !t.Failed() || compared < 40 {
			t.Errorf("%s: %d of %d records, %d compared", name, i, len(got), compared)
		}
	}
}

func millisText(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000") }

// TestRecordedPacketsAreReadAsGopacketReadsThem: softflowd's PSAMP, of which
// tshark has the bytes.
func TestRecordedPacketsAreReadAsGopacketReadsThem(t *testing.T) {
	_, got, err := read(t, "../../testdata/netflow/softflowd-psamp.pcap")
	if err != nil {
		t.Fatal(err)
	}
	rows := rowsOf(t, "../../testdata/netflow/softflowd-psamp.tshark.tsv")
	if len(rows) != len(got) || len(rows) < 20 {
		t.Fatalf("%d packets, tshark has %d", len(got), len(rows))
	}
	for i, row := range rows {
		var at float64
		var frame []byte
		size := 0
		for _, field := range strings.Split(row["other"], "; ") {
			switch name, v, _ := strings.Cut(field, "="); name {
			case "observation_time_microseconds":
				at, err = strconv.ParseFloat(v, 64)
			case "data_link_frame_section":
				frame, err = hex.DecodeString(v)
			case "section_exported_octets":
				size, err = strconv.Atoi(v)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		frame = append(frame, make([]byte, size-len(frame))...) // zeros at the end are not in the table
		var want flow.Record
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			want.Family, want.Protocol, want.TTL, want.Bytes = flow.IPv4, uint8(ip.Protocol), ip.TTL, uint64(ip.Length)
		case *layers.IPv6:
			want.Family, want.Protocol, want.TTL, want.Bytes = flow.IPv6, uint8(ip.NextHeader), ip.HopLimit, uint64(ip.Length)+40
			if h, ok := p.Layer(layers.LayerTypeIPv6HopByHop).(*layers.IPv6HopByHop); ok {
				want.Protocol = uint8(h.NextHeader)
			}
		}
		copy(want.Src[:], src.Raw())
		copy(want.Dst[:], dst.Raw())
		switch l4 := p.TransportLayer().(type) {
		case *layers.TCP:
			want.SrcPort, want.DstPort = uint16(l4.SrcPort), uint16(l4.DstPort)
		case *layers.UDP:
			want.SrcPort, want.DstPort = uint16(l4.SrcPort), uint16(l4.DstPort)
		}
		r := &got[i]
		if r.Protocol == 1 || r.Protocol == 58 {
			want.DstPort = r.DstPort // gopacket has types under many names
		}
		if diff := cmp.Diff(fmt.Sprintln(want.Key, want.TTL, want.Bytes, 1), fmt.Sprintln(r.Key, r.TTL, r.Bytes, r.Packets)); diff != "" {
			t.Errorf("packet %d (-gopacket +overflowd):\n%s", i, diff)
		}
		if r.End != int64(at+0.001) { // tshark rounds down what softflowd has rounded down
			t.Errorf("packet %d was seen at %d, tshark has %.6f", i, r.End, at)
		}
	}
}

// TestRecordedFixedVersionsAreReadAsNfdumpReadsThem compares what nfdump's CSV
// has, whose times are whole seconds.
func TestRecordedFixedVersionsAreReadAsNfdumpReadsThem(t *testing.T) {
	protocols := map[uint8]string{1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP"}
	for capture, table := range recordings(t, ".nfdump.csv", 11, "netflow/*") {
		name := strings.TrimSuffix(filepath.Base(capture), ".pcap")
		if name == "softflowd-v1" || strings.HasSuffix(name, "-fragments") {
			continue // nfdump takes records of 48 bytes for 52; we do not put fragments together
		}
		_, got, err := read(t, capture)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for _, line := range strings.Split(string(text), "\n") {
			c := strings.Split(line, ",")
			if !strings.HasPrefix(line, "20") || len(c) < 18 {
				continue // the header and the sums
			}
			if i == len(got) {
				t.Fatalf("%s: nfdump has more than our %d records", name, i)
			}
			r := &got[i]
			i++
			packets, bytes := r.Packets, r.Bytes
			if strings.HasSuffix(name, "-sampled") { // it multiplies
				packets, bytes = packets*uint64(r.Interval), bytes*uint64(r.Interval)
			}
			flags := []byte("CEUAPRSF")
			for bit := range flags {
				if r.TCPFlags&(128>>bit) == 0 {
					flags[bit] = '.'
				}
			}
			seconds := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateTime) }
			ports := []any{c[5], c[6]}
			if r.Protocol == 1 { // type and code, as 3.3
				ports = []any{r.SrcPort, r.DstPort}
			}
			want := fmt.Sprintln(append(ports, c[0], c[1], c[3], c[4], c[7], c[8], c[10], c[11], c[12], c[15], c[16])...)
			is := fmt.Sprintln(r.SrcPort, r.DstPort, seconds(r.Start), seconds(r.End), r.SrcAddr(), r.DstAddr(), protocols[r.Protocol], string(flags),
				r.TOS, packets, bytes, r.Ingress, r.Egress)
			if diff := cmp.Diff(want, is); diff != "" {
				t.Errorf("%s, record %d (-nfdump +overflowd):\n%s", name, i-1, diff)
				break
			}
		}
		if i != len(got) && !t.Failed() || i < 30 {
			t.Errorf("%s: %d records, nfdump has %d", name, len(got), i)
		}
	}
}
