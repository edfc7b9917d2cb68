// SPDX-License-Identifier: BSD-3-Clause

package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/overflowd/overflowd/internal/flow"
)

// sample is a frame and what Parse has to read from it.
type sample struct {
	name  string
	link  LinkType
	frame []byte
	want  Packet
}

const known = flow.HasTOS | flow.HasTTL | flow.HasBytes

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

// v4 and v6 wrap a layer-4 header and the 16 bytes of payload into IP.
func v4(protocol layers.IPProtocol, l4 ...byte) []byte {
	ip := ip4()
	ip.Protocol, ip.TOS, ip.TTL = protocol, 0xb8, 61
	b := gopacket.NewSerializeBuffer()
	gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ip, gopacket.Payload(append(l4[:len(l4):len(l4)], payload...)))
	return b.Bytes()
}

func v6(next layers.IPProtocol, l4 ...byte) []byte {
	ip := ip6(next)
	ip.TrafficClass, ip.HopLimit = 0xb8, 61
	b := gopacket.NewSerializeBuffer()
	gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ip, gopacket.Payload(append(l4[:len(l4):len(l4)], payload...)))
	return b.Bytes()
}

func change(b []byte, at int, v ...byte) []byte {
	c := append([]byte(nil), b...)
	copy(c[at:], v)
	return c
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	macs    = []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	tcpHead = []byte{0x04, 0xd2, 0x25, 0x1c, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0xdb, 1, 0, 0, 0, 0, 0}
	udpHead = []byte{0x04, 0xd2, 0x25, 0x1c, 0, 24, 0, 0}
)

// samples are frames of every kind that is read.
func samples() []sample {
	four := func(protocol uint8, sport, dport uint16) flow.Key {
		return key("45.83.0.2", "91.200.16.2", protocol, sport, dport)
	}
	six := func(protocol uint8, sport, dport uint16) flow.Key {
		return key("2600::1", "2a00::2", protocol, sport, dport)
	}
	of := func(k flow.Key, more flow.Field, bytes uint32) Packet {
		return Packet{Key: k, Known: known | more, Bytes: bytes, TOS: 0xb8, TTL: 61}
	}
	with := func(p Packet, change func(*Packet)) Packet {
		change(&p)
		return p
	}
	tcp4 := with(of(four(6, 1234, 9500), flow.HasPorts|flow.HasTCPFlags, 56), func(p *Packet) { p.TCPFlags = 0xdb })
	tcp6 := with(of(six(6, 1234, 9500), flow.HasPorts|flow.HasTCPFlags, 76), func(p *Packet) { p.TCPFlags = 0xdb })
	vlan := func(p Packet, id uint16) Packet {
		return with(p, func(p *Packet) { p.VLAN, p.Known = id, p.Known|flow.HasVLAN })
	}
	longer := func(p Packet, n uint32) Packet { return with(p, func(p *Packet) { p.Bytes += n }) }
	options := join(change(v4(6)[:20], 0, 0x47, 0xb8, 0, 64), make([]byte, 8), tcpHead, payload)
	hops := []byte{60, 0, 1, 4, 0, 0, 0, 0, 43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0}
	ethernet := func(ethertype uint16, b ...[]byte) []byte {
		return join(append([][]byte{macs, {byte(ethertype >> 8), byte(ethertype)}}, b...)...)
	}
	tag := func(id, ethertype uint16) []byte {
		return []byte{byte(id>>8) | 0x60, byte(id), byte(ethertype >> 8), byte(ethertype)}
	}
	label := func(value uint32, bottom byte) []byte {
		return []byte{byte(value >> 12), byte(value >> 4), byte(value<<4) | bottom, 64}
	}
	return []sample{
		{"TCP", Ethernet, ethernet(0x0800, v4(6, tcpHead...)), tcp4},
		{"TCP over IPv6", Ethernet, ethernet(0x86dd, v6(6, tcpHead...)), tcp6},
		{"TCP behind IPv4 options", Raw, options, longer(tcp4, 8)},
		{"TCP behind three extension headers", Raw, v6(0, join(hops, tcpHead)...), longer(tcp6, 32)},
		{"UDP", Raw, v4(17, udpHead...), of(four(17, 1234, 9500), flow.HasPorts, 44)},
		{"UDP-Lite", Raw, v4(136, udpHead...), of(four(136, 1234, 9500), flow.HasPorts, 44)},
		{"DCCP", Raw, v6(33, udpHead...), of(six(33, 1234, 9500), flow.HasPorts, 64)},
		{"SCTP", Raw, v4(132, udpHead...), of(four(132, 1234, 9500), flow.HasPorts, 44)},
		{"an ICMP port unreachable", Raw, v4(1, 3, 3, 0, 0, 0, 0, 0, 0), of(four(1, 0, 0x0303), flow.HasPorts, 44)},
		{"an ICMPv6 echo request", Raw, v6(58, 128, 0, 0, 0, 0, 0, 0, 1), of(six(58, 0, 0x8000), flow.HasPorts, 64)},
		{"GRE", Raw, v4(47, 0, 0, 8, 0), of(four(47, 0, 0), 0, 40)},
		{"ESP over IPv6", Raw, v6(50, 1, 2, 3, 4), of(six(50, 0, 0), 0, 60)},
		{"no next header", Raw, v6(59), of(six(59, 0, 0), 0, 56)},
		{"protocol 255", Raw, v4(255), of(four(255, 0, 0), 0, 36)},
		{"IPv4 in IPv6: the outer flow", Raw, v6(4, v4(6, tcpHead...)...), of(six(4, 0, 0), 0, 40+56+16)},
		{"a first fragment", Raw, change(v4(6, tcpHead...), 6, 0x20, 0), tcp4},
		{"a later fragment", Raw, change(v4(6, tcpHead...), 6, 0x20, 9), with(of(four(6, 0, 0), 0, 56), func(p *Packet) { p.Fragment = true })},
		{"the last fragment", Raw, change(v4(17, udpHead...), 6, 0, 9), with(of(four(17, 0, 0), 0, 44), func(p *Packet) { p.Fragment = true })},
		{"don't fragment", Raw, change(v4(6, tcpHead...), 6, 0x40, 0), tcp4},
		{"a first fragment of IPv6", Raw, v6(44, join([]byte{6, 0, 0, 1, 0, 0, 0, 7}, tcpHead)...), longer(tcp6, 8)},
		{"an atomic fragment of IPv6", Raw, v6(44, join([]byte{6, 0, 0, 6, 0, 0, 0, 7}, tcpHead)...), longer(tcp6, 8)},
		{"a later fragment of IPv6", Raw, v6(44, join([]byte{6, 0, 0, 8, 0, 0, 0, 7}, tcpHead)...),
			with(of(six(6, 0, 0), 0, 84), func(p *Packet) { p.Fragment = true })},
		{"802.1Q", Ethernet, ethernet(0x8100, tag(7, 0x0800), v4(6, tcpHead...)), vlan(tcp4, 7)},
		{"QinQ: the outer identifier", Ethernet, ethernet(0x88a8, tag(4095, 0x8100), tag(7, 0x86dd), v6(6, tcpHead...)), vlan(tcp6, 4095)},
		{"a priority tag", Ethernet, ethernet(0x8100, tag(0, 0x0800), v4(6, tcpHead...)), tcp4},
		{"PPPoE in a VLAN", Ethernet, ethernet(0x8100, tag(7, 0x8864), []byte{0x11, 0, 0, 9, 0, 58, 0, 0x21}, v4(6, tcpHead...)), vlan(tcp4, 7)},
		{"PPPoE, IPv6", Ethernet, ethernet(0x8864, []byte{0x11, 0, 0, 9, 0, 78, 0, 0x57}, v6(6, tcpHead...)), tcp6},
		{"MPLS, one label", Ethernet, ethernet(0x8847, label(16, 1), v4(6, tcpHead...)), tcp4},
		{"MPLS, three labels, IPv6", Ethernet, ethernet(0x8848, label(16, 0), label(1<<20-1, 0), label(2, 1), v6(6, tcpHead...)), tcp6},
		{"MPLS without a link layer", MPLS, join(label(16, 1), v4(6, tcpHead...)), tcp4},
		{"PPP", PPP, join([]byte{0, 0x21}, v4(6, tcpHead...)), tcp4},
		{"PPP in HDLC-like framing", PPP, join([]byte{0xff, 3, 0, 0x57}, v6(6, tcpHead...)), tcp6},
		{"MPLS over PPP", PPP, join([]byte{0xff, 3, 2, 0x81}, label(16, 1), v4(6, tcpHead...)), tcp4},
		{"BSD loopback", Null, join([]byte{2, 0, 0, 0}, v4(6, tcpHead...)), tcp4},
		{"Linux cooked", LinuxSLL, join(make([]byte, 14), []byte{8, 0}, v4(6, tcpHead...)), tcp4},
		{"Linux cooked, version 2", SLL2, join([]byte{0x81, 0}, make([]byte, 18), tag(7, 0x0800), v4(6, tcpHead...)), vlan(tcp4, 7)},
		{"padding that looks like ports", Ethernet, ethernet(0x0800, change(v4(17, udpHead...), 2, 0, 22)), of(four(17, 0, 0), 0, 22)},
		{"padding behind IPv6 that looks like ports", Ethernet, ethernet(0x86dd, change(v6(17, udpHead...), 4, 0, 3)), of(six(17, 0, 0), 0, 43)},
		{"IPv4 whose length is left to the card", Raw, change(v4(6, tcpHead...), 2, 0, 0), with(tcp4, func(p *Packet) { p.Known &^= flow.HasBytes })},
		{"IPv6 whose length is left to the card", Raw, change(v6(6, tcpHead...), 4, 0, 0), with(tcp6, func(p *Packet) { p.Known &^= flow.HasBytes })},
		{"::ffff:192.0.2.1 stays IPv6", Raw, change(v6(59), 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1),
			of(key("::ffff:192.0.2.1", "2a00::2", 59, 0, 0), 0, 56)},
	}
}

func TestFramesOfNoFlowAreToldApart(t *testing.T) {
	raw4, raw6 := v4(6, tcpHead...), v6(6, tcpHead...)
	ethernet := func(ethertype uint16, b ...[]byte) []byte {
		return join(append([][]byte{macs, {byte(ethertype >> 8), byte(ethertype)}}, b...)...)
	}
	labels := make([]byte, 400) // none is the bottom of the stack
	for _, c := range []struct {
		name  string
		link  LinkType
		frame []byte
		want  error
	}{
		{"nothing", Ethernet, nil, ErrShort},
		{"nothing, raw", Raw, nil, ErrShort},
		{"nothing, PPP", PPP, nil, ErrShort},
		{"the framing of PPP alone", PPP, []byte{0xff, 3, 0}, ErrShort},
		{"nothing, MPLS", MPLS, nil, ErrShort},
		{"half an address", Raw, raw4[:19], ErrShort},
		{"half an address of IPv6", Raw, raw6[:39], ErrShort},
		{"an unknown link type", 147, raw4, ErrLinkType},
		{"ARP", Ethernet, ethernet(0x0806, raw4), ErrNotIP},
		{"LLC", Ethernet, ethernet(100, raw4), ErrNotIP},
		{"a VLAN tag cut", Ethernet, ethernet(0x8100, []byte{0, 7, 8}), ErrShort},
		{"nothing but VLAN tags", Ethernet, ethernet(0x8100, bytesOf(0x81, 400)), ErrNotIP},
		{"PPPoE cut", Ethernet, ethernet(0x8864, []byte{0x11, 0, 0, 9, 0, 58, 0}), ErrShort},
		{"PPPoE that terminates a session", Ethernet, ethernet(0x8864, []byte{0x11, 0xa7, 0, 9, 0, 58, 0, 0x21}, raw4), ErrNotIP},
		{"PPP's link control", PPP, []byte{0xc0, 0x21, 1, 1}, ErrNotIP},
		{"an MPLS label cut", MPLS, []byte{0, 1, 1}, ErrShort},
		{"nothing but MPLS labels", MPLS, labels, ErrNotIP},
		{"an Ethernet pseudowire", MPLS, join([]byte{0, 1, 1, 64, 0, 0, 0, 0}, macs), ErrNotIP},
		{"version 5", Raw, change(raw4, 0, 0x55), ErrNotIP},
		{"IPv6 where IPv4 is promised", Ethernet, ethernet(0x0800, raw6), ErrNotIP},
		{"IPv4 where IPv6 is promised", Ethernet, ethernet(0x86dd, raw4), ErrNotIP},
		{"a header length of 16", Raw, change(raw4, 0, 0x44), ErrHeader},
		{"a total length within the header", Raw, change(raw4, 2, 0, 19), ErrHeader},
	} {
		var p Packet
		if err := Parse(c.link, c.frame, &p); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestEveryKindOfFrameIsRead(t *testing.T) {
	for _, s := range samples() {
		got := Packet{Key: flow.Key{SrcPort: 9, Src: [16]byte{15: 1}}, Known: 1 << 31, Fragment: true, VLAN: 9} // nothing may stay
		if err := Parse(s.link, s.frame, &got); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		got.header = 0 // see TestAnAggregateCountsAsItsSegments
		if diff := cmp.Diff(s.want, got, cmp.AllowUnexported(Packet{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

func TestOfACutFrameWhatIsThereCounts(t *testing.T) {
	for _, s := range samples() {
		last := flow.Field(0)
		readable := false
		for n := range len(s.frame) + 1 {
			var p Packet
			err := Parse(s.link, s.frame[:n:n], &p)
			if readable && err != nil || err != nil && err != ErrShort {
				t.Fatalf("%s cut to %d: %v", s.name, n, err)
			}
			if err != nil {
				continue
			}
			readable, p.header = true, 0
			if p.Known&^s.want.Known != 0 || last&^p.Known != 0 {
				t.Errorf("%s cut to %d: %b is known, of %b and before %b", s.name, n, p.Known, s.want.Known, last)
			}
			last = p.Known
			want := s.want
			want.Known = p.Known
			if p.Known&flow.HasPorts == 0 {
				want.SrcPort, want.DstPort = 0, 0
			}
			if p.Known&flow.HasTCPFlags == 0 {
				want.TCPFlags = 0
			}
			if p.Known&flow.HasBytes == 0 { // what is there, and what was cut
				p.Bytes += uint32(len(s.frame) - n)
			}
			if p.Family == flow.IPv6 && p.Known&flow.HasPorts == 0 { // perhaps not behind the extension headers
				want.Protocol, want.Fragment = p.Protocol, p.Fragment
			}
			if p != want {
				t.Errorf("%s cut to %d: %+v, want %+v", s.name, n, p, want)
			}
		}
		if !readable || last != s.want.Known {
			t.Errorf("%s: never whole", s.name)
		}
	}
}

func TestSeventeenExtensionHeadersAreNotLookedBehind(t *testing.T) {
	for n, ports := range map[int]bool{15: true, 16: false, 17: false} {
		hops := bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, n)
		hops[len(hops)-8] = 6
		var p Packet
		err := Parse(Raw, v6(60, join(hops, tcpHead)...), &p)
		if err != nil || p.Known&flow.HasPorts != 0 != ports {
			t.Errorf("%d headers: %v, %+v", n, err, p)
		}
	}
}

var firstLayer = map[LinkType]gopacket.Decoder{
	Ethernet: layers.LayerTypeEthernet, LinuxSLL: layers.LayerTypeLinuxSLL, PPP: layers.LayerTypePPP, MPLS: layers.LayerTypeMPLS,
	Null: layers.LayerTypeLoopback, Loop: layers.LayerTypeLoopback,
}

// flowOracle reads a frame with gopacket. ok: it found IP. ports: it has an
// opinion about them.
func flowOracle(link LinkType, frame []byte) (want Packet, ok, ports bool) {
	first := firstLayer[link]
	if first == nil && len(frame) > 0 {
		first = map[byte]gopacket.Decoder{4: layers.LayerTypeIPv4, 6: layers.LayerTypeIPv6}[frame[0]>>4]
	}
	if first == nil {
		return
	}
	p := gopacket.NewPacket(frame, first, gopacket.DecodeOptions{NoCopy: true})
	port := func(src, dst uint16, known flow.Field) {
		want.SrcPort, want.DstPort = src, dst
		want.Known |= known
		ports = true
	}
	tags := 0
	var six *layers.IPv6
	for _, l := range p.Layers() {
		if len(l.LayerContents()) == 0 { // it gave up there
			return
		}
		switch x := l.(type) {
		case *layers.Dot1Q:
			tags++
			if id := x.VLANIdentifier; !ok && id != 0 && want.Known&flow.HasVLAN == 0 {
				want.VLAN = id
				want.Known |= flow.HasVLAN
			}
		case *layers.LLC, *layers.EtherIP: // not read here
			return Packet{}, false, false
		case *layers.PPPoE:
			if x.Version != 1 || x.Type != 1 || x.Code != 0 {
				return Packet{}, false, false
			}
		case *layers.PPP:
			if x.PPPType < 0x100 && len(x.Contents)%2 != 0 { // a protocol field of one byte
				return Packet{}, false, false
			}
		case *layers.IPv4:
			if ok {
				return
			}
			if x.Version != 4 || x.IHL < 5 || int(x.Length) < int(x.IHL)*4 || tags >= maxTags {
				return Packet{}, false, false
			}
			ok = true
			want.Key = key("0.0.0.0", "0.0.0.0", uint8(x.Protocol), 0, 0)
			copy(want.Src[:], x.SrcIP)
			copy(want.Dst[:], x.DstIP)
			want.Known |= known
			want.TOS, want.TTL, want.Bytes = x.TOS, x.TTL, uint32(x.Length)
			want.Fragment = x.FragOffset != 0
			switch x.Protocol {
			case 0, 43, 44, 51, 60: // it takes them for extension headers of IPv4, which has none
				return
			}
		case *layers.IPv6:
			if ok {
				return
			}
			if x.Version != 6 || tags >= maxTags {
				return Packet{}, false, false
			}
			ok, six = true, x
			want.Key = key("::", "::", uint8(x.NextHeader), 0, 0)
			copy(want.Src[:], x.SrcIP)
			copy(want.Dst[:], x.DstIP)
			want.Known |= known
			want.TOS, want.TTL, want.Bytes = x.TrafficClass, x.HopLimit, 40+uint32(x.Length)
			if x.Length == 0 {
				want.Known &^= flow.HasBytes
			}
		case *layers.IPv6HopByHop:
			want.Protocol = uint8(x.NextHeader)
			if int(six.Length) < x.ActualLength+len(six.Payload) { // it forgets to count this header as payload
				return
			}
		case *layers.IPv6Routing:
			want.Protocol = uint8(x.NextHeader)
		case *layers.IPv6Destination:
			want.Protocol = uint8(x.NextHeader)
		case *layers.IPSecAH:
			want.Protocol = uint8(x.NextHeader)
		case *layers.IPv6Fragment:
			want.Protocol = uint8(x.NextHeader)
			want.Fragment = x.FragmentOffset != 0
			if !want.Fragment {
				return // it does not look behind the header of a first one
			}
		case *layers.TCP:
			port(uint16(x.SrcPort), uint16(x.DstPort), flow.HasPorts|flow.HasTCPFlags)
			want.TCPFlags = x.Contents[13]
			return
		case *layers.UDP:
			port(uint16(x.SrcPort), uint16(x.DstPort), flow.HasPorts)
			return
		case *layers.UDPLite:
			port(uint16(x.SrcPort), uint16(x.DstPort), flow.HasPorts)
			return
		case *layers.SCTP:
			port(uint16(x.SrcPort), uint16(x.DstPort), flow.HasPorts)
			return
		case *layers.ICMPv4:
			port(0, uint16(x.TypeCode), flow.HasPorts)
			return
		case *layers.ICMPv6:
			port(0, uint16(x.TypeCode), flow.HasPorts)
			return
		}
	}
	return
}

// agree compares Parse with gopacket, and reports whether there was something
// to compare.
func agree(t *testing.T, name string, link LinkType, frame []byte) bool {
	want, ok, ports := flowOracle(link, frame)
	var got Packet
	err := Parse(link, frame, &got)
	switch {
	case err != nil && !ok:
		return false
	case err != nil:
		t.Fatalf("%s: %v, gopacket has %+v: % x", name, err, want, frame)
	case !ok:
		return false // it wants more of a frame than we do: the cut test says what we read then
	}
	compare := got
	compare.header = 0
	if got.Known&flow.HasBytes == 0 {
		compare.Bytes, want.Bytes = 0, 0
		compare.Known, want.Known = compare.Known&^flow.HasBytes, want.Known&^flow.HasBytes
	}
	if !ports {
		// It gave up at the IP header or the one behind it, or knows nothing of
		// the protocol: then the key stands, and ports that we have are those
		// at their place.
		compare.Known &^= flow.HasPorts | flow.HasTCPFlags
		compare.SrcPort, compare.DstPort, compare.TCPFlags = 0, 0, 0
		if got.Family == flow.IPv6 {
			compare.Protocol, compare.Fragment = want.Protocol, want.Fragment
		}
	}
	if compare != want {
		t.Fatalf("%s: %+v, gopacket has %+v (ports: %v): % x", name, got, want, ports, frame)
	}
	return ports
}

func TestMutatedFramesAreOfTheFlowThatGopacketSees(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	agreed := 0
	n := 2000
	if testing.Short() {
		n = 200
	}
	for _, s := range samples() {
		for range n {
			c := append([]byte(nil), s.frame...)
			for range r.IntN(4) {
				c[r.IntN(len(c))] = byte(r.Uint32())
			}
			if r.IntN(4) == 0 {
				c = slices.Clip(c[:r.IntN(len(c)+1)]) // gopacket looks behind the end
			}
			if agree(t, s.name, s.link, c) {
				agreed++
			}
		}
	}
	if agreed < 15*n {
		t.Errorf("compared %d frames only", agreed)
	}
}

func TestRandomFramesAreOfTheFlowThatGopacketSees(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	agreed := 0
	links := []LinkType{Ethernet, Raw, LinuxSLL, PPP, MPLS, Null, Loop}
	protocols := []byte{1, 6, 17, 33, 44, 47, 50, 51, 58, 59, 60, 0, 43, 132, 135, 136}
	for range 20000 {
		b := make([]byte, r.IntN(160))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		link := links[r.IntN(len(links))]
		// What is only noise is seldom IP: a header that is likely.
		at := map[LinkType]int{Ethernet: 14, LinuxSLL: 16, PPP: 2, MPLS: 4, Null: 4, Loop: 4}[link]
		if len(b) > at+40 {
			six := r.IntN(2) == 0
			switch link {
			case Ethernet, LinuxSLL:
				binary.BigEndian.PutUint16(b[at-2:], map[bool]uint16{false: 0x0800, true: 0x86dd}[six])
			case PPP:
				binary.BigEndian.PutUint16(b, map[bool]uint16{false: 0x21, true: 0x57}[six])
			case MPLS:
				b[2] |= 1
			case Null, Loop:
				copy(b, []byte{0, 0, 0, map[bool]byte{false: 2, true: 30}[six]})
			}
			h := b[at:]
			if six {
				h[0], h[4], h[5], h[6] = 0x60|h[0]&15, 0, h[5]&127, protocols[r.IntN(len(protocols))]
			} else {
				h[0], h[2], h[6], h[7], h[9] = 0x40|byte(5+r.IntN(3)), 0, h[6]&0x40, 0, protocols[r.IntN(len(protocols))]
			}
		}
		if agree(t, "noise", link, b) {
			agreed++
		}
	}
	if agreed < 1000 {
		t.Errorf("compared %d frames only", agreed)
	}
}

func TestRecordedFramesAreOfTheFlowThatGopacketSees(t *testing.T) {
	files, _ := filepath.Glob("../../testdata/netflow/*.pcap")
	agreed := 0
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		r, err := pcapgo.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		for {
			data, _, err := r.ReadPacketData()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if agree(t, name, LinkType(r.LinkType()), data) {
				agreed++
			}
		}
	}
	if len(files) < 4 || agreed < 15 {
		t.Errorf("compared %d frames of %d files only", agreed, len(files))
	}
}

// TestAnAggregateCountsAsItsSegments: what gopacket makes of the segments one by
// one is what the whole is counted for.
func TestAnAggregateCountsAsItsSegments(t *testing.T) {
	for _, c := range []struct {
		name     string
		ip       gopacket.SerializableLayer
		l4       gopacket.SerializableLayer
		payload  int
		size     uint16
		packets  uint32
		overhead uint64 // of each packet
	}{
		{"TCP", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 6}, &layers.TCP{}, 14480, 1448, 10, 40},
		{"a last one that is smaller", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 6}, &layers.TCP{}, 14481, 1448, 11, 40},
		{"TCP with options", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 6},
			&layers.TCP{Options: []layers.TCPOption{{OptionType: 8, OptionLength: 10, OptionData: make([]byte, 8)}}}, 2896, 1448, 2, 52},
		{"TCP over IPv6", &layers.IPv6{SrcIP: make([]byte, 16), DstIP: make([]byte, 16), Version: 6, NextHeader: 6}, &layers.TCP{}, 60000, 1428, 43, 60},
		{"UDP", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 17}, &layers.UDP{}, 5000, 1000, 5, 28},
		{"one segment", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 6}, &layers.TCP{}, 1448, 1448, 1, 40},
		{"no aggregate", &layers.IPv4{SrcIP: make([]byte, 4), DstIP: make([]byte, 4), Version: 4, IHL: 5, Protocol: 6}, &layers.TCP{}, 1448, 0, 1, 40},
	} {
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, c.ip, c.l4, gopacket.Payload(make([]byte, c.payload))); err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := Parse(Raw, b.Bytes()[:100], &p); err != nil {
			t.Fatal(err)
		}
		packets, bytes := p.Segments(c.size)
		if want := uint64(c.payload) + uint64(c.packets)*c.overhead; packets != c.packets || bytes != want {
			t.Errorf("%s: %d packets, %d bytes, want %d and %d", c.name, packets, bytes, c.packets, want)
		}
	}
}

func TestParsingAFlowDoesNotAllocate(t *testing.T) {
	all := samples()
	var p Packet
	if n := testing.AllocsPerRun(10, func() {
		for i := range all {
			Parse(all[i].link, all[i].frame, &p)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	seeds := 0
	for _, s := range samples() {
		f.Add(uint16(s.link), s.frame)
		seeds++
	}
	if seeds == 0 {
		f.Fatal("an empty corpus")
	}
	f.Fuzz(func(t *testing.T, link uint16, frame []byte) {
		var p Packet
		err := Parse(LinkType(link), frame, &p)
		switch err {
		case nil:
		case ErrLinkType, ErrShort, ErrHeader, ErrNotIP:
			return
		default:
			t.Fatalf("the error %v", err)
		}
		size := 20
		if p.Family == flow.IPv6 {
			size = 40
		}
		if len(frame) < size || int(p.Bytes) < size || p.Known&flow.HasBytes == 0 && int(p.Bytes) > len(frame) {
			t.Errorf("a packet of %d bytes in a frame of %d", p.Bytes, len(frame))
		}
		if p.Fragment && p.Known&flow.HasPorts != 0 {
			t.Error("a later fragment has ports")
		}
		// There is a short way and a long one.
		var long Packet
		if err := long.parse(LinkType(link), frame); err != nil || long != p {
			t.Errorf("%+v, the long way %+v: %v", p, long, err)
		}
		// The datagram that is found is of the flow that is found.
		var d Datagram
		if ParseUDP(LinkType(link), frame, &d) == nil &&
			(p.Protocol != 17 || p.Known&flow.HasPorts == 0 || d.Src != netip.AddrPortFrom(p.SrcAddr(), p.SrcPort) ||
				d.Dst != netip.AddrPortFrom(p.DstAddr(), p.DstPort)) {
			t.Errorf("%+v, the datagram is of %v to %v", p, d.Src, d.Dst)
		}
		// Nothing is read from behind the end.
		var q Packet
		if err := Parse(LinkType(link), frame[:len(frame):len(frame)], &q); err != nil || p != q {
			t.Errorf("%+v, then %+v: %v", p, q, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, s := range samples() {
		switch s.name {
		case "TCP", "TCP over IPv6", "QinQ: the outer identifier", "TCP behind three extension headers", "MPLS, three labels, IPv6":
			b.Run(s.name, func(b *testing.B) {
				var p Packet
				b.ReportAllocs()
				for b.Loop() {
					if err := Parse(s.link, s.frame, &p); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestAnErrorQuotesThePacketThatItIsAbout wraps packets in ICMP errors, and cuts them.
func TestAnErrorQuotesThePacketThatItIsAbout(t *testing.T) {
	four := func(protocol byte, l4 []byte) []byte {
		b := make([]byte, 20, 20+len(l4))
		b[0], b[8], b[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
		copy(b[12:], []byte{192, 0, 2, 1, 198, 51, 100, 2})
		return append(b, l4...)
	}
	sixth := func(protocol byte, l4 []byte) []byte {
		b := make([]byte, 40, 40+len(l4))
		b[0], b[6], b[7], b[8], b[24], b[39] = 0x60, protocol, 64, 0x20, 0x20, 9
		binary.BigEndian.PutUint16(b[4:], uint16(len(l4)))
		return append(b, l4...)
	}
	udp := []byte{0x30, 0x39, 0, 53, 0, 8, 0, 0}
	for name, c := range map[string]struct {
		frame []byte
		link  LinkType
	}{
		"port unreachable":     {four(1, join([]byte{3, 3, 0, 0, 0, 0, 0, 0}, four(17, udp))), RawIPv4},
		"time exceeded":        {four(1, join([]byte{11, 0, 0, 0, 0, 0, 0, 0}, four(17, udp))), RawIPv4},
		"packet too big (v6)":  {sixth(58, join([]byte{2, 0, 0, 0, 0, 0, 5, 0}, sixth(17, udp))), RawIPv6},
		"time exceeded in PPP": {join([]byte{0, 0x21}, four(1, join([]byte{11, 0, 0, 0, 0, 0, 0, 0}, four(17, udp)))), PPP},
	} {
		var inner Packet
		quoted, ok := Quoted(c.link, c.frame)
		if !ok {
			t.Fatalf("%s: nothing is quoted", name)
		}
		raw := four(17, udp)
		if quoted.Family == flow.IPv6 {
			raw = sixth(17, udp)
		}
		if err := Parse(Raw, raw, &inner); err != nil || inner.SrcPort != 12345 || quoted != inner.Key {
			t.Errorf("%s: %+v of %+v, %v", name, quoted, inner.Key, err)
		}
		for n := range c.frame { // cut anywhere it tells no other flow
			if q, ok := Quoted(c.link, c.frame[:n]); ok && (q.Src != inner.Src || q.Dst != inner.Dst) {
				t.Errorf("%s, cut at %d: %+v", name, n, q)
			}
		}
	}
	for name, b := range map[string][]byte{
		"an echo":              four(1, join([]byte{8, 0, 0, 0, 0, 0, 0, 0}, four(17, udp))),
		"an echo of ICMPv6":    sixth(58, join([]byte{128, 0, 0, 0, 0, 0, 0, 0}, sixth(17, udp))),
		"an error about noise": four(1, []byte{3, 3, 0, 0, 0, 0, 0, 0, 0xff, 1, 2}),
	} {
		if q, ok := Quoted(Raw, b); ok {
			t.Errorf("%s: %+v", name, q)
		}
	}
}
