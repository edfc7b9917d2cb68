// SPDX-License-Identifier: BSD-3-Clause

package sflow

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
	"github.com/overflowd/overflowd/internal/pcapfile"
)

// capture returns the path of 1,000 datagrams of real switches of 2011, if the
// folder of further captures has it.
func capture(t *testing.T) string {
	name := filepath.Join(os.Getenv("OVERFLOWD_CAPTURES"), "sflow.pcap")
	if _, err := os.Stat(name); os.Getenv("OVERFLOWD_CAPTURES") == "" || err != nil {
		t.Skip("OVERFLOWD_CAPTURES names no folder with sflow.pcap")
	}
	return name
}

// eachDatagram calls f for the first datagrams of a capture, limit at most.
func eachDatagram(t *testing.T, name string, limit int, f func([]byte)) {
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapfile.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var p pcapfile.Packet
	for range limit {
		if err := r.Next(&p); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		var d packet.Datagram
		if err := packet.ParseUDP(p.LinkType, p.Data, &d); err != nil {
			t.Fatal(err)
		}
		f(d.Payload)
	}
}

func TestTheSwitchesExport(t *testing.T) {
	d := NewDecoder()
	datagrams, records, octets := 0, 0, uint64(0)
	eachDatagram(t, capture(t), 1<<20, func(b []byte) {
		datagrams++
		if err := d.Decode(b, func(r *flow.Record) {
			records++
			octets += r.Bytes
			if r.Interval != 300 {
				t.Errorf("interval %d", r.Interval)
			}
		}); err != nil {
			t.Errorf("datagram %d: %v", datagrams, err)
		}
	})
	t.Logf("%d datagrams, %d records of %d bytes, %+v", datagrams, records, octets, d.Stats)
	want := Stats{FlowSamples: 5855, CounterSamples: 502}
	if got := d.Stats; datagrams != 1000 || records+int(got.NoFlow) != 5855 || got != want {
		t.Errorf("%d datagrams, %d records, %+v", datagrams, records, got)
	}
}

// tsharkFields are those of its XML that are compared, and "", which begins a
// sample.
var tsharkFields = []string{"", "ip.src", "ip.dst", "ip.proto", "ip.dsfield", "ip.ttl", "ip.len",
	"ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.tclass", "ipv6.hlim", "ipv6.plen",
	"tcp.srcport", "tcp.dstport", "tcp.flags", "udp.srcport", "udp.dstport", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code",
	"vlan.id", "ieee8021ad.id", "sflow_245.vlan.in", "sflow.flow_sample.sampling_rate", "sflow.flow_sample.input_interface",
	"sflow.flow_sample.input_interface_value", "sflow.flow_sample.output_interface.format",
	"sflow.flow_sample.output_interface_format", "sflow.flow_sample.output_interface_value"}

// tsharkSamples reads the flow samples of a capture with tshark: of each the
// fields, the first of a name, which is that of the outermost header.
func tsharkSamples(t *testing.T, name string, limit int) []map[string]string {
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command("tshark", "-n", "-r", name, "-c", strconv.Itoa(limit), "-d", "udp.port==6343,sflow", "-T", "pdml")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var samples []map[string]string
	var at map[string]string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() { // one field a line
		line := bytes.TrimLeft(lines.Bytes(), " ")
		if string(line) == "<packet>" {
			at = nil
		}
		line, ok := bytes.CutPrefix(line, []byte(`<field name="`))
		b, line, _ := bytes.Cut(line, []byte(`"`))
		if !ok || !slices.Contains(tsharkFields, string(b)) {
			continue
		}
		name := string(b)
		_, line, _ = bytes.Cut(line, []byte(` show="`))
		b, _, _ = bytes.Cut(line, []byte(`"`))
		show := string(b)
		switch {
		case strings.HasPrefix(show, "Flow sample, seq ") || strings.HasPrefix(show, "Expanded flow sample, seq "):
			at = map[string]string{}
			samples = append(samples, at)
		case strings.Contains(show, " sample, seq "): // of counters
			at = nil
		case at != nil:
			if _, ok := at[name]; !ok {
				at[name] = show
			}
			if at["outer"] == "" && (name == "ip.src" || name == "ipv6.src") { // not that within an ICMP error
				at["outer"] = name
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return samples
}

// TestEverySampleIsReadAsTsharkReadsIt compares field by field. There is no
// difference to explain.
func TestEverySampleIsReadAsTsharkReadsIt(t *testing.T) {
	datagrams, want := 1000, 5855
	if testing.Short() { // an emulated processor
		datagrams, want = 50, 292
	}
	if n := asTshark(t, capture(t), datagrams); n != want {
		t.Errorf("compared %d samples", n)
	}
}

// TestBuiltSamplesAreReadAsTsharkReadsThem compares in the same way what the
// switches of that capture, which carried TCP over IPv4 only, do not send.
func TestBuiltSamplesAreReadAsTsharkReadsThem(t *testing.T) {
	name := filepath.Join(t.TempDir(), "built.pcap")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := pcapgo.NewWriter(file)
	w.WriteFileHeader(65536, layers.LinkTypeRaw)
	r := rand.New(rand.NewPCG(7, 8))
	datagrams, samples := 300, 4
	if testing.Short() {
		datagrams = 50
	}
	for range datagrams {
		var all []xdr
		for range samples {
			s := sampling{sequence: r.Uint32(), index: r.Uint32N(100), rate: r.Uint32N(1000), pool: r.Uint32(),
				in: []uint32{0, 48, 0x3fffffff}[r.IntN(3)], outFormat: r.Uint32N(3), out: []uint32{0, 47, 258, 0x3fffffff}[r.IntN(4)]}
			build := s.compact
			if r.IntN(2) == 0 {
				build = s.expanded
			}
			records := []xdr{randomHeader(r)}
			if r.IntN(2) == 0 {
				records = append(records, tagged(1001, words(r.Uint32N(3), 0, 8, 0)))
			}
			all = append(all, build(records...))
		}
		payload := datagram([]string{"192.0.2.1", "2001:db8::1"}[r.IntN(2)], all...)
		ip := bytesOf(ip4, []byte{0x30, 0x39, 0x18, 0xc7, 0, 0, 0, 0}, payload)
		ip[9] = 17
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[24:], uint16(len(ip)-20))
		w.WritePacket(gopacket.CaptureInfo{Length: len(ip), CaptureLength: len(ip)}, ip)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if n := asTshark(t, name, datagrams); n != datagrams*samples {
		t.Errorf("compared %d samples", n)
	}
}

// randomHeader is a raw packet header of 128 bytes at most.
func randomHeader(r *rand.Rand) xdr {
	noise := make([]byte, 200)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	l4, protocol := noise[:60], []byte{1, 6, 17, 47, 50, 58}[r.IntN(6)]
	switch protocol {
	case 6:
		l4[12] = 0x50
	case 17: // ports that no dissector of tshark looks behind
		copy(l4, []byte{0xc3, 0x50, 0xc3, 0x51, 0, 60})
	case 47, 50:
		clear(l4)
	}
	b := bytesOf(ip4, l4)
	b[1], b[2], b[3], b[8], b[9] = noise[100], 0, byte(len(b)), noise[101]|1, protocol
	ethertype := uint16(0x0800)
	if r.IntN(2) == 0 {
		ethertype = 0x86dd
		b = bytesOf(ip6, l4)
		b[0], b[1], b[5], b[6], b[7] = 0x60|noise[100]&15, noise[101], 60, protocol, noise[102]|1
		copy(b[24:40], noise[110:])
	}
	switch r.IntN(4) {
	case 0:
		b = ethernet(0x8100, []byte{byte(r.IntN(16)), byte(r.IntN(256)), byte(ethertype >> 8), byte(ethertype)}, b)
	case 1:
		b = ethernet(0x88a8, []byte{0, 7, 0x81, 0, 0, 9, byte(ethertype >> 8), byte(ethertype)}, b)
	case 2:
		return raw(map[uint16]uint32{0x0800: 11, 0x86dd: 12}[ethertype], b)
	default:
		b = ethernet(ethertype, b)
	}
	return raw(1, b[:min(128, len(b))])
}

// asTshark compares the samples of a capture's first datagrams and returns how
// many there are.
func asTshark(t *testing.T, name string, limit int) int {
	t.Helper()
	samples := tsharkSamples(t, name, limit)
	var got []*flow.Record // nil: no flow
	d := NewDecoder()
	eachDatagram(t, name, limit, func(b []byte) {
		if err := d.Decode(b, func(r *flow.Record) {
			one := *r
			got = append(got, &one)
		}); err != nil {
			t.Fatal(err)
		}
		if d.Stats.NoFlow != 0 || uint64(len(got)) != d.Stats.FlowSamples {
			t.Fatalf("a sample without a flow: %+v", d.Stats)
		}
	})
	if len(samples) != len(got) {
		t.Fatalf("%d samples, tshark has %d", len(got), len(samples))
	}
	protocols := map[uint8]int{}
	for i, want := range samples {
		protocols[got[i].Protocol]++
		if w, g := fromTshark(t, want), describe(got[i]); w != g {
			t.Fatalf("sample %d:\n- tshark    %s\n+ overflowd %s", i, w, g)
		}
	}
	t.Logf("compared %d samples, by protocol %v", len(got), protocols)
	return len(got)
}

// describe and fromTshark write the same line of the same sample.
func describe(r *flow.Record) string {
	told := func(bit flow.Field, v ...any) string {
		if r.Known&bit == 0 {
			return "-"
		}
		return fmt.Sprint(v...)
	}
	return fmt.Sprintln(r.SrcAddr(), r.DstAddr(), "protocol", r.Protocol, "ports", told(flow.HasPorts, r.SrcPort, " ", r.DstPort), "flags", told(flow.HasTCPFlags, r.TCPFlags),
		"TOS", told(flow.HasTOS, r.TOS), "TTL", told(flow.HasTTL, r.TTL, " ", r.MaxTTL), "bytes", told(flow.HasBytes, r.Bytes), "rate", r.Interval,
		"in", told(flow.HasIngress, r.Ingress), "out", told(flow.HasEgress, r.Egress), "dropped", told(flow.HasDropped, r.Dropped), "VLAN", told(flow.HasVLAN, r.VLAN))
}

func fromTshark(t *testing.T, f map[string]string) string {
	number := func(name string) uint64 {
		n, err := strconv.ParseUint(f[name], 0, 64)
		if err != nil {
			t.Fatalf("%s: %v in %v", name, err, f)
		}
		return n
	}
	src, dst, protocol, tos, ttl, octets := "ip.src", "ip.dst", "ip.proto", "ip.dsfield", "ip.ttl", uint64(0)
	if f["outer"] == "ipv6.src" {
		src, dst, protocol, tos, ttl = "ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.tclass", "ipv6.hlim"
		octets = 40 + number("ipv6.plen")
	} else {
		octets = number("ip.len")
	}
	ports, flags := "-", "-"
	switch number(protocol) {
	case 1:
		ports = fmt.Sprint("0 ", number("icmp.type")<<8|number("icmp.code"))
	case 6:
		ports = fmt.Sprint(number("tcp.srcport"), " ", number("tcp.dstport"))
		flags = fmt.Sprint(number("tcp.flags") & 0xff)
	case 17:
		ports = fmt.Sprint(number("udp.srcport"), " ", number("udp.dstport"))
	case 58:
		ports = fmt.Sprint("0 ", number("icmpv6.type")<<8|number("icmpv6.code"))
	}
	in, out, dropped, vlan := "-", "-", "-", "-"
	input, format := "sflow.flow_sample.input_interface", "sflow.flow_sample.output_interface_format"
	if f[input] == "" { // of an expanded sample
		input, format = "sflow.flow_sample.input_interface_value", "sflow.flow_sample.output_interface.format"
	}
	if n := number(input); n != 0 && n != 0x3fffffff {
		in = fmt.Sprint(n)
	}
	switch n := number("sflow.flow_sample.output_interface_value"); number(format) {
	case 0:
		if n != 0 && n != 0x3fffffff {
			out = fmt.Sprint(n)
		}
	case 1:
		dropped = "1"
	}
	for _, tag := range []string{"ieee8021ad.id", "vlan.id", "sflow_245.vlan.in"} { // the outer tag has a name of its own
		if f[tag] != "" && number(tag) != 0 {
			vlan = fmt.Sprint(number(tag))
			break
		}
	}
	return fmt.Sprintln(netip.MustParseAddr(f[src]), netip.MustParseAddr(f[dst]), "protocol", number(protocol), "ports", ports, "flags", flags,
		"TOS", number(tos), "TTL", fmt.Sprint(number(ttl), " ", number(ttl)), "bytes", octets, "rate", number("sflow.flow_sample.sampling_rate"),
		"in", in, "out", out, "dropped", dropped, "VLAN", vlan)
}
