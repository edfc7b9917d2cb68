// SPDX-License-Identifier: BSD-3-Clause

package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var payload = []byte("sixteen bytes of")

// build serializes layers with gopacket.
func build(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, append(ls, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ether(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: t}
}

func ip4() *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: 17, SrcIP: net.IP{45, 83, 0, 2}, DstIP: net.IP{91, 200, 16, 2}}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("2600::1"), DstIP: net.ParseIP("2a00::2")}
}

func udp() *layers.UDP { return &layers.UDP{SrcPort: 1234, DstPort: 9500} }

// frames are whole UDP datagrams in every wrapping that is read.
func frames(t testing.TB) map[string]struct {
	link  LinkType
	frame []byte
} {
	type f = struct {
		link  LinkType
		frame []byte
	}
	raw4, raw6 := build(t, ip4(), udp()), build(t, ip6(17), udp())
	withOptions := ip4()
	withOptions.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
	prefix := func(head []byte, b []byte) []byte { return append(append([]byte(nil), head...), b...) }
	offload := append([]byte(nil), raw4...)
	offload[2], offload[3] = 0, 0
	noLength := append([]byte(nil), raw6...)
	noLength[4], noLength[5] = 0, 0
	hop := func(kind byte, head ...byte) []byte { // an extension header before UDP
		b := prefix(raw6[:40], head)
		b[6] = kind
		binary.BigEndian.PutUint16(b[4:], uint16(len(head)+len(raw6)-40))
		return append(b, raw6[40:]...)
	}
	sll := append(make([]byte, 14), 0x08, 0x00)
	sll2 := append([]byte{0x86, 0xdd}, make([]byte, 18)...)
	return map[string]f{
		"Ethernet, IPv4":           {Ethernet, build(t, ether(0x0800), ip4(), udp())},
		"Ethernet with padding":    {Ethernet, append(build(t, ether(0x0800), ip4(), udp()), make([]byte, 9)...)},
		"Ethernet, IPv6":           {Ethernet, build(t, ether(0x86dd), ip6(17), udp())},
		"802.1Q":                   {Ethernet, build(t, ether(0x8100), &layers.Dot1Q{VLANIdentifier: 7, Type: 0x0800}, ip4(), udp())},
		"QinQ":                     {Ethernet, build(t, ether(0x88a8), &layers.Dot1Q{VLANIdentifier: 7, Type: 0x8100}, &layers.Dot1Q{Type: 0x86dd}, ip6(17), udp())},
		"PPPoE":                    {Ethernet, build(t, ether(0x8864), &layers.PPPoE{Version: 1, Type: 1, SessionId: 9}, &layers.PPP{PPPType: 0x21}, ip4(), udp())},
		"IPv4 options":             {RawIPv4, build(t, withOptions, udp())},
		"IPv4 raw":                 {Raw, raw4},
		"IPv6 raw":                 {RawIPv6, raw6},
		"IPv4 of offload":          {Raw, offload},
		"IPv6 without a length":    {Raw, noLength},
		"hop-by-hop options":       {Raw, hop(0, 17, 0, 1, 4, 0, 0, 0, 0)},
		"destination options":      {Raw, hop(60, 17, 0, 1, 4, 0, 0, 0, 0)},
		"routing header":           {Raw, hop(43, 17, 0, 0, 0, 0, 0, 0, 0)},
		"atomic fragment":          {Raw, hop(44, 17, 0, 0, 0, 1, 2, 3, 4)},
		"authentication header":    {Raw, hop(51, 17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1)},
		"BSD loopback, little":     {Null, prefix([]byte{2, 0, 0, 0}, raw4)},
		"BSD loopback, big":        {Null, prefix([]byte{0, 0, 0, 30}, raw6)},
		"OpenBSD loopback":         {Loop, prefix([]byte{0, 0, 0, 24}, raw6)},
		"Linux cooked":             {LinuxSLL, prefix(sll, raw4)},
		"Linux cooked, version 2":  {SLL2, prefix(sll2, raw6)},
		"raw as some systems have": {RawBSD, raw4},
	}
}

func TestADatagramIsFoundInEveryWrapping(t *testing.T) {
	for name, f := range frames(t) {
		var d Datagram
		if err := ParseUDP(f.link, f.frame, &d); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		src, dst := "45.83.0.2:1234", "91.200.16.2:9500"
		if d.Src.Addr().Is6() {
			src, dst = "[2600::1]:1234", "[2a00::2]:9500"
		}
		if d.Src.String() != src || d.Dst.String() != dst || string(d.Payload) != string(payload) || d.Truncated {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestACutFrameGivesWhatThereIsOrAnError(t *testing.T) {
	for name, f := range frames(t) {
		start := 0
		for n := range f.frame {
			var d Datagram
			err := ParseUDP(f.link, f.frame[:n:n], &d)
			if err == nil && start == 0 {
				start = n // just behind the UDP header
			}
			if err == nil && len(d.Payload) != min(n-start, len(payload)) {
				t.Errorf("%s cut to %d: payload of %d", name, n, len(d.Payload))
			}
			if err == nil && !d.Truncated && len(d.Payload) < len(payload) {
				t.Errorf("%s cut to %d: not said to be truncated", name, n)
			}
		}
	}
}

func TestFramesThatHoldNoDatagramAreToldApart(t *testing.T) {
	raw4, raw6 := build(t, ip4(), udp()), build(t, ip6(17), udp())
	change := func(b []byte, at int, v ...byte) []byte {
		c := append([]byte(nil), b...)
		copy(c[at:], v)
		return c
	}
	for _, c := range []struct {
		name  string
		link  LinkType
		frame []byte
		want  error
	}{
		{"nothing", Ethernet, nil, ErrShort}, {"nothing, raw", Raw, nil, ErrShort}, {"nothing, loopback", Null, nil, ErrShort},
		{"an unknown link type", 147, raw4, ErrLinkType},
		{"ARP", Ethernet, build(t, ether(0x0806)), ErrNotIP},
		{"a VLAN tag cut", Ethernet, build(t, ether(0x8100))[:16], ErrShort},
		{"nothing but VLAN tags", Ethernet, append(build(t, ether(0x8100))[:14], bytesOf(0x81, 400)...), ErrNotIP},
		{"version 5", Raw, change(raw4, 0, 0x55), ErrNotIP},
		{"IPv6 where IPv4 is promised", Ethernet, append(build(t, ether(0x0800))[:14], raw6...), ErrNotIP},
		{"a header length of 4", Raw, change(raw4, 0, 0x41), ErrHeader},
		{"a total length within the header", Raw, change(raw4, 2, 0, 19), ErrHeader},
		{"TCP", Raw, change(raw4, 9, 6), ErrNotUDP}, {"TCP over IPv6", Raw, change(raw6, 6, 6), ErrNotUDP},
		{"a first fragment", Raw, change(raw4, 6, 0x20, 0), ErrFragment}, {"a later fragment", Raw, change(raw4, 6, 0, 9), ErrFragment},
		{"an IPv6 fragment", Raw, change(append(raw6, 0, 0), 6, 44, 0, 0), ErrFragment},
		{"a UDP length of 7", Raw, change(raw4, 24, 0, 7), ErrHeader},
	} {
		var d Datagram
		if c.name == "an IPv6 fragment" {
			c.frame = change(c.frame, 40, 17, 0, 0, 9)
		}
		if err := ParseUDP(c.link, c.frame, &d); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func bytesOf(b byte, n int) []byte {
	s := make([]byte, n)
	for i := 0; i < n; i += 4 {
		s[i+2] = b
	}
	return s
}

// oracle reads a frame with gopacket. It knows no checks that we do not have,
// so what it decodes without an error we must decode in the same way.
func oracle(link LinkType, frame []byte) (src, dst netip.AddrPort, data []byte, ok bool) {
	first := map[LinkType]gopacket.Decoder{Ethernet: layers.LayerTypeEthernet, LinuxSLL: layers.LayerTypeLinuxSLL}[link]
	if first == nil {
		return
	}
	p := gopacket.NewPacket(frame, first, gopacket.DecodeOptions{NoCopy: true})
	u, isUDP := p.TransportLayer().(*layers.UDP)
	if !isUDP || p.Metadata().Truncated || p.NetworkLayer() == nil {
		return
	}
	for _, l := range p.Layers() {
		switch x := l.(type) {
		case *layers.IPv4:
			if x.Flags&layers.IPv4MoreFragments != 0 || x.FragOffset != 0 || x.Version != 4 {
				return
			}
		case *layers.IPv6:
			if x.Version != 6 {
				return
			}
		case *layers.IPv6Fragment:
			return
		}
	}
	a, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	b, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
	return netip.AddrPortFrom(a, uint16(u.SrcPort)), netip.AddrPortFrom(b, uint16(u.DstPort)), u.Payload, true
}

func TestMutatedFramesAreReadAsGopacketReadsThem(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	agreed := 0
	for name, f := range frames(t) {
		for range 3000 {
			c := append([]byte(nil), f.frame...)
			for range r.IntN(3) {
				c[r.IntN(len(c))] = byte(r.Uint32())
			}
			src, dst, data, ok := oracle(f.link, c)
			if !ok {
				continue
			}
			var d Datagram
			if err := ParseUDP(f.link, c, &d); err != nil {
				// A UDP length of 0 and a PPPoE code are the two that we judge otherwise.
				if err == ErrHeader || err == ErrNotIP {
					continue
				}
				t.Fatalf("%s: %v, gopacket has %v to %v: % x", name, err, src, dst, c)
			}
			if d.Src != src || d.Dst != dst || !d.Truncated && string(d.Payload) != string(data) {
				t.Fatalf("%s: %+v, gopacket has %v to %v %q: % x", name, d, src, dst, data, c)
			}
			agreed++
		}
	}
	if agreed < 5000 {
		t.Errorf("compared %d frames only", agreed)
	}
}

func TestParsingDoesNotAllocate(t *testing.T) {
	all := frames(t)
	var d Datagram
	if n := testing.AllocsPerRun(10, func() {
		for _, f := range all {
			ParseUDP(f.link, f.frame, &d)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseUDP(f *testing.F) {
	for _, x := range frames(f) {
		f.Add(uint16(x.link), x.frame)
	}
	f.Fuzz(func(t *testing.T, link uint16, frame []byte) {
		var d Datagram
		if ParseUDP(LinkType(link), frame, &d) == nil && len(d.Payload)+28 > len(frame) {
			t.Errorf("a payload of %d in a frame of %d", len(d.Payload), len(frame))
		}
	})
}
