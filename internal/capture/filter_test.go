// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/packet"
)

// frame serializes layers; lengths are filled in. A short frame is not padded.
func frame(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if e, ok := all[0].(*layers.Ethernet); ok {
		head := binary.BigEndian.AppendUint16(append(append([]byte{}, e.DstMAC...), e.SrcMAC...), uint16(e.EthernetType))
		return append(head, frame(t, all[1:]...)...)
	}
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, all...); err != nil {
		t.Fatal(err)
	}
	return append([]byte{}, b.Bytes()...)
}

func ether(of layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: of}
}

func ip4(of layers.IPProtocol, src, dst string) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: of, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func ip6(of layers.IPProtocol, src, dst string) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: of, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func datagram(src, dst uint16) *layers.UDP {
	return &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
}

func optioned(ip *layers.IPv4) *layers.IPv4 {
	ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	for range 8 {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1})
	}
	return ip
}

func fragment(ip *layers.IPv4, offset uint16, flags layers.IPv4Flag) *layers.IPv4 {
	ip.FragOffset, ip.Flags = offset, flags
	return ip
}

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

var (
	payload = gopacket.Payload("0123456789abcdef")
	us4     = "192.0.2.1"
	us6     = "2001:db8::1"
)

// exporters is a filter of one who listens at a port for all, at another for
// addresses, and at an address for nobody.
var exporters = Filter{Exports: []Export{
	{To: netip.MustParseAddrPort("[::]:2055"), From: prefixes("10.1.16.0/20", "10.9.9.9/32", "2001:db8:8000::/33", "2001:db8::5/128")},
	{To: netip.MustParseAddrPort("192.0.2.1:6343"), From: prefixes("0.0.0.0/0", "::/0")},
	{To: netip.MustParseAddrPort("[2001:db8::1]:6343"), From: prefixes("10.0.0.0/8", "::/0")},
	{To: netip.MustParseAddrPort("192.0.2.1:9995"), From: nil},
	{To: netip.MustParseAddrPort("192.0.2.1:4739"), From: prefixes("128.0.0.0/1")},
	{To: netip.MustParseAddrPort("192.0.2.2:4739"), From: prefixes("198.51.100.128/25")},
	{To: netip.MustParseAddrPort("[2001:db8::2]:4739"), From: prefixes("2001:db8:1:2:8000::/65", "2001:db8:1:3::/64", "2001:db8:ffff::/97")},
}}

type sample struct {
	name  string
	bytes []byte
	keep  bool
}

// samples are frames of Ethernet, and what becomes of them.
func samples(t testing.TB) []sample {
	const v4, v6, tcp, udp, icmp, icmp6 = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4, layers.IPProtocolICMPv6
	bare := func(all ...gopacket.SerializableLayer) []byte { return frame(t, all...) }
	quote4 := frame(t, ip4(udp, us4, "198.51.100.7"), datagram(4000, 65535), payload)
	quote4options := frame(t, optioned(ip4(udp, us4, "198.51.100.7")), datagram(65535, 65535), payload)
	quote4other := frame(t, ip4(udp, us4, "198.51.100.7"), datagram(65535, 4000), payload)
	quote4tcp := frame(t, ip4(tcp, us4, "198.51.100.7"), &layers.TCP{SrcPort: 9, DstPort: 65535}, payload)
	quote6 := frame(t, ip6(udp, us6, "2001:db8:9::9"), datagram(4000, 65535), payload)
	quote6other := frame(t, ip6(udp, us6, "2001:db8:9::9"), datagram(65535, 53), payload)
	answer := func(typ uint8, ip *layers.IPv4, quote []byte) []byte {
		return frame(t, ether(v4), ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0)}, gopacket.Payload(quote))
	}
	answer6 := func(typ uint8, quote []byte) []byte {
		return frame(t, ether(v6), ip6(icmp6, "2001:db8:9::9", us6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}, gopacket.Payload(append(make([]byte, 4), quote...)))
	}
	export := func(src, dst string, port uint16) []byte {
		if a := netip.MustParseAddr(src); a.Is4() {
			return frame(t, ether(v4), ip4(udp, src, dst), datagram(5000, port), payload)
		}
		return frame(t, ether(v6), ip6(udp, src, dst), datagram(5000, port), payload)
	}
	tag := func(id uint16, of layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: of}
	}
	headless := func(of layers.IPProtocol) []byte { return frame(t, ether(v4), ip4(of, us4, "198.51.100.7")) }
	headless6 := func(of layers.IPProtocol) []byte { return frame(t, ether(v6), ip6(of, us6, "2001:db8:9::9")) }
	extension := []byte{byte(udp), 0, 1, 4, 0, 0, 0, 0}

	return []sample{
		{"a tracer", bare(ether(v4), ip4(udp, us4, "198.51.100.7"), datagram(4000, 65535), payload), false},
		{"from the tracers' port", bare(ether(v4), ip4(udp, us4, "198.51.100.7"), datagram(65535, 53), payload), false},
		{"a tracer behind options", bare(ether(v4), optioned(ip4(udp, us4, "198.51.100.7")), datagram(4000, 65535), payload), false},
		{"a tracer over IPv6", bare(ether(v6), ip6(udp, us6, "2001:db8:9::9"), datagram(4000, 65535), payload), false},
		{"from the tracers' port over IPv6", bare(ether(v6), ip6(udp, us6, "2001:db8:9::9"), datagram(65535, 53), payload), false},
		{"the first fragment of a tracer", bare(ether(v4), fragment(ip4(udp, us4, "198.51.100.7"), 0, layers.IPv4MoreFragments), datagram(4000, 65535), payload), false},
		{"four bytes of a tracer's UDP header", bare(ether(v4), ip4(udp, us4, "198.51.100.7"), gopacket.Payload{0x10, 0, 0xff, 0xff}), false},
		{"a later fragment that looks like a tracer", bare(ether(v4), fragment(ip4(udp, us4, "198.51.100.7"), 100, 0), datagram(4000, 65535), payload), true},
		{"the same port of TCP", bare(ether(v4), ip4(tcp, us4, "198.51.100.7"), &layers.TCP{SrcPort: 65535, DstPort: 65535}, payload), true},
		{"the same port of TCP over IPv6", bare(ether(v6), ip6(tcp, us6, "2001:db8:9::9"), &layers.TCP{SrcPort: 65535, DstPort: 65535}, payload), true},
		{"another datagram", bare(ether(v4), ip4(udp, us4, "198.51.100.7"), datagram(4000, 53), payload), true},
		{"another datagram behind options", bare(ether(v4), optioned(ip4(udp, us4, "198.51.100.7")), datagram(4000, 53), payload), true},
		{"another datagram over IPv6", bare(ether(v6), ip6(udp, us6, "2001:db8:9::9"), datagram(4000, 53), payload), true},
		{"a tracer behind an extension header", bare(ether(v6), ip6(60, us6, "2001:db8:9::9"), gopacket.Payload(append(extension, 0xff, 0xff, 0xff, 0xff, 0, 8, 0, 0))), true},
		{"a fragment of IPv6", bare(ether(v6), ip6(44, us6, "2001:db8:9::9"), gopacket.Payload{byte(udp), 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}), true},
		{"UDP without a header", headless(udp), true},
		{"UDP without a header over IPv6", headless6(udp), true},
		{"UDP with three bytes of header", bare(ether(v4), ip4(udp, us4, "198.51.100.7"), gopacket.Payload{255, 255, 255}), true},
		{"UDP with three bytes of header over IPv6", bare(ether(v6), ip6(udp, us6, "2001:db8:9::9"), gopacket.Payload{255, 255, 255}), true},
		{"ICMP without a header", headless(icmp), true},
		{"ICMP without a header over IPv6", headless6(icmp6), true},
		{"TCP without a header", headless(tcp), true},

		{"a port unreachable for a tracer", answer(3, ip4(icmp, "198.51.100.7", us4), quote4), false},
		{"a time exceeded behind options for a tracer with options", answer(11, optioned(ip4(icmp, "198.51.100.7", us4)), quote4options), false},
		{"a source quench for a tracer", answer(4, ip4(icmp, "198.51.100.7", us4), quote4[:28]), false},
		{"an error with only four bytes of the UDP header", answer(12, ip4(icmp, "198.51.100.7", us4), quote4[:24]), false},
		{"an error that ends before the port", answer(3, ip4(icmp, "198.51.100.7", us4), quote4[:23]), true},
		{"an error that ends before the port behind options", answer(3, ip4(icmp, "198.51.100.7", us4), quote4options[:35]), true},
		{"an error that quotes nothing", answer(3, ip4(icmp, "198.51.100.7", us4), nil), true},
		{"an error for another datagram", answer(3, ip4(icmp, "198.51.100.7", us4), quote4other), true},
		{"an error for TCP", answer(3, ip4(icmp, "198.51.100.7", us4), quote4tcp), true},
		{"a later fragment that looks like an error", answer(3, fragment(ip4(icmp, "198.51.100.7", us4), 100, 0), quote4), true},
		{"an echo request that looks like an error", answer(8, ip4(icmp, "198.51.100.7", us4), quote4), true},
		{"an echo reply that looks like an error", answer(0, ip4(icmp, "198.51.100.7", us4), quote4), true},
		{"a timestamp request that looks like an error", answer(13, ip4(icmp, "198.51.100.7", us4), quote4), true},
		{"an error of ICMPv6 for a tracer", answer6(1, quote6), false},
		{"a packet too big for a tracer", answer6(2, quote6), false},
		{"an error of ICMPv6 with only four bytes of the UDP header", answer6(3, quote6[:44]), false},
		{"an error of ICMPv6 that ends before the port", answer6(3, quote6[:43]), true},
		{"an error of ICMPv6 for another datagram", answer6(1, quote6other), true},
		{"an echo request of ICMPv6 that looks like an error", answer6(128, quote6), true},

		{"an export to a port of all addresses", export("10.1.31.255", "203.0.113.77", 2055), false},
		{"beyond the /20", export("10.1.32.0", "203.0.113.77", 2055), true},
		{"before the /20", export("10.1.15.255", "203.0.113.77", 2055), true},
		{"of the second exporter", export("10.9.9.9", us4, 2055), false},
		{"beside the second exporter", export("10.9.9.8", us4, 2055), true},
		{"within the /33", export("2001:db8:ffff::1", us6, 2055), false},
		{"beside the /33", export("2001:db8:7fff::1", us6, 2055), true},
		{"of the /128", export("2001:db8::5", us6, 2055), false},
		{"beside the /128", export("2001:db8::4", us6, 2055), true},
		{"of anybody to an address", export("203.0.113.5", us4, 6343), false},
		{"of anybody to another address", export("203.0.113.5", "192.0.2.2", 6343), true},
		{"of anybody to an address of IPv6", export("2a00::5", us6, 6343), false},
		{"of anybody to another address of IPv6", export("2a00::5", "2001:db8::2", 6343), true},
		{"to a port without exporters", export("10.1.16.1", us4, 9995), true},
		{"to another port", export("10.1.16.1", us4, 2056), true},
		{"from that port", bare(ether(v4), ip4(udp, "10.1.16.1", us4), datagram(2055, 4000), payload), true},
		{"to the first of two addresses of a port", export("129.0.0.1", "192.0.2.1", 4739), false},
		{"to the second of two addresses of a port", export("198.51.100.200", "192.0.2.2", 4739), false},
		{"to the second address, of an exporter of the first", export("129.0.0.1", "192.0.2.2", 4739), true},
		{"to the third address", export("129.0.0.1", "192.0.2.3", 4739), true},
		{"within the /65", export("2001:db8:1:2:ffff::1", "2001:db8::2", 4739), false},
		{"beside the /65", export("2001:db8:1:2:7fff::1", "2001:db8::2", 4739), true},
		{"within the /64", export("2001:db8:1:3:7fff::1", "2001:db8::2", 4739), false},
		{"within the /97", export("2001:db8:ffff::7fff:1", "2001:db8::2", 4739), false},
		{"beside the /97", export("2001:db8:ffff::8000:1", "2001:db8::2", 4739), true},
		{"TCP to a port of exports", bare(ether(v4), ip4(tcp, "10.1.16.1", us4), &layers.TCP{SrcPort: 9, DstPort: 2055}, payload), true},

		{"a tracer behind a tag", bare(ether(layers.EthernetTypeDot1Q), tag(7, v4), ip4(udp, us4, "198.51.100.7"), datagram(1, 65535), payload), true},
		{"behind two tags", bare(ether(layers.EthernetTypeQinQ), tag(7, layers.EthernetTypeDot1Q), tag(8, v6), ip6(tcp, us6, "2001:db8:9::9"), &layers.TCP{}, payload), true},
		{"behind the tags of others", bare(ether(0x9100), tag(7, 0x9200), tag(8, v6), ip6(tcp, us6, "2001:db8:9::9"), &layers.TCP{}, payload), true},
		{"behind the tag 9200", bare(ether(0x9200), tag(8, v6), ip6(tcp, us6, "2001:db8:9::9"), &layers.TCP{}, payload), true},
		{"PPPoE", bare(ether(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1, SessionId: 5}, &layers.PPP{PPPType: layers.PPPTypeIPv4}, ip4(udp, us4, "198.51.100.7"), datagram(1, 53), payload), true},
		{"MPLS", bare(ether(layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 5, StackBottom: true, TTL: 9}, ip4(udp, us4, "198.51.100.7"), datagram(1, 53), payload), true},
		{"MPLS multicast", bare(ether(layers.EthernetTypeMPLSMulticast), &layers.MPLS{Label: 5, StackBottom: true, TTL: 9}, ip4(udp, us4, "198.51.100.7"), datagram(1, 53), payload), true},
		{"ARP", bare(ether(layers.EthernetTypeARP), &layers.ARP{AddrType: 1, Protocol: v4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
			SourceHwAddress: make([]byte, 6), SourceProtAddress: make([]byte, 4), DstHwAddress: make([]byte, 6), DstProtAddress: make([]byte, 4)}), false},
		{"LLDP", bare(ether(layers.EthernetTypeLinkLayerDiscovery), payload), false},
		{"PPPoE discovery", bare(ether(layers.EthernetTypePPPoEDiscovery), payload), false},
		{"802.3", bare(ether(16), payload), false},
	}
}

func disassemble(raw []instruction) (p []bpf.Instruction) {
	for _, i := range raw {
		p = append(p, i.Disassemble())
	}
	return p
}

// machine is the filter in a virtual machine.
func machine(t testing.TB, f *Filter, link packet.LinkType) func([]byte) bool {
	t.Helper()
	vm, err := bpf.NewVM(disassemble(f.program(link)))
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) bool {
		n, err := vm.Run(b)
		if err != nil || n != 0 && n != Snap {
			t.Fatalf("%d bytes, %v: %x", n, err, b)
		}
		return n != 0
	}
}

// isIP tells whether a frame of Ethernet is IP at once, so that its rest can
// come alone on another interface.
func isIP(b []byte) bool { return b[12] == 8 && b[13] == 0 || b[12] == 0x86 && b[13] == 0xdd }

func TestTheFilterKeepsWhatIsNotOfUs(t *testing.T) {
	ethernet, raw := machine(t, &exporters, packet.Ethernet), machine(t, &exporters, packet.Raw)
	for _, s := range samples(t) {
		if got := ethernet(s.bytes); got != s.keep {
			t.Errorf("%s: %t", s.name, got)
		}
		if !isIP(s.bytes) {
			continue
		}
		if got := raw(s.bytes[14:]); got != s.keep {
			t.Errorf("%s, raw: %t", s.name, got)
		}
	}
}

func TestNeitherIPv4NorIPv6IsDroppedOfRawPackets(t *testing.T) {
	raw := machine(t, &exporters, packet.Raw)
	for v := range 16 {
		b := make([]byte, 60)
		b[0], b[6] = byte(v<<4|5), 6
		b[6], b[9] = 6, 6
		if v == 4 {
			b[6] = 0
		}
		if got := raw(b); got != (v == 4 || v == 6) {
			t.Errorf("version %d: %t", v, got)
		}
	}
}

type verdict uint8

const (
	either verdict = iota
	keep
	throw
)

// judge says what must become of a frame, by packet.Parse and gopacket. Either
// is right of what has no readable IP header, and where what counts stands
// beyond the end that the IP header tells.
func judge(f *Filter, link packet.LinkType, b []byte) verdict {
	at := 14
	if link != packet.Ethernet {
		at = 0
		if len(b) == 0 || b[0]>>4 != 4 && b[0]>>4 != 6 {
			return throw
		}
	} else if len(b) < 14 {
		return either
	} else if !isIP(b) {
		switch binary.BigEndian.Uint16(b[12:]) {
		case 0x8100, 0x88a8, 0x9100, 0x9200, 0x8864, 0x8847, 0x8848:
			return keep
		}
		return throw
	}
	var p packet.Packet
	if packet.Parse(link, b, &p) != nil {
		return either
	}
	known := p.Known&flow.HasPorts != 0
	switch {
	case p.Fragment, p.Family == flow.IPv6 && b[at+6] != p.Protocol:
		return keep
	case p.Protocol == udp && !known || (p.Protocol == 1 || p.Protocol == 58) && p.Bytes < uint32(len(b)-at):
		if p.Bytes < uint32(len(b)-at) {
			return either
		}
		return keep
	case p.Protocol == udp:
		if p.SrcPort == tracerPort || p.DstPort == tracerPort {
			return throw
		}
		for _, e := range f.Exports {
			if to := e.To.Addr(); e.To.Port() != p.DstPort || !to.IsUnspecified() && to != p.DstAddr() {
				continue
			}
			for _, from := range e.From {
				if from.Contains(p.SrcAddr()) {
					return throw
				}
			}
		}
		return keep
	}
	var quoted []byte
	var e4 layers.ICMPv4
	var e6 layers.ICMPv6
	message := b[at:]
	switch {
	case p.Protocol == 1 && p.Family == flow.IPv4:
		if message = message[min(int(b[at]&15)*4, len(message)):]; e4.DecodeFromBytes(message, gopacket.NilDecodeFeedback) != nil {
			return keep
		}
		switch e4.TypeCode.Type() {
		case 3, 4, 5, 11, 12:
			quoted = e4.Payload
		case 1, 2, 6, 7: // are assigned to nothing of today
			return either
		}
	case p.Protocol == 58 && p.Family == flow.IPv6:
		if e6.DecodeFromBytes(message[40:], gopacket.NilDecodeFeedback) != nil || len(e6.Payload) < 4 {
			return keep
		}
		if e6.TypeCode.Type() < 128 {
			quoted = e6.Payload[4:]
		}
	}
	if quoted == nil {
		return keep
	}
	var q packet.Packet
	if err := packet.Parse(packet.Raw, quoted, &q); err == packet.ErrShort {
		return keep
	} else if err != nil || q.Family != p.Family || q.Fragment || q.Protocol == udp && q.Known&flow.HasPorts == 0 && q.Bytes < uint32(len(quoted)) {
		return either
	}
	if q.Protocol == udp && q.Known&flow.HasPorts != 0 && q.DstPort == tracerPort && (q.Family == flow.IPv4 || quoted[6] == udp) {
		return throw
	}
	return keep
}

// mutate changes some bytes and often the size.
func mutate(r *rand.Rand, b []byte) []byte {
	b = append([]byte{}, b...)
	for range r.IntN(4) {
		i := r.IntN(len(b))
		switch r.IntN(4) {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b[i] ^= 1 << r.IntN(8)
		case 2:
			b[i] = 255
		case 3: // a protocol, a type or the size of a header
			b[i] = []byte{0, 1, 3, 6, 8, 11, 17, 44, 58, 60, 128, 0x45, 0x46, 0x4f, 0x60}[r.IntN(15)]
		}
	}
	switch r.IntN(4) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1:
		for range r.IntN(60) {
			b = append(b, 255)
		}
	}
	return b
}

func TestTheFilterAgreesWithTheParserOnDamagedFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	programs := map[packet.LinkType]func([]byte) bool{packet.Ethernet: machine(t, &exporters, packet.Ethernet), packet.Raw: machine(t, &exporters, packet.Raw)}
	all, rounds := samples(t), 4000
	if testing.Short() {
		rounds = 100
	}
	seen := [3]int{}
	for range rounds {
		for _, s := range all {
			link, b := packet.Ethernet, s.bytes
			if isIP(b) && r.IntN(2) == 0 {
				link, b = packet.Raw, b[14:]
			}
			b = mutate(r, b)
			want := judge(&exporters, link, b)
			seen[want]++
			if got := programs[link](b); want != either && got != (want == keep) {
				t.Fatalf("%s, damaged, link type %d: kept: %t\n%s", s.name, link, got, hex.Dump(b))
			}
		}
	}
	if n := rounds * len(all); seen[keep] < n/5 || seen[throw] < n/10 {
		t.Errorf("of %d frames %d are to be kept, %d not", n, seen[keep], seen[throw])
	}
	t.Logf("%d frames either way, %d to be kept, %d not", seen[either], seen[keep], seen[throw])
}

// TestExportersOfEveryPrefix: for each length of a prefix, an address within it
// and one whose last bit of the prefix differs.
func TestExportersOfEveryPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{4, 16} {
		us := netip.MustParseAddr(us4)
		if size == 16 {
			us = netip.MustParseAddr(us6)
		}
		for bits := range size*8 + 1 {
			raw := make([]byte, size)
			for i := range raw {
				raw[i] = byte(r.Uint32())
			}
			addr, _ := netip.AddrFromSlice(raw)
			p := netip.PrefixFrom(addr, bits)
			f := Filter{Exports: []Export{{To: netip.AddrPortFrom(us, 2055), From: []netip.Prefix{p, p.Masked()}}}}
			kept := machine(t, &f, packet.Raw)
			send := func(src []byte) bool {
				a, _ := netip.AddrFromSlice(src)
				if size == 4 {
					return kept(frame(t, ip4(udp, a.String(), us.String()), datagram(1, 2055)))
				}
				return kept(frame(t, ip6(udp, a.String(), us.String()), datagram(1, 2055)))
			}
			in := append([]byte{}, raw...)
			for i := bits; i < size*8; i++ {
				in[i/8] ^= byte(r.Uint32()) & (0x80 >> (i % 8))
			}
			if send(in) {
				t.Errorf("%v is kept of %v", in, p)
			}
			if bits == 0 {
				continue
			}
			in[(bits-1)/8] ^= 0x80 >> ((bits - 1) % 8)
			if !send(in) {
				t.Errorf("%v is dropped of %v", in, p)
			}
		}
	}
}

func TestManyExportersFitInTheKernelsProgram(t *testing.T) {
	const most = 4096 // BPF_MAXINSNS
	var f Filter
	for i := range 2 {
		e := Export{To: netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%d]:2055", i))}
		if i == 1 {
			e.To = netip.MustParseAddrPort("0.0.0.0:2056")
		}
		for n := range 500 { // of the longest length
			e.From = append(e.From, netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/127", n)), netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/31", n/256, n%256)))
		}
		f.Exports = append(f.Exports, e)
	}
	f.Thin = 7
	for _, link := range []packet.LinkType{packet.Ethernet, packet.Raw} {
		raw := f.program(link)
		if len(raw) >= most {
			t.Errorf("link type %d: %d instructions", link, len(raw))
		}
		t.Logf("link type %d: %d instructions", link, len(raw))
	}
	f.Thin = 0
	kept := machine(t, &f, packet.Raw)
	dropped := 0
	for n := range 500 {
		if !kept(frame(t, ip4(udp, fmt.Sprintf("10.%d.%d.1", n/256, n%256), us4), datagram(1, 2056))) {
			dropped++
		}
		if !kept(frame(t, ip4(tcp, fmt.Sprintf("10.%d.%d.1", n/256, n%256), us4), &layers.TCP{DstPort: 2056})) {
			t.Fatal("TCP is dropped")
		}
	}
	if dropped != maxPrefixes {
		t.Errorf("exports of %d are dropped, want %d", dropped, maxPrefixes)
	}
}

const tcp = 6

// TestThinningComparesWithTheChance: the program compares the kernel's random number of 32 bits, the
// machine of which has none, with the chance that is told.
func TestThinningComparesWithTheChance(t *testing.T) {
	for _, link := range []packet.LinkType{packet.Ethernet, packet.Raw} {
		for n := uint32(2); n <= 4096; n = n*3/2 + 1 {
			f := Filter{Thin: n}
			raw, whole := f.program(link), (&Filter{}).program(link)
			const random = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
			if raw[0] != (bpf.RawInstruction{Op: 0x20, K: random}) || raw[1].Op != 0x35 || raw[1].Jf != 1 || raw[1].Jt != 0 || raw[2] != (bpf.RawInstruction{Op: 6}) {
				t.Fatalf("1 in %d: %v", n, raw[:3]) // ld rand; jge #K, 0, 1; ret #0
			}
			if got := float64(raw[1].K) / (1 << 32); got != Chance(n) || got < 1/float64(n) || got-1/float64(n) >= 1./(1<<32) {
				t.Errorf("1 in %d: %v, and the chance is said to be %v", n, got, Chance(n))
			}
			if fmt.Sprint(raw[3:]) != fmt.Sprint(whole) {
				t.Errorf("1 in %d is another filter", n)
			}
		}
	}
	for _, n := range []uint32{0, 1} {
		if Chance(n) != 1 || fmt.Sprint((&Filter{Thin: n}).program(packet.Raw)) != fmt.Sprint((&Filter{}).program(packet.Raw)) {
			t.Errorf("thin %d is not all", n)
		}
	}
}
